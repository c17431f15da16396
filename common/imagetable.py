"""List the images of a data set: a FILE.csv, a FOLDER with one folder per class, or a public set as downloaded.

Nothing is ignored silently. A note names what is not used. An error names the row of a mistake.
"""

import glob
import os
import re
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from common import delimited, publicsets, tablefile
from common.classfolders import list_class_folders
from common.delimited import BOX, UNKNOWN, patient_column, patient_name
from common.errors import UserError
from common.imagefolder import SPLITS
from common.namedfiles import NameCache, find_file, is_absolute, name_in, spell, target
from common.tablefile import CLASSES, Listed, arrange, blank_unknown, shorten

OF_RUNS = ("group", "fingerprint")  # columns of split.csv that the table of a user must not have
NUMBERS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0}
LIKE_SPLITS = re.compile(r"split|subset|fold|partition|phase|(?<![a-z])(set|group|train|test|val|valid)(?![a-z])")


def list_images(path: Path, positive: str | None = None) -> Listed:
    """List the images of a FOLDER, a FILE.csv or a public data set, without decoding an image.

    Args: positive: the positive class folder of a FOLDER; all other class folders are then negative.
    Raises: UserError that says what is wrong, where, and what to do.
    """
    if not (os.path.isfile(path) or os.path.isdir(path)):
        raise UserError(f"{path}: there is no such file or folder. Check the path.")
    try:
        reader = publicsets.recognise(path) if path.is_dir() else list_table
        listed = reader(path) if reader else list_class_folders(path, positive)
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}). Check the file and its permissions."
        ) from None
    if unprintable := [ascii(name) for name in listed.table["image"] if not name.isprintable()]:
        raise UserError(
            f"{path}: names have characters that cannot be printed. Rename these files: {shorten(unprintable)}"
        )
    if reader and positive is not None:
        listed.notes.append(f"--positive {positive} is not used, because this data set has labels")
    return listed


def list_table(path: Path) -> Listed:
    """List the images that a table names. Raises: UserError, which names the row of a mistake; OSError."""
    cells = tablefile.read(path)
    if missing := [name for name in ("image", "label") if name not in cells]:
        has = f"The table has: {shorten(cells.columns)}"
        raise UserError(f"{path}: has no column '{missing[0]}'. Name the columns image and label. {has}")
    cells, notes = find_patients(cells)
    table, box_notes = read_boxes(blank_unknown(cells), path)
    if "patient" in table:
        table["patient"] = table["patient"].map(patient_name)
    table["image"], moved = locate(cells["image"], path)
    table["label"] = read_words(
        cells["label"], CLASSES | NUMBERS, path, "label", "malignant, benign or normal, or 1 and 0"
    )
    if "split" in table:
        table["split"] = read_words(table["split"], SPLITS | {"": ""}, path, "split", "train, val or test")
    words = cells["label"].str.casefold()
    if words.isin(CLASSES).any() and "class" not in table:
        table["class"] = words.where(words.isin(CLASSES), "")
    table, repeats = merge_repeats(arrange(table).set_axis(cells.index), path)
    check_splits(table, path)
    notes += describe_unused(cells) + box_notes + moved + repeats + describe_labels(table, words)
    notes += [*describe_names(table["patient"], "patients"), *describe_names(table["hospital"], "hospitals")]
    if 0 < (unknown := int((table["patient"] == "").sum())) < len(table):
        notes.append(f"the patient of {unknown} of {len(table)} images is unknown")
    taken = {name: f"own {name}" for name in table if name in OF_RUNS or name.startswith("_")}
    notes += [f"column '{name}' is renamed '{other}', because runs use this name" for name, other in taken.items()]
    return Listed(path.parent, arrange(table).rename(columns=taken), notes)


def refuse(path: Path, rows, what: str) -> NoReturn:
    """Raise a `UserError` that names the first row with a mistake, and counts the others."""
    more = f" ({len(rows) - 1} more rows have this mistake)" if len(rows) > 1 else ""
    raise UserError(f"{path}, row {rows[0]}: {what}{more}")


def read_words(cells: pd.Series, words: dict, path: Path, column: str, use: str) -> pd.Series:
    """Replace words, in upper or lower case, by their values in `words`. Raises: UserError on an unknown word."""
    keys = cells.str.casefold()
    if len(rows := cells.index[~keys.isin(words)]):
        refuse(path, rows, f"unknown {column} '{cells[rows[0]]}'. Use {use}.")
    return keys.map(words)


def describe_labels(table: pd.DataFrame, words: pd.Series) -> list[str]:
    """Say what numeric labels mean, because in some tables 1 means benign."""
    if not words.isin(NUMBERS).any():
        return []
    positive, n = table["label"].sum(), len(table)
    count = f"{positive} of {n} images ({positive / n:.0%})".replace("%", " %")
    return [f"label 1 means malignant: {count}. If 1 means benign in your table, write malignant and benign."]


def find_patients(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rename the only column with a usual name for patients to patient, if there is no column patient."""
    if (found := patient_column(cells)) in (None, "patient"):
        return cells, []
    return cells.rename(columns={found: "patient"}), [f"column '{found}' is used as the patient"]


def describe_unused(cells: pd.DataFrame) -> list[str]:
    """Return notes on unused columns that look like patients, hospitals, boxes or splits."""
    unused = [name for name in cells if name not in tablefile.COLUMNS]
    notes = delimited.describe_unused(unused)
    for name in [name for name in unused if name not in notes]:
        known = set(cells[name].str.casefold()) - UNKNOWN
        if LIKE_SPLITS.search(name) or known and known <= SPLITS.keys():
            notes[name] = f"column '{name}' is not used. If the column says train, val or test, rename it to 'split'"
    return list(notes.values())


def describe_names(cells: pd.Series, what: str) -> list[str]:
    """Return a note if names of patients or hospitals differ only in case or in leading zeros."""
    names = pd.Series(sorted(set(cells) - {""}), dtype=str)
    alike = names[names.str.casefold().str.lstrip("0").duplicated(keep=False)]
    if alike.empty:
        return []
    return [f"the {what} {shorten(alike)} differ only in case or leading zeros, and count as different {what}"]


def read_boxes(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read the box of each row as numbers, nan if unknown. Raises: UserError on an incomplete or empty box."""
    present = [name for name in BOX if name in table]
    if len(present) < 4:
        note = f"columns {shorten(present)} are not used, because a box needs the columns x, y, width and height"
        return table.drop(columns=present), [note] if present else []
    cells, numbers = table[BOX], table[BOX].apply(pd.to_numeric, errors="coerce").astype(float)
    wrong = (cells != "") & ~np.isfinite(numbers)
    for name in BOX:
        if len(rows := table.index[wrong[name]]):
            refuse(path, rows, f"{name} is {cells[name][rows[0]]!r}. Use a number of pixels.")
    if len(rows := table.index[(cells == "").any(axis=1) & (cells != "").any(axis=1)]):
        refuse(path, rows, "the box is incomplete. Fill in all of x, y, width and height, or none.")
    if len(rows := table.index[(numbers[["width", "height"]] <= 0).any(axis=1)]):
        refuse(path, rows, "the width or height of the box is not above 0. Correct the box, or empty its cells.")
    return table.assign(**numbers), []


def merge_repeats(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Keep one row per image, with the box around the boxes of all its rows. Raises: UserError when rows disagree."""
    first = table.drop_duplicates("image")
    origin = table["image"].map(pd.Series(first.index, first["image"]))
    for column in ("label", "patient", "split", "hospital"):
        differs = table[column].ne(table["image"].map(first.set_index("image")[column]))
        if len(rows := table.index[differs]):
            what = f"{table['image'][rows[0]]!r} is also in row {origin[rows[0]]}, with another {column}"
            refuse(path, rows, f"{what}. Remove the wrong row.")
    if len(first) == len(table):
        return table, []
    ends = table.assign(right=table["x"] + table["width"], bottom=table["y"] + table["height"]).groupby(origin)
    start, end = ends[["x", "y"]].min(), ends[["right", "bottom"]].max().to_numpy()
    box = start.assign(width=end[:, 0] - start["x"], height=end[:, 1] - start["y"])
    repeated = shorten(table.index.difference(first.index))
    note = f"rows {repeated} repeat an image. An image counts once, with the box around all its boxes"
    return first.assign(**box), [note]


def check_splits(table: pd.DataFrame, path: Path) -> None:
    """Raise a `UserError` if only some rows have a split, or if a patient is in two splits."""
    none = table.index[table["split"] == ""]
    if 0 < len(none) < len(table):
        refuse(path, none, "has no split, but other rows have one. Fill in the column split in all rows, or in none.")
    known = table[table["patient"] != ""]
    divided = known[known.groupby(["hospital", "patient"])["split"].transform("nunique") > 1]
    if len(divided):
        hospital, patient = divided.iloc[0][["hospital", "patient"]]
        rows = divided[divided["hospital"].eq(hospital) & divided["patient"].eq(patient)]["split"].drop_duplicates()
        where = f"in {rows.iloc[0]} (row {rows.index[0]}) and in {rows.iloc[1]}"
        refuse(path, [rows.index[1]], f"patient {patient!r} is {where}. Put all images of a patient into one split.")


def hint_file(cell: str, folder: Path) -> str:
    """Return what to write instead of a cell that names no file: the name in other case, or with its suffix; or ""."""
    meant = spell(target(cell, folder), {}, caseless=True)
    if os.path.isfile(meant):
        return f"Write {name_in(meant, folder)!r}, because upper and lower case differ."
    longer = glob.glob(glob.escape(os.fspath(meant)) + ".*")
    return f"Write {name_in(Path(longer[0]), folder)!r}, with the suffix." if len(longer) == 1 else ""


def locate(cells: pd.Series, path: Path) -> tuple[list[str], list[str]]:
    """Find the files that a table names. Returns: names as in the column `image` of `Listed`, notes.
    Raises: UserError on a missing file."""
    folder, cache = Path(os.path.abspath(path.parent)), NameCache()
    found = [find_file(cell, folder, cache) for cell in cells]
    if rows := [row for row, file in zip(cells.index, found) if file is None]:
        hint = hint_file(cells[rows[0]], folder)
        refuse(path, rows, f"there is no file '{cells[rows[0]]}' in {path.parent}. {hint or 'Correct the path.'}")
    pairs = [(cell, file) for cell, file in zip(cells, found) if file]
    moved = sum(is_absolute(cell) and file != spell(target(cell, folder), cache) for cell, file in pairs)
    note = f"{moved} absolute paths no longer exist. The files were found in {path.parent} instead"
    return [name_in(file, folder, is_absolute(cell)) for cell, file in pairs], [note] if moved else []
