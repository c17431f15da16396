"""Runs that survive an interruption: what train.py and crossval.py share of --resume.

While a run is at work, --out holds the folder .breastmnist:

    lock, holder     who is at work
    partial/         described.json says which run it is; beside it lie the checkpoints of `training.fit`
    finished/        the files of the finished run, on their way into --out

An earlier run's files stay as they are until the new run is finished. One rename makes finished/ the run of --out;
`settle` then puts its files in their places. A kill at any step is mended by the next call.
"""

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from common.data import Found
from common.errors import UserError, reading
from common.files import as_json, read_json, write_json, writing_to
from common.run import outputs
from common.run.folders import WORK
from common.settings import Settings
from common.weights import initial_model

OF_A_RUN = ("train.py", "crossval.py", "export.py", "evaluate.py")  # scripts whose files a new run replaces
# Flags that decide no number; for the data, their MD5 does.
FREE = {"out", "data", "data_root", "params", "resume"}
MACHINE = ("commit", "uncommitted_changes", "python", "packages", "cpu", "gpu")


@contextmanager
def begin(
    args: argparse.Namespace, settings: Settings, found: Found, described: dict, names: Iterable[str]
) -> Iterator[Path]:
    """Lock --out and yield the folder of the run's checkpoints: with those of an interrupted run under --resume, empty
    otherwise. Ends the process with 0 when --resume finds the run complete.

    Args: described: by `provenance.describe`; names: the files that the run will write.
    Raises: UserError when --out cannot be used, is in use, or holds another run than the one to resume.
    """
    initial_model(found.size, settings)  # its errors come before anything is written
    inputs = [*found.paths, args.params, settings.weights]
    outputs.refuse(Path(args.out), names, inputs)
    with outputs.output(args.out, ()) as out, locked(out) as work:  # `settle` lists the files
        with writing_to(out):
            settle(out)
            partial = prepare(work, as_json(described), found, args.resume)
        try:
            yield partial
        except (KeyboardInterrupt, SystemExit):
            print(f"{out}: to continue from here, repeat the command with --resume", file=sys.stderr)
            raise
        except UserError:
            if not any(partial.glob("*.pt")):  # it failed before its first checkpoint
                shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def locked(out: Path) -> Iterator[Path]:
    """Hold the lock of an output folder, and yield its folder of work, which is removed again where nothing of a run is
    left in it. Raises: UserError when another process holds the lock, or the folder of work is somebody else's."""
    work = out / WORK
    with writing_to(work):
        if work.exists() and any(work.iterdir()) and not (work / "lock").exists():
            raise UserError(f"{work}: was not made by this program. Choose another folder, or move the folder.")
        work.mkdir(exist_ok=True)
        lock = FileLock(work / "lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            wait = "Wait until the run ends, or choose another folder."
            raise UserError(f"--out {out}: another run is at work there ({holder(work)}). {wait}") from None
        (work / "holder").write_text(f"pid {os.getpid()} on {platform.node()}\n", encoding="utf-8")
    try:
        yield work
    finally:
        done = not any((work / name).exists() for name in ("partial", "finished"))
        lock.release()
        if done:
            shutil.rmtree(work, ignore_errors=True)


def holder(work: Path) -> str:
    """Who holds the lock of a folder of work, as far as it can be read."""
    with suppress(OSError):
        return (work / "holder").read_text(encoding="utf-8").strip()
    return "unknown"


def prepare(work: Path, described: dict, found: Found, resume: bool) -> Path:
    """The folder of a run's checkpoints: kept if the run is to be resumed, made anew otherwise.
    Raises: UserError, OSError."""
    partial, out = work / "partial", work.parent
    unfinished, finished = partial / "described.json", out / "metrics.json"
    if resume and unfinished.exists():
        check_same(unfinished, described)
        return partial
    if resume and finished.exists():
        check_same(finished, described)
        print(f"{out}: the run is complete. There is nothing to resume.")
        sys.exit(0)
    if resume:
        print(f"note: {out} holds no interrupted run. The run starts from the beginning", file=sys.stderr)
    elif unfinished.exists():
        print(f"note: the interrupted run in {out} is discarded. --resume would continue the run", file=sys.stderr)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_json(unfinished, described, found.notice)
    return partial


def check_same(file: Path, described: dict) -> None:
    """Refuse to go on with another run than `provenance.describe` described; warn when code or machine changed, which
    may change the last digits. Raises: UserError."""
    stored = read_json(file)
    with reading(file, way_out="remove --resume to start again"):
        was, now = identity(stored), identity(described)
        changed = [key for key in MACHINE if stored["provenance"].get(key) != described["provenance"][key]]
    different = [f"{key} {was.get(key)}, not {now.get(key)}" for key in now | was if was.get(key) != now.get(key)]
    if different:
        advice = "Give the same flags and data, or remove --resume."
        raise UserError(f"{file}: the interrupted run had {'; '.join(different)}. {advice}")
    if changed:
        print(f"warning: the run began with other {', '.join(changed)}, so the last digits may differ", file=sys.stderr)


def identity(described: dict) -> dict:
    """What must be equal for a run to go on: what decides a number, and the MD5 of files."""
    made, config = described["provenance"], dict(described["config"])
    return {f"--{name.replace('_', '-')}": value for name, value in config.items() if name not in FREE} | {
        "data MD5": made["data"]["md5"],
        "weights MD5": made["weights_md5"],
        "precision": made["precision"],
    }


@contextmanager
def finish(partial: Path) -> Iterator[Path]:
    """Yield a folder for the finished run's files; then make them the run of --out, in the place of an earlier one,
    which is as it was if anything goes wrong before. Raises: UserError."""
    work, out, staged = partial.parent, partial.parent.parent, partial / "finished"
    with writing_to(staged):
        shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed while it wrote them
        staged.mkdir()
    yield staged
    with writing_to(out):
        outputs.refuse(out, [file.name for file in staged.iterdir()])  # put there while the run was at work
        os.rename(staged, work / "finished")
        settle(out)


def settle(out: Path) -> None:
    """Put a finished run's files in their places, and an earlier run's out of the way. Raises: OSError, UserError."""
    finished, partial = out / WORK / "finished", out / WORK / "partial"
    if finished.exists() and partial.exists():  # nothing is moved as yet: what is listed is the earlier run's
        outputs.remove(out, OF_A_RUN)
        shutil.rmtree(partial)
    if finished.exists():
        names = [file.name for file in finished.iterdir()]
        outputs.record(out, names)
        for name in names:
            os.replace(finished / name, out / name)
        finished.rmdir()
