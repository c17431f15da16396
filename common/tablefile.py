"""The columns of a table of images, and their types."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from common import delimited
from common.delimited import BOX, UNKNOWN

COLUMNS = ["image", "label", "split", "hospital", "patient", *BOX]
CLASSES = {"malignant": 1, "benign": 0, "normal": 0}
NAMED = 10  # items of a long list that a message names


@dataclass(frozen=True)
class Listed:
    """The images of one data set, before any image is decoded.

    folder: `folder / image` is the file of a row. table: one row per image, the columns COLUMNS with their types (see
    `arrange`), then other columns as text. notes: sentences that tell the user how the data set was read.
    """

    folder: Path
    table: pd.DataFrame
    notes: list[str]


def shorten(items) -> str:
    """Join the first items with commas, and say how many more there are."""
    items = [str(item) for item in items]
    return ", ".join(items[:NAMED]) + (f" and {len(items) - NAMED} more" if len(items) > NAMED else "")


def arrange(table: pd.DataFrame) -> pd.DataFrame:
    """Put COLUMNS first, with their types: label int, boxes float, others text. Missing text is "", numbers nan."""
    table = table.reset_index(drop=True)
    for name in COLUMNS:
        if name not in table:
            table[name] = float("nan") if name in BOX else ""
    types = {name: float if name in BOX else int if name == "label" else str for name in table.columns}
    return table.astype(types)[COLUMNS + [name for name in table.columns if name not in COLUMNS]]


def blank_unknown(table: pd.DataFrame) -> pd.DataFrame:
    """Replace cells that mean "unknown", in any spelling in UNKNOWN, by ""."""
    return table.apply(lambda cells: cells.mask(cells.str.casefold().isin(UNKNOWN), ""))


def read(path: Path) -> pd.DataFrame:
    """Read a table as text, as `delimited.read`. The index is the row number that a spreadsheet shows."""
    rows = delimited.read(path)
    return pd.DataFrame(list(rows.values()), index=list(rows), dtype=str)
