"""Train several models at once. On a CPU, processes of one thread each beat one process of several threads."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import wait

from common.errors import UserError


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin_worker(begin: Callable) -> None:
    """Call `begin` in a worker that ignores Ctrl-C, and that ends when its parent ends, however suddenly."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process().sentinel  # type: ignore[union-attr]  # a worker has a parent
    threading.Thread(target=lambda: (wait([parent]), os._exit(1)), daemon=True).start()
    begin()


def run(function: Callable, tasks: Iterable[tuple], jobs: int, begin: Callable) -> Iterator:
    """Yield function(*task) for each task, in order, `jobs` at a time. Raises: UserError if a worker is killed.

    One job runs in this process. Several jobs run in spawned processes that first call `begin`. Both functions must
    then be module-level. Each task must seed itself, so that no result depends on the worker.
    """
    if jobs == 1:
        yield from (function(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, begin_worker, (begin,)) as executor:
        try:
            yield from executor.map(function, *zip(*tasks))
        except BrokenProcessPool:
            raise UserError(
                "a training process was killed, perhaps because memory ran out. Give fewer --jobs."
            ) from None
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            # Do not wait for the thread that writes the next task into a full pipe, because nobody reads the pipe.
            executor._call_queue.cancel_join_thread()  # type: ignore[attr-defined]
            raise


def begin_copy(function: Callable, arguments: tuple, begin: Callable) -> None:
    """Run function(*arguments) in a worker. SIGTERM, which the parent sends at its end, ends the worker in order."""
    begin_worker(begin)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with suppress(UserError):  # the parent meets the same error, and prints the error once
        function(*arguments)


def run_copies(function: Callable, arguments: tuple, copies: int, begin: Callable) -> None:
    """Run function(*arguments) in each of several spawned processes, and wait for all processes.

    If a process dies, the others go on. The end of this process ends all. The function must be module-level. The
    arguments must fit into a pipe (64 KiB).
    """
    process, task = multiprocessing.get_context("spawn").Process, (function, arguments, begin)
    workers = [process(target=begin_copy, args=task, daemon=True) for _ in range(copies)]
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited, so that only this process handles Ctrl-C
    for worker in workers:
        worker.start()
    signal.signal(signal.SIGINT, handler)
    for worker in workers:
        worker.join()
