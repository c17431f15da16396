"""Training several models at once: on a CPU, processes of one thread each beat one process of several threads."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from common.errors import UserError
from common.seed import set_seed


def begin_worker(seed: int, threads: int) -> None:
    """Seed a worker; let Ctrl-C end it silently, and the end of its parent, however sudden, end it too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process().sentinel
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
