"""Read a table of images, patients and boxes for predict.py, and choose one answer per patient.

Needs only the standard library. Training reads tables with common/imagetable.py, which accepts more.
"""

import csv
import math
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError

SUFFIXES = (".csv", ".tsv")


class Known(NamedTuple):
    """Facts about an image. patient: "" if unknown; box: x, y, width, height of the lesion in pixels, or None."""

    patient: str = ""
    box: tuple[float, ...] | None = None


def read(table: Path) -> dict[Path, Known]:
    """Read a table with the column image and, optionally, patient, x, y, width and height: {image file: known facts}.

    Paths are relative to the table. Repeated rows count once. Raises: UserError that names the row of a mistake.
    """
    found: dict[Path, Known] = {}
    for number, row in read_rows(table).items():
        image, patient = row.get("image", ""), row.get("patient", "")
        if not image:
            raise UserError(f"{table}, row {number}: names no image. Fill in the cell, or delete the row.")
        cells = [row.get(name, "") for name in ("x", "y", "width", "height")]
        try:
            box = read_box(cells) if any(cells) else None
        except ValueError as error:
            raise UserError(f"{table}, row {number}: {error}.") from None
        before = found.setdefault(table.parent / image.replace("\\", "/"), Known(patient, box))
        if patient != before.patient:
            of_two = f"{image} is of patient {before.patient!r} and patient {patient!r}"
            raise UserError(f"{table}, row {number}: {of_two}. Remove the wrong row.")
        if box != before.box:
            raise UserError(f"{table}, row {number}: {image} has another box in a row above. Remove the wrong row.")
    return found


def read_box(cells: list[str]) -> tuple[float, ...]:
    """Read a box, x, y, width and height, from texts. Raises: ValueError unless four finite numbers, last two > 0."""
    try:
        box = tuple(map(float, cells))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise ValueError(f"the box is {', '.join(cells)!r}. Use x, y, width and height in pixels")
    return box


def read_rows(table: Path) -> dict[int, dict[str, str]]:
    """Read the rows of a table, without blank lines: {row number as in a spreadsheet, from 2: {column: cell}}.

    A short row lacks columns. The delimiter is a comma, a semicolon or a tab. Raises: UserError.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table}: cannot be read as UTF-8 text ({error}). Save the table as UTF-8.") from None
    lines = text.splitlines()
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    records = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    header = [name.casefold() for name in records[0]] if records else []
    rows = {number: dict(zip(header, cells)) for number, cells in enumerate(records[1:], 2) if cells}
    if not rows or "image" not in header:
        raise UserError(f"{table}: has no rows with a column 'image'. Name the columns image and patient.")
    return rows


def highest(answers: list[dict]) -> list[dict]:
    """Return an answer per patient, from the image with the highest probability, with the number of images.

    Images with "flagged" None count only for patients who have no other images. answers: of predict.py, with "patient".
    """
    by_patient: dict[str, list[dict]] = {}
    for answer in answers:
        if answer["patient"]:
            by_patient.setdefault(answer["patient"], []).append(answer)
    found = []
    for patient, images in by_patient.items():
        usual = [answer for answer in images if answer["flagged"] is not None] or images
        first = max(usual, key=lambda answer: answer["probability"])
        kept = ("probability", "flagged", "call", "image", "page")
        found.append({"patient": patient, "images": len(images)} | {name: first[name] for name in kept})
    return found
