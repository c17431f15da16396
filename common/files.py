"""Files that are whole or not there at all, even after a power cut, and the JSON and CSV in them."""

import csv
import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from common.errors import UserError


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Make one line of it when the disk refuses. Raises: UserError."""
    try:
        yield
    except OSError as error:
        way_out = "check the folder and the space on its disk"
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); {way_out}") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write beside `path`, and rename it there if all goes well: `path` is old or new, never half.
    Raises: UserError when the disk refuses, of a bad name before there is work to lose."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing_to(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            beside.touch()
            yield beside
            with open(beside, "r+b") as written:  # Windows syncs only what is open for writing
                os.fsync(written.fileno())
            os.replace(beside, path)
    finally:
        with suppress(OSError):  # it is gone, or never was
            beside.unlink()


def as_json(value):
    """A copy fit for strict JSON: numpy numbers become plain ones, nan and infinity null."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: dict, notice: str | None = None) -> None:
    """Strict JSON. notice: the first line of results on phantoms (`data.Found.notice`). Raises: UserError."""
    label = {"synthetic": notice} if notice else {}
    with replacing(path) as beside:
        beside.write_text(json.dumps(as_json(label | value), indent=2) + "\n", encoding="utf-8")


def read_json(path: str | Path, way_out: str = "train the run again") -> dict:
    """A JSON object. Raises: UserError, ending with the way out, when the file is absent or damaged."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as JSON ({reason}); {way_out}") from None
    return value


def write_csv(path: Path, rows: list[dict], notice: str | None = None) -> None:
    """Rows with the same keys, which become the header; floats keep every digit. notice: as in `write_json`; such rows
    say so in a column more. Raises: UserError."""
    rows = [row | {"synthetic": "phantom"} for row in rows] if notice else rows
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
