"""Training several models at once: on a CPU, processes of one thread each beat one process of several threads."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

from common.errors import UserError


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin_worker(begin: Callable) -> None:
    """Call `begin` in a worker; let Ctrl-C end it silently, and the end of its parent, however sudden, end it too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process().sentinel  # type: ignore[union-attr]  # a worker has a parent
    threading.Thread(target=lambda: (wait([parent]), os._exit(1)), daemon=True).start()
    begin()


def run(function: Callable, tasks: Iterable[tuple], jobs: int, begin: Callable) -> Iterator:
    """Yield function(*task) for each task, in order, `jobs` at a time.

    One job runs in this process; more run in spawned ones, which first call `begin`, and for which both functions must
    be a module's own. Each task must seed itself: nothing may depend on which worker it falls to.

    Raises: UserError when a worker is killed.
    """
    if jobs == 1:
        yield from (function(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, begin_worker, (begin,)) as executor:
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


def begin_copy(function: Callable, arguments: tuple, begin: Callable) -> None:
    """Run in a copy, which the end of its parent ends in order."""
    begin_worker(begin)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with suppress(UserError):  # which its parent will meet, and say once
        function(*arguments)


def run_copies(function: Callable, arguments: tuple, copies: int, begin: Callable) -> None:
    """Run function(*arguments), a module's own, in spawned processes, and wait for them all; one that dies leaves the
    others at work, and the end of this process ends them. What the arguments hold should be small: a pipe takes 64 KiB
    at once, and for the rest `start` waits until the process has begun, in vain if it dies before."""
    context = multiprocessing.get_context("spawn")
    task = function, arguments, begin
    workers = [context.Process(target=begin_copy, args=task, daemon=True) for _ in range(copies)]
    resource_tracker.ensure_running()  # which the first start would do otherwise, and unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is left to this process
    for worker in workers:
        worker.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for worker in workers:
        worker.join()
