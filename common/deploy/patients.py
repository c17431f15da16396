"""A table of images, their patients and boxes for predict.py, and a patient's answer: that of the highest probability.

Needs the standard library alone; training reads tables by common/imagetable.py, which is more forgiving.
"""

import csv
import math
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError

SUFFIXES = (".csv", ".tsv")


class Known(NamedTuple):
    """What a table says of an image. patient: "" unknown; box: x, y, width and height of the lesion in pixels, None
    unknown."""

    patient: str = ""
    box: tuple[float, ...] | None = None


def read(table: Path) -> dict[Path, Known]:
    """{image file: what is known} of a table with the columns image and, if known, patient, x, y, width and height.
    Paths are relative to the table. A row that repeats another counts once. Raises: UserError, with the row."""
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
    """A box out of texts. Raises: ValueError on anything but four numbers, of which the last two are above 0."""
    try:
        box = tuple(map(float, cells))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise ValueError(f"the box is {', '.join(cells)!r}. Use x, y, width and height in pixels")
    return box


def read_rows(table: Path) -> dict[int, dict[str, str]]:
    """{row number as in a spreadsheet, from 2: {column: cell}} without blank lines. A short row lacks columns.
    Raises: UserError."""
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
    """One answer for each patient: the image with the highest probability, and how many images there are. Images
    without a call count only where a patient has no others. answers: of predict.py, with "patient"."""
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
