"""One run at a time in a folder: a lock file that names its holder, and that the system frees when the holder dies."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from common.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: the pid in the file decides, as on a file system without locks
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises: UserError when another process does, or may, hold it.

    The lock is the system's (flock), so a killed holder, even by kill -9, leaves it free; its pid and host in the file
    are for people. Over NFS, flock reaches other hosts only where the mount passes it on. So a file left by another
    host is never taken over, and where there is no flock at all a pid that lives on this host counts as the holder.
    """
    path = folder / NAME
    file = acquire(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is still held: who opened it meanwhile sees in `is_at` that it is gone
        file.close()


def acquire(path: Path) -> TextIO:
    """The lock file, open and locked, with this process's pid and host in it. Raises: UserError."""
    try:
        while True:
            file = open(path, "a+")
            free = try_lock(file)
            if is_at(file, path):
                break
            file.close()
        file.seek(0)
        refuse_holder(file.read().split(), free, path)
        file.truncate(0)
        print(os.getpid(), platform.node(), file=file, flush=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    return file


def try_lock(file: TextIO) -> bool | None:
    """Take the system's lock: True when it is ours, False when it is another's, None where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):
        return False
    except (OSError, AttributeError):
        return None


def is_at(file: TextIO, path: Path) -> bool:
    """Whether an open file is still the one at `path`, which its last holder may have removed since."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def refuse_holder(holder: list[str], free: bool | None, path: Path) -> None:
    """Judge what an earlier holder left in the file: [pid, host], or nothing. Raises: UserError unless it is gone."""
    pid, host = holder if len(holder) == 2 and holder[0].isdecimal() else ("?", platform.node())
    named = f"--out {path.parent}: another run is at work there (pid {pid} on {host})"
    if host != platform.node():
        raise UserError(f"{named}; wait, choose another folder or, if that run is dead, delete {path}")
    if free is False or free is None and pid != "?" and is_alive(int(pid)):
        raise UserError(f"{named}; wait for its end, or choose another folder")
    if pid != "?":
        print(f"note: the lock of pid {pid}, which has ended, is taken over", file=sys.stderr)


def is_alive(pid: int) -> bool:
    """Whether a process of this host runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
