"""A table of images and their patients for predict.py, and a patient's answer: that of the highest probability.

Needs the standard library alone; training reads tables by common/imagetable.py, which is more forgiving.
"""

import csv
from pathlib import Path

from common.errors import UserError

SUFFIXES = (".csv", ".tsv")


def read(table: Path) -> dict[Path, str]:
    """{image file: its patient, "" unknown} of a table with the columns image and, if known, patient. Paths are
    relative to the table. A row that repeats another counts once. Raises: UserError, with the row."""
    found: dict[Path, str] = {}
    for number, row in read_rows(table).items():
        image, patient = row.get("image", ""), row.get("patient", "")
        if not image:
            raise UserError(f"{table}: row {number}: names no image; fill in the cell or delete the row")
        before = found.setdefault(table.parent / image.replace("\\", "/"), patient)
        if patient != before:
            of_two = f"{image} is of patient {before!r} and patient {patient!r}"
            raise UserError(f"{table}: row {number}: {of_two}; keep the right row")
    return found


def read_rows(table: Path) -> dict[int, dict[str, str]]:
    """{row number as in a spreadsheet, from 2: {column: cell}} without blank lines. A short row lacks columns.
    Raises: UserError."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table}: cannot be read as UTF-8 text ({error}); save the table as UTF-8") from None
    lines = text.splitlines()
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    records = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    header = [name.casefold() for name in records[0]] if records else []
    rows = {number: dict(zip(header, cells)) for number, cells in enumerate(records[1:], 2) if cells}
    if not rows or "image" not in header:
        raise UserError(f"{table}: has no rows with a column 'image'. Name the columns image and patient")
    return rows


def highest(answers: list[dict]) -> list[dict]:
    """One answer for each patient: the image with the highest probability, and how many images there are. Images unlike
    those of training count only where a patient has no others. answers: of predict.py, with "patient"."""
    by_patient: dict[str, list[dict]] = {}
    for answer in answers:
        if answer["patient"]:
            by_patient.setdefault(answer["patient"], []).append(answer)
    found = []
    for patient, images in by_patient.items():
        usual = [answer for answer in images if not answer.get("unlike_training")] or images
        first = max(usual, key=lambda answer: answer["probability"])
        kept = ("probability", "flagged", "image", "page")
        found.append({"patient": patient, "images": len(images)} | {name: first[name] for name in kept})
    return found
