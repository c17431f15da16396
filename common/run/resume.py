"""Runs that survive an interruption: what train.py and crossval.py share of --resume.

While a run is at work, --out holds the file .lock and the folder .partial: run.json says which run it is, and the
checkpoints of `training.fit` lie beside it. An earlier run's files stay as they are. The finished run is written into
.partial too; one rename of that folder makes it the run of --out, and `settle` then puts its files in their places.
"""

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from common.data import Source
from common.errors import UserError, reading
from common.files import as_json, read_json, write_json, writing_to
from common.run import folders
from common.settings import Settings
from common.weights import initial_model

LOCK, PARTIAL = ".lock", ".partial"
# Flags that decide no number; for the data, their MD5 does.
FREE = {"out", "data", "also", "calibrate_on", "data_root", "params", "resume"}
MACHINE = ("commit", "uncommitted_changes", "python", "packages", "cpu", "gpu")


@contextmanager
def begin(args: argparse.Namespace, settings: Settings, source: Source, described: dict) -> Iterator[Path]:
    """Lock --out and yield the folder of the run's checkpoints: with those of an interrupted run under --resume, empty
    otherwise. Ends the process with 0 when --resume finds the run complete. described: by `provenance.describe`.
    Raises: UserError when --out cannot be used, is in use, or holds another run than the one to resume."""
    initial_model(source.size, settings)  # its errors come before anything is written
    with folders.output(args.out) as out, locked(out):
        with writing_to(out):
            settle(out)
            partial = prepare(out, as_json(described), source, args.resume)
        try:
            yield partial
        except (KeyboardInterrupt, SystemExit):
            print(f"{out}: the same command with --resume goes on from here", file=sys.stderr)
            raise
        except UserError:
            if not any(partial.glob("*.pt")):  # it failed before its first checkpoint
                shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: the system's, which ends with its holder, on a file that names that. Over NFS, it
    reaches other hosts only where the mount passes it on: what another host left is never taken over.
    Raises: UserError when another process holds it, or may hold it."""
    path, host, way_out = folder / LOCK, f" on {platform.node()}", "wait for its end, or choose another folder"
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    with writing_to(path):
        with suppress(Timeout):
            lock.acquire()
        holder = ""
        with suppress(FileNotFoundError):  # who held it has just removed it
            holder = path.read_text().strip()
        elsewhere = holder and not holder.endswith(host)
        if elsewhere or not lock.is_locked:
            lock.release()
            way_out += f"; if that run is dead, delete {path}" if elsewhere else ""
            raise UserError(f"--out {folder}: another run is at work there ({holder}); {way_out}")
        path.write_text(f"pid {os.getpid()}{host}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is free for the next
        lock.release()


def prepare(out: Path, described: dict, source: Source, resume: bool) -> Path:
    """The folder .partial of a run: kept if it is to be resumed, made anew otherwise. Raises: UserError, OSError."""
    partial = out / PARTIAL
    unfinished, finished = partial / "run.json", out / "metrics.json"
    if resume and unfinished.exists():
        check_same(unfinished, described)
        return partial
    if resume and finished.exists():
        check_same(finished, described)
        print(f"{out}: the run is complete; there is nothing to resume")
        sys.exit(0)
    if resume:
        print(f"note: nothing to resume in {out}; starting from the beginning", file=sys.stderr)
    elif unfinished.exists():
        print(f"note: the unfinished run in {out} is discarded; --resume would have gone on with it", file=sys.stderr)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_json(unfinished, described, source.notice)
    return partial


def check_same(file: Path, described: dict) -> None:
    """Refuse to go on with another run than `provenance.describe` described; warn when code or machine changed, which
    may change the last digits. Raises: UserError."""
    stored = read_json(file)
    with reading(file, way_out="begin anew without --resume"):
        was, now = identity(stored), identity(described)
        changed = [key for key in MACHINE if stored["provenance"].get(key) != described["provenance"][key]]
    different = [f"{key} {was.get(key)}, not {now.get(key)}" for key in now | was if was.get(key) != now.get(key)]
    if different:
        way_out = "give --resume the same flags and data, or leave it out"
        raise UserError(f"{file}: made with {'; '.join(different)}; {way_out}")
    if changed:
        print(f"warning: begun with other {', '.join(changed)}: the last digits may differ", file=sys.stderr)


def identity(described: dict) -> dict:
    """What must be equal for a run to go on: what decides a number, and the MD5 of files."""
    made = described["provenance"]
    return {f"--{name.replace('_', '-')}": value for name, value in described["config"].items() if name not in FREE} | {
        "data MD5": made["data"]["md5"],
        "also MD5": [other["md5"] for other in made["data"].get("also", [])],
        "calibrate-on MD5": made.get("calibrate_on", {}).get("md5"),
        "weights MD5": made["weights_md5"],
    }


@contextmanager
def finish(partial: Path) -> Iterator[Path]:
    """Yield a folder for the finished run's files; then make them the run of --out, in the place of an earlier one,
    which is as it was if anything goes wrong before. Raises: UserError."""
    out, staged = partial.parent, partial / "finished"
    with writing_to(staged):
        shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed while it wrote them
        staged.mkdir()
    yield staged
    with writing_to(out):
        os.rename(staged, out / folders.FINISHED)
        settle(out)


def settle(out: Path) -> None:
    """Put a finished run's files in their places, and an earlier run's out of the way. A kill at any step is mended by
    the next call. Raises: OSError."""
    finished, partial = out / folders.FINISHED, out / PARTIAL
    if finished.exists() and partial.exists():  # nothing is moved as yet: what is there is the earlier run's
        for file in folders.contents(out):
            file.unlink()
        shutil.rmtree(partial)
    if finished.exists():
        for file in finished.iterdir():
            os.replace(file, out / file.name)
        finished.rmdir()
