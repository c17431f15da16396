"""Training several models at once: on a CPU, processes of one thread each beat one process of several threads."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait

from common.errors import UserError
from common.seed import set_seed


def begin_worker(seed: int, threads: int) -> None:
    """Seed a worker; let Ctrl-C end it silently, and the end of its parent, however sudden, end it too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process().sentinel  # type: ignore[union-attr]  # a worker has a parent
    threading.Thread(target=lambda: (wait([parent]), os._exit(1)), daemon=True).start()
    set_seed(seed, threads)


def run(function: Callable, tasks: Iterable[tuple], jobs: int, seed: int, threads: int) -> Iterator:
    """Yield function(*task) for each task, in order, `jobs` at a time with `threads` threads each.

    One job runs in this process; more run in spawned ones, for which `function` must be a module's own. Each task
    must seed itself: nothing may depend on which worker it falls to.

    Raises: UserError when a worker is killed.
    """
    if jobs == 1:
        yield from (function(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, begin_worker, (seed, threads)) as executor:
        try:
            yield from executor.map(function, *zip(*tasks))
        except BaseException as error:
            for child in multiprocessing.active_children():
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                raise UserError(
                    "a training process was killed, perhaps for want of memory; give fewer --jobs"
                ) from None
            raise


def accompany(function: Callable, arguments: tuple, seed: int, threads: int) -> None:
    """Run in a companion: Ctrl-C is left to the process that it accompanies, which then ends it with SIGTERM."""
    begin_worker(seed, threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        function(*arguments)
    except UserError:
        sys.exit(2)  # the process that it accompanies meets the same error, and says it once


@contextmanager
def companions(function: Callable, arguments: tuple, count: int, seed: int, threads: int) -> Iterator[None]:
    """Run function(*arguments), a module's own, in `count` spawned processes beside the body of the `with`.

    In the end all are waited for; an error in the body ends them. One that dies leaves the others at work.
    """
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=accompany, args=(function, arguments, seed, threads)) for _ in range(count)]
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited, so that none dies of Ctrl-C while it starts
    for worker in workers:
        worker.start()
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    finally:
        for worker in workers:
            worker.join()
