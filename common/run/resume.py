"""Runs that survive an interruption: the part of --resume that train.py and crossval.py share.

While a run is at work, --out holds the folder .breastmnist:

    lock, holder     which process is at work
    partial/         described.json, which identifies the run, and the checkpoints of `training.fit`
    finished/        the files of the finished run, on their way into --out

The files of an earlier run stay until the new run is finished. One rename then makes finished/ the run of --out, and
`settle` moves its files into --out. If a process is killed at any step, the next call repairs the folder.
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

TRAINERS = ("train.py", "crossval.py")
OF_A_RUN = (*TRAINERS, "export.py", "evaluate.py")  # a new run replaces the files of these scripts
# Flags that change no number. For the data, the MD5 is compared instead.
FREE = {"out", "data", "data_root", "params", "resume"}
MACHINE = ("commit", "uncommitted_changes", "python", "packages", "cpu", "gpu")


@contextmanager
def begin(
    args: argparse.Namespace, settings: Settings, found: Found, described: dict, names: Iterable[str]
) -> Iterator[Path]:
    """Lock --out, and yield the folder for the checkpoints of a run.

    With --resume, the folder holds the checkpoints of the interrupted run. Otherwise it is empty. If --resume finds a
    complete run, the process ends with status 0.

    Args: described: from `provenance.describe`; names: the files that the run will write.
    Raises: UserError if --out cannot be used, is in use, or holds another run than the one to resume.
    """
    initial_model(found.size, settings)  # raises its errors before any file is written
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
            if not any(partial.glob("*.pt")):  # the run failed before its first checkpoint
                shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def locked(out: Path) -> Iterator[Path]:
    """Hold the lock of an output folder, and yield the folder .breastmnist in it.

    At the end, .breastmnist is removed if it holds nothing of a run.
    Raises: UserError if another process holds the lock, or if another program made the folder .breastmnist.
    """
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
    """Return which process holds the lock of a folder .breastmnist, or "unknown"."""
    with suppress(OSError):
        return (work / "holder").read_text(encoding="utf-8").strip()
    return "unknown"


def prepare(work: Path, described: dict, found: Found, resume: bool) -> Path:
    """Return the folder for the checkpoints of a run: kept to resume the run, otherwise new and empty.

    If `resume` is set and the run is complete, the process ends with status 0. Raises: UserError, OSError.
    """
    partial, out = work / "partial", work.parent
    unfinished, finished = partial / "described.json", out / "metrics.json"
    if resume and unfinished.exists():
        check_same(unfinished, described, "interrupted")
        return partial
    if resume and finished.exists():
        check_same(finished, described, "complete")
        print(f"{out}: the run is complete. There is nothing to resume.")
        sys.exit(0)
    if resume:
        print(f"note: {out} holds no interrupted run. The run starts from the beginning", file=sys.stderr)
    elif unfinished.exists():
        print(f"note: the interrupted run in {out} is discarded. --resume would continue the run", file=sys.stderr)
    elif finished.exists():
        print(f"note: this run replaces the run in {out} at its end. Another --out keeps both", file=sys.stderr)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_json(unfinished, described, found.notice)
    return partial


def check_same(file: Path, described: dict, state: str) -> None:
    """Raise a UserError if a JSON file describes another run than `described`, from `provenance.describe`.

    Only warn if the code or the machine changed, which may change the last digits.
    Args: state: of the run in the file: "interrupted" or "complete".
    """
    stored = read_json(file)
    with reading(file, way_out="remove --resume to start again"):
        was, now = identity(stored), identity(described)
        changed = [key for key in MACHINE if stored["provenance"].get(key) != described["provenance"][key]]
    different = [f"{key} {was.get(key)}, not {now.get(key)}" for key in now | was if was.get(key) != now.get(key)]
    if different:
        advice = "Give the same flags and data, or choose another --out."
        raise UserError(f"{file}: the {state} run had {'; '.join(different)}. {advice}")
    if changed:
        print(f"warning: the run began with other {', '.join(changed)}, so the last digits may differ", file=sys.stderr)


def identity(described: dict) -> dict:
    """Return what must stay equal to resume a run: flags that change numbers, MD5s of files, and the precision."""
    made, config = described["provenance"], dict(described["config"])
    return {f"--{name.replace('_', '-')}": value for name, value in config.items() if name not in FREE} | {
        "data MD5": made["data"]["md5"],
        "hospitals": " + ".join(one["hospital"] for one in made["data"]["sets"]),
        "weights MD5": made["weights_md5"],
        "precision": made["precision"],
    }


@contextmanager
def finish(partial: Path) -> Iterator[Path]:
    """Yield a folder for the files of the finished run; then make these files the run of --out.

    An earlier run is replaced. If anything fails before, the earlier run stays unchanged. Raises: UserError.
    """
    work, out, staged = partial.parent, partial.parent.parent, partial / "finished"
    with writing_to(staged):
        shutil.rmtree(staged, ignore_errors=True)  # left by a process that was killed
        staged.mkdir()
    yield staged
    with writing_to(out):
        outputs.refuse(out, [file.name for file in staged.iterdir()])  # files that came during the run
        os.rename(staged, work / "finished")
        settle(out)


def settle(out: Path) -> None:
    """Move the files of a finished run into --out, and delete the earlier run. Raises: OSError, UserError."""
    finished, partial = out / WORK / "finished", out / WORK / "partial"
    if finished.exists() and partial.exists():  # nothing is moved yet: the list is of the earlier run
        if set(TRAINERS) & set(outputs.listed(out).values()):  # exports without a run belong to a run elsewhere
            outputs.remove(out, OF_A_RUN)
        shutil.rmtree(partial)
    if finished.exists():
        names = [file.name for file in finished.iterdir()]
        outputs.record(out, names)
        for name in names:
            os.replace(finished / name, out / name)
        finished.rmdir()
