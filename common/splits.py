"""Assign image files to splits: at random, or as in an earlier run."""

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
    """Divide images into train (70 %), val (10 %) and test (20 %), by group, stratified by class. Raises: UserError."""
    try:
        tenths = assign_folds(images.labels, images.groups, len(SPLIT_OF_TENTH), seed)
    except UserError:
        found = f"{len(np.unique(images.groups))} groups of one patient or near-duplicates"
        needed = "Give ten groups of each class, or a table with the column split."
        why = f"{len(images)} images ({images.labels.sum()} malignant) form {found}"
        raise UserError(f"{path}: cannot be divided into train, val and test: {why}. {needed}") from None
    return replace(images, table=images.table.assign(split=np.array(SPLIT_OF_TENTH)[tenths]))


def are_known(table: pd.DataFrame, kept: pd.DataFrame) -> bool:
    """Return whether at least half of the image files, or of the files of an earlier run, are in both.

    Name and content identify a file. A few shared files do not make other images the images of the run.
    """
    if "_md5" not in kept:
        return False
    both = len(table.merge(kept[["image", "_md5"]], on=["image", "_md5"]))
    return 2 * both >= min(len(table), len(kept))


def keep(table: pd.DataFrame, kept: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the image files that an earlier run used, with their splits and hospitals, and sentences on changes.

    Files with the same name and content decide the hospital. A changed file is matched by its name alone.
    """
    hospitals = table.merge(kept, on=["image", "_md5"])["hospital_y"]
    before = kept[kept["hospital"].isin(hospitals)].drop_duplicates("image").set_index("image")
    there = table["image"].isin(before.index)
    found, were = table[there].reset_index(drop=True), before.loc[table["image"][there]].reset_index()
    changed = (
        (found["_md5"] != were["_md5"]) | (found["label"] != were["label"]) | (found["patient"] != were["patient"])
    )
    changes = {
        "changed since the run": list(found["image"][changed]),
        "gone since the run": sorted(set(before.index) - set(table["image"])),
        "new since the run, and not used": list(table["image"][~there]),
    }
    said = [f"{what}: {len(names)} ({tablefile.shorten(names)})" for what, names in changes.items() if names]
    return found.assign(split=were["split"], hospital=were["hospital"]), said
