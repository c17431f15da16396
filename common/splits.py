"""Which image file is in which split: drawn, or as an earlier run had it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from common import tablefile
from common.errors import UserError
from common.folds import assign_folds
from common.images import Images

SPLIT_OF_TENTH = ["train"] * 7 + ["val"] + ["test"] * 2


def draw(images: Images, seed: int, path: Path) -> Images:
    """The images divided into train, val and test: 70, 10, 20 %, by group, stratified by class. Raises: UserError."""
    try:
        tenths = assign_folds(images.labels, images.groups, len(SPLIT_OF_TENTH), seed)
    except UserError:
        needed = "that takes ten separate images (patients, where known) of each class, or a column split in a table"
        raise UserError(f"{path}: cannot be divided into train, val and test; {needed}") from None
    return replace(images, table=images.table.assign(split=np.array(SPLIT_OF_TENTH)[tenths]))


def are_known(table: pd.DataFrame, kept: pd.DataFrame) -> bool:
    """Whether some image files are those that an earlier run used, wherever they lie now."""
    return "_md5" in kept and not table.merge(kept[["image", "_md5"]], on=["image", "_md5"]).empty


def keep(table: pd.DataFrame, kept: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The image files that an earlier run used, each in its split and its hospital, and what has changed since, in
    sentences. A file is found again by name and content, a changed one by its name alone."""
    hospitals = table.merge(kept, on=["image", "_md5"])["hospital_y"]
    before = kept[kept["hospital"].isin(hospitals)].drop_duplicates("image").set_index("image")
    there = table["image"].isin(before.index)
    found, were = table[there].reset_index(drop=True), before.loc[table["image"][there]].reset_index()
    changed = (
        (found["_md5"] != were["_md5"]) | (found["label"] != were["label"]) | (found["patient"] != were["patient"])
    )
    changes = {
        "have changed since": list(found["image"][changed]),
        "are gone": sorted(set(before.index) - set(table["image"])),
        "are new, and left out": list(table["image"][~there]),
    }
    said = [
        f"of the images that the run used, {len(names)} {what}: {tablefile.shorten(names)}"
        for what, names in changes.items()
        if names
    ]
    return found.assign(split=were["split"], hospital=were["hospital"]), said
