"""Some images and what is known of them: a pixel array and a table with one row per image.

The columns of the table, `tablefile.COLUMNS`, have the same names in every part of the program.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from common import duplicates, tablefile


@dataclass(frozen=True)
class Images:
    """Some images and what is known of them. pixels: uint8 [n, size, size]; table: a row per image, with
    `tablefile.COLUMNS` and whatever else the data set has."""

    pixels: np.ndarray
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, chosen) -> "Images":
        """Some of the images. chosen: bool [n], or indices."""
        rows = np.arange(len(self))[chosen]
        return Images(self.pixels[rows], self.table.iloc[rows].reset_index(drop=True))

    @property
    def labels(self) -> np.ndarray:
        """uint8 [n], 1 for malignant."""
        return self.table["label"].to_numpy(np.uint8)

    @property
    def hospitals(self) -> np.ndarray:
        """Text [n]."""
        return self.table["hospital"].to_numpy(str)

    @property
    def patients(self) -> list[str]:
        """Who each image shows, the same text for one patient of one hospital only; "" where unknown."""
        pairs = zip(self.table["hospital"], self.table["patient"])
        return [f"{hospital}/{patient}" if patient else "" for hospital, patient in pairs]

    @cached_property
    def groups(self) -> np.ndarray:
        """What must stay together: images of one patient, where patients are known, and near-duplicates. Connected
        components of both, int [n]. They are searched once, when first asked for."""
        return duplicates.find_groups(self.pixels, self.patients)

    def are_of(self, *splits: str) -> np.ndarray:
        """Which images are of some splits, bool [n]."""
        return self.table["split"].isin(splits).to_numpy()

    def of_split(self, *names: str) -> "Images":
        """The images of some splits."""
        return self[self.are_of(*names)]


def concatenate(*parts: Images) -> Images:
    """The images of one part or several, one after the other; a column that a part lacks is empty there."""
    table = pd.concat([part.table for part in parts], ignore_index=True)
    others = [name for name in table.columns if name not in tablefile.COLUMNS]
    table[others] = table[others].fillna("")
    return Images(np.concatenate([part.pixels for part in parts]), table)


def of_arrays(pixels: np.ndarray, labels: np.ndarray, split: str, hospital: str, **more) -> Images:
    """Images without files, called train/0, train/1, … by their split. more: other columns."""
    known = {"image": [f"{split}/{i}" for i in range(len(labels))], "label": labels, "split": split}
    return Images(pixels, tablefile.arrange(pd.DataFrame(known | {"hospital": hospital} | more)))
