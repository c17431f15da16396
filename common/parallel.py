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
from multiprocessing.connection import wait

from common.errors import UserError


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin_worker(begin: Callable) -> None:
    """Call `begin` in a worker, which its parent ends: on Ctrl-C, and by its own end, however sudden."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process().sentinel  # type: ignore[union-attr]  # a worker has a parent
    threading.Thread(target=lambda: (wait([parent]), os._exit(1)), daemon=True).start()
    begin()


def run(function: Callable, tasks: Iterable[tuple], jobs: int, begin: Callable) -> Iterator:
    """Yield function(*task) for each task, in order, `jobs` at a time: one runs in this process, more in spawned ones,
    which first call `begin`, and for which both functions must be a module's own. Each task must seed itself: nothing
    may depend on which worker it falls to. Raises: UserError when a worker is killed."""
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
            # Nobody reads the next task now: do not wait for the thread that writes it into a full pipe.
            executor._call_queue.cancel_join_thread()  # type: ignore[attr-defined]
            raise


def begin_copy(function: Callable, arguments: tuple, begin: Callable) -> None:
    """Run in a copy, which the end of its parent ends in order."""
    begin_worker(begin)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with suppress(UserError):  # which its parent will meet, and say once
        function(*arguments)


def run_copies(function: Callable, arguments: tuple, copies: int, begin: Callable) -> None:
    """Run function(*arguments), a module's own, in spawned processes, and wait for them all; one that dies leaves the
    others at work, and the end of this process ends them. The arguments must fit into a pipe's 64 KiB."""
    process, task = multiprocessing.get_context("spawn").Process, (function, arguments, begin)
    workers = [process(target=begin_copy, args=task, daemon=True) for _ in range(copies)]
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is left to this process
    for worker in workers:
        worker.start()
    signal.signal(signal.SIGINT, handler)
    for worker in workers:
        worker.join()
