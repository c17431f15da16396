"""Read a table of images, patients and boxes for predict.py, and choose one answer per patient.

Training reads the same tables with common/imagetable.py, which needs pandas.
"""

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import delimited, imagefile, namedfiles
from common.boxes import seem_per_cent
from common.errors import UserError, reading


class Known(NamedTuple):
    """Facts about an image. box: x, y, width, height of the lesion in pixels, or None; others are "" if unknown."""

    patient: str = ""
    box: tuple[float, ...] | None = None
    hospital: str = ""


def read(table: Path) -> tuple[dict[Path, Known], list[str]]:
    """Read the known facts of the images that a table names. Return {image file: known facts}, and notes.

    The table has the column image and, optionally, patient, hospital, x, y, width and height. Paths are relative to the
    table. Several rows of an image count once, with the box around their boxes, as in training.
    Names are spelled as on the disk. Raises: UserError that names the row of a mistake.
    """
    with reading(table, way_out="check the path and the permissions of the table", errors=(ValueError,)):
        rows = delimited.read(table)
    names = next(iter(rows.values())).keys()
    if "image" not in names:
        raise UserError(f"{table}: has no column 'image', which names the images. The table has: {', '.join(names)}.")
    column, cache = delimited.patient_column(names), namedfiles.NameCache()
    found: dict[Path, Known] = {}
    for number, cells in rows.items():
        row = {name: "" if cell.casefold() in delimited.UNKNOWN else cell for name, cell in cells.items()}
        if not (image := row.get("image", "")):
            raise UserError(f"{table}, row {number}: names no image. Name the image in the column 'image'.")
        sides = [row.get(name, "") for name in delimited.BOX]
        try:
            box = read_box(sides) if any(sides) and row.keys() >= {*delimited.BOX} else None
        except ValueError as error:
            raise UserError(f"{table}, row {number}: {error}.") from None
        known = Known(delimited.patient_name(row.get(column or "", "")), box, row.get("hospital", ""))
        before = found.get(path := find(image, table.parent, cache), known)
        for fact in ("patient", "hospital"):
            if (here := getattr(known, fact)) != (earlier := getattr(before, fact)):
                of_two = f"{image} has {fact} {earlier!r} in an earlier row, and {here!r} here"
                raise UserError(f"{table}, row {number}: {of_two}. Remove the wrong row.")
        found[path] = known._replace(box=around(before.box, box))
    require_pixels(table, found)
    unused = [name for name in names if name not in (column, "hospital", *delimited.BOX)]
    return found, list(delimited.describe_unused(unused).values())


def find(image: str, folder: Path, cache: namedfiles.NameCache) -> Path:
    """Return the file that a cell names, in the folder of the table. The file may be missing."""
    whole = Path(os.path.abspath(folder))
    file = namedfiles.spell(namedfiles.target(image, whole), cache)
    return folder / namedfiles.name_in(file, whole, namedfiles.is_absolute(image))


def require_pixels(table: Path, known: dict[Path, Known]) -> None:
    """Raise a UserError if the boxes of a table seem to be per cent, as training does.

    Images that cannot be read do not count. Images are read only if the boxes alone leave a doubt.
    """
    boxed = {path: one.box for path, one in known.items() if one.box}
    boxes, sizes = np.array(list(boxed.values())), []
    if not seem_per_cent(boxes, np.array([np.inf])):  # however large the images are
        return
    for path in boxed:
        with suppress(UserError):
            sizes.append(next(imagefile.frames(path)).shape)
    if sizes and seem_per_cent(boxes, np.array(sizes)):
        why = "all boxes lie in the first 100×100 pixels, so they seem to be per cent"
        raise UserError(f"{table}: {why}. Use x, y, width and height in pixels.")


def around(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Return the box around two boxes, each x, y, width and height, or None."""
    if a is None or b is None:
        return a or b
    x, y = min(a[0], b[0]), min(a[1], b[1])
    return x, y, max(a[0] + a[2], b[0] + b[2]) - x, max(a[1] + a[3], b[1] + b[3]) - y


def read_box(cells: list[str]) -> tuple[float, ...]:
    """Read a box, x, y, width and height, from texts. Raises: ValueError unless four finite numbers, last two > 0."""
    try:
        box = tuple(map(float, cells))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise ValueError(f"the box is {', '.join(cells)!r}. Use x, y, width and height in pixels")
    return box


def highest(answers: list[dict]) -> list[dict]:
    """Return an answer per patient, from the image with the highest probability, with the number of images.

    Images with "flagged" None count only for patients who have no other images. Patients of two hospitals are never the
    same. answers: of predict.py, with "patient" and "hospital".
    """
    by_patient: dict[tuple[str, str], list[dict]] = {}
    for answer in answers:
        by_patient.setdefault((answer["hospital"], answer["patient"]), []).append(answer)
    found = []
    for (hospital, patient), images in by_patient.items():
        usual = [answer for answer in images if answer["flagged"] is not None] or images
        first = max(usual, key=lambda answer: answer["probability"])
        kept = ("probability", "flagged", "call", "image", "page")
        about = {"patient": patient, "hospital": hospital, "images": len(images)}
        found.append(about | {name: first[name] for name in kept})
    return found
