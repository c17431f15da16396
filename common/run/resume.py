"""Runs that survive an interruption: what train.py and crossval.py share of --resume.

While a run is at work, --out holds a lock and the folder .partial: run.json says which run it is, and the checkpoints
of `training.fit` lie beside it. An earlier run's files stay as they are. The finished run is written into .partial
too; one rename of that folder makes it the run of --out, and its files are then moved to their places. What is cut
off after the rename is completed by `settle`, so that no reader ever gets files of two folders.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.data import Source
from common.errors import UserError
from common.files import as_json, read_json, write_json
from common.run import folders, lock, provenance
from common.settings import Settings
from common.weights import initial_model

PARTIAL = ".partial"
FREE = {"out", "data", "data_root", "params", "resume"}  # flags that decide no number; for the data, their MD5 does
MACHINE = ("commit", "uncommitted_changes", "python", "packages", "cpu", "gpu")


@contextmanager
def begin(args: argparse.Namespace, settings: Settings, source: Source, foreign: str) -> Iterator[Path]:
    """Lock --out and yield the folder of the run's checkpoints: with those of an interrupted run under --resume, empty
    otherwise. Ends the process with 0 when --resume finds the run complete.

    Args: foreign: a glob of files of another kind of run, which is not overwritten.
    Raises: UserError when --out cannot be used, is in use, or holds another run than the one to resume.
    """
    initial_model(source.size, settings)  # its errors come before anything is written
    described = as_json(provenance.describe(args, settings, source))
    new = not os.path.exists(args.out)
    out = folders.make_output(args.out, foreign)
    try:
        with lock.hold(out):
            settle(out)
            partial = prepare(out, described, source, args.resume)
            with kept(partial):
                yield partial
    finally:
        if new:
            with suppress(OSError):
                out.rmdir()  # of a run that ended before it left anything


@contextmanager
def kept(partial: Path) -> Iterator[None]:
    """Say how an interrupted run goes on; leave nothing of one that failed before its first checkpoint."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print(f"{partial.parent}: the same command with --resume goes on from here", file=sys.stderr)
        raise
    except UserError:
        if not any(partial.glob("*.pt")):
            shutil.rmtree(partial)
        raise


def prepare(out: Path, described: dict, source: Source, resume: bool) -> Path:
    """The folder .partial of a run: kept if it is to be resumed, made anew otherwise. Raises: UserError."""
    partial, found = out / PARTIAL, find(out)
    if resume and found:
        check_same(read_json(found), described, found)
        if found.parent == out:
            print(f"{out}: the run is complete; there is nothing to resume")
            sys.exit(0)
        for half in partial.glob(".*.part"):  # of a process killed while it wrote
            half.unlink()
        return partial
    if resume:
        print(f"note: nothing to resume in {out}; starting from the beginning", file=sys.stderr)
    elif found and found.parent == partial:
        print(f"note: the unfinished run in {out} is discarded; --resume would have gone on with it", file=sys.stderr)
    try:
        shutil.rmtree(partial, ignore_errors=True)  # run.json is written first: without it, the rest is worth nothing
        partial.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{partial}: cannot be made ({error.strerror}); choose another --out") from None
    write_json(partial / "run.json", described, source.notice)
    return partial


def find(out: Path) -> Path | None:
    """The file that describes the unfinished run of a folder, else the finished one, else None."""
    return next((file for file in (out / PARTIAL / "run.json", out / "metrics.json") if file.exists()), None)


def identity(described: dict) -> dict:
    """What must be equal for a run to go on: every flag and setting that decides a number, and the MD5 of files."""
    deciding = {f"--{name.replace('_', '-')}": v for name, v in described["config"].items() if name not in FREE}
    made = described["provenance"]
    return deciding | {"data MD5": made["data"]["md5"], "weights MD5": made["weights_md5"]}


def check_same(stored: dict, described: dict, file: Path) -> None:
    """Refuse to go on with another run; warn when code or machine changed, which may change the last digits.

    Args: stored, described: as `provenance.describe` makes them. Raises: UserError.
    """
    try:
        was, now = identity(stored), identity(described)
        changed = [key for key in MACHINE if stored["provenance"].get(key) != described["provenance"][key]]
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{file}: damaged; begin anew without --resume") from None
    different = [f"{key} {was.get(key)}, not {now.get(key)}" for key in now | was if was.get(key) != now.get(key)]
    if different:
        raise UserError(
            f"{file}: made with {'; '.join(different)}; give --resume the same flags and data, or leave it out"
        )
    if changed:
        print(f"warning: begun with other {', '.join(changed)}: the last digits may differ", file=sys.stderr)


@contextmanager
def finish(partial: Path) -> Iterator[Path]:
    """Yield a folder for the finished run's files; then make them the run of --out in the place of an earlier one.
    What goes wrong before, a full disk say, leaves the earlier run and the checkpoints as they were."""
    out, staged = partial.parent, partial / "finished"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    yield staged
    os.rename(staged, out / folders.CLEARING)
    settle(out)


def settle(out: Path) -> None:
    """Complete what a finished run was cut off in: clear the earlier run's files away, then move its own into place.
    The folder's two names tell how far it came; each step can be repeated. Raises: UserError."""
    clearing, moving = out / folders.CLEARING, out / folders.MOVING
    try:
        if clearing.exists():
            for file in folders.contents(out):
                file.unlink()
            os.rename(clearing, moving)
        if moving.exists():
            for file in moving.iterdir():
                os.replace(file, out / file.name)
            shutil.rmtree(out / PARTIAL, ignore_errors=True)
            moving.rmdir()
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); then run it with --resume") from None
