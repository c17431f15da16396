"""Write files completely or not at all, even after a power cut; read and write JSON; write CSV."""

import csv
import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from common.errors import UserError, sentence


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one line. Raises: UserError."""
    try:
        yield
    except OSError as error:
        advice = "Check the folder and the free space of its disk."
        raise UserError(f"{path}: cannot be written ({error.strerror or error}). {advice}") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename the file to `path` after the work.

    Thus `path` has its old content or its complete new content. A bad name is refused before any work.
    Raises: UserError when the disk refuses.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing_to(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            beside.touch()
            yield beside
            with open(beside, "r+b") as written:  # Windows syncs only files that are open for writing
                os.fsync(written.fileno())
            os.replace(beside, path)
    finally:
        with suppress(OSError):  # the file was renamed, or never existed
            beside.unlink()


def as_json(value):
    """Return a copy for strict JSON: numpy numbers become Python numbers, nan and infinity become null."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: dict, notice: str | None = None) -> None:
    """Write strict JSON. notice: the first entry of results on phantoms (`data.Found.notice`). Raises: UserError."""
    label = {"synthetic": notice} if notice else {}
    with replacing(path) as beside:
        beside.write_text(json.dumps(as_json(label | value), indent=2) + "\n", encoding="utf-8")


def read_json(path: str | Path, way_out: str = "train the run again") -> dict:
    """Read a JSON object. Raises: UserError, which ends with `way_out`, when the file is absent or damaged."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as JSON ({reason}). {sentence(way_out)}") from None
    return value


def write_csv(path: Path, rows: list[dict], notice: str | None = None) -> None:
    """Write rows as CSV. The rows have the same keys, which become the header; floats keep every digit.

    Args: notice: as for `write_json`; with a notice, the rows get the column `synthetic`. Raises: UserError.
    """
    rows = [row | {"synthetic": "phantom"} for row in rows] if notice else rows
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
