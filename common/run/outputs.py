"""Output folders in which no file of the user is lost.

A folder that a script writes into holds run.json: the list of the files that scripts of this project wrote there. A
script replaces only files on this list. Anything else in its way is refused before any work.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import UserError
from common.files import replacing, write_json, writing_to

LIST = "run.json"
FORMAT = "breastmnist-resnet18 files v2"
EXPORTERS = ("export.py", "calibrate.py")  # scripts that write .onnx files


def script_name() -> str:
    """Return the name of the running script, as run.json stores it."""
    return Path(sys.argv[0]).name


def listed(folder: Path) -> dict[str, str]:
    """Return {file: the script that wrote it} from the run.json of a folder; {} without run.json.

    Raises: UserError if run.json is of another program.
    """
    path = folder / LIST
    if not os.path.lexists(path):
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        files = stored["files"] if stored["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        files = None
    if not isinstance(files, dict):
        raise UserError(f"{path}: is not the list of files that this program keeps. Choose another folder.")
    return {name: str(script) for name, script in files.items() if Path(name).name == name}


def refuse(folder: Path, names: Iterable[str], inputs: Iterable[str | Path | None] = ()) -> None:
    """Raise a UserError if an output folder endangers files of the user.

    No file may have these names, unless run.json lists the file. The folder must not hold an input file, and must not
    be, or lie in, an input folder.
    Args: names: names of output files; inputs: paths that the work reads; None is no input.
    """
    mine = listed(folder)
    for name in names:
        if os.path.lexists(folder / name) and name not in mine:
            way_out = "no script of this program wrote it. Choose another folder, or move the file."
            raise UserError(f"{folder / name}: would be overwritten, and {way_out}")
    target = Path(os.path.realpath(folder))
    for given in [given for given in inputs if given]:
        source = Path(os.path.realpath(given))
        if os.path.isdir(source) and (source == target or source in target.parents):
            raise UserError(f"--out {folder}: lies in {given}, where images are read. Choose a folder outside.")
        if os.path.isfile(source) and source.parent == target:
            raise UserError(f"--out {folder}: holds {given}, which is read. Choose another folder.")


def refuse_description(path: Path) -> None:
    """Raise a UserError if the JSON beside an .onnx file would replace a file of a run, such as calibration.json."""
    if path.name == LIST or listed(path.parent).get(path.name) not in (None, *EXPORTERS):
        raise UserError(f"--out: would need the file {path}, which belongs to a run. Choose another name.")


def record(folder: Path, names: Iterable[str]) -> None:
    """Add files to the list of a folder, as written by the running script. Deleted files leave the list.

    Raises: UserError when the disk refuses.
    """
    if files := dict.fromkeys(names, script_name()):
        kept = {name: script for name, script in listed(folder).items() if os.path.lexists(folder / name)}
        write_json(folder / LIST, {"format": FORMAT, "files": dict(sorted((kept | files).items()))})


def remove(folder: Path, scripts: Iterable[str]) -> None:
    """Delete the files of a folder that some scripts wrote, and take them off its list. Raises: OSError, UserError."""
    files = listed(folder)
    for name in (gone := [name for name, script in files.items() if script in scripts]):
        (folder / name).unlink(missing_ok=True)
    if gone:
        write_json(folder / LIST, {"format": FORMAT, "files": {n: s for n, s in files.items() if n not in gone}})


@contextmanager
def output(folder: str | Path, names: Iterable[str], inputs: Iterable[str | Path | None] = ()) -> Iterator[Path]:
    """Make and yield an output folder, and list the written files in run.json at the end, even after an error.

    New folders that stay empty are removed. A note on stderr names .onnx files that the work will replace.
    Args: names: all files that the work may write; inputs: as for `refuse`.
    Raises: UserError, before the work, as `refuse`, or when the disk refuses.
    """
    path, names = Path(folder), list(names)
    new = [place for place in (path, *path.parents) if not os.path.exists(place)]
    refuse(path, names, inputs)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be made ({error.strerror}). Choose another folder.") from None
    try:
        prove_writable(path)
        for name in names:
            if name.endswith(".onnx") and os.path.isfile(path / name):
                print(f"note: {path / name} is replaced. Another --out keeps it", file=sys.stderr)
        yield path
    finally:
        record(path, [name for name in names if os.path.isfile(path / name)])
        with suppress(OSError):  # a folder with files stays
            for place in new:
                place.rmdir()


def prove_writable(folder: Path) -> None:
    """Raise a UserError if no file can be written in a folder."""
    probe = folder / f".breastmnist.{os.getpid()}"
    with replacing(probe):
        pass
    with writing_to(folder):
        probe.unlink(missing_ok=True)
