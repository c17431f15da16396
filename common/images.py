"""Images and the facts about them: a pixel array and a table with one row per image.

The columns of the table, `tablefile.COLUMNS`, have the same names in every part of the program.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from common import delimited, duplicates, fingerprints, tablefile


@dataclass(frozen=True)
class Images:
    """Images and the facts about them.

    pixels: uint8 [n, size, size], the middle square or, in the views frame and lesion, the whole frame; table: one row
    per image, `tablefile.COLUMNS` and the other columns of the data set; squares: uint8 [n, 28, 28], the middle
    squares, for comparing images; sizes: int [n, 2], height and width of each frame as stored; windows: uint8
    [n, size, size], what the network sees around the lesion in the view lesion; None before windows are placed.
    """

    pixels: np.ndarray
    table: pd.DataFrame
    squares: np.ndarray
    sizes: np.ndarray
    windows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, chosen) -> "Images":
        """Return some of the images. chosen: bool [n], indices, or a slice."""
        rows = np.arange(len(self))[chosen]
        windows = None if self.windows is None else self.windows[rows]
        table = self.table.iloc[rows].reset_index(drop=True)
        return Images(self.pixels[rows], table, self.squares[rows], self.sizes[rows], windows)

    @property
    def files(self) -> np.ndarray:
        """Path of the file of each image, text [n]; "" for an image of an array."""
        return self.table["_file"].to_numpy(str) if "_file" in self.table else np.full(len(self), "")

    @property
    def boxes(self) -> np.ndarray:
        """Box around each lesion in pixels of the frame, float64 [n, 4]; nan if unknown."""
        return self.table[delimited.BOX].to_numpy(float)

    @property
    def boxed(self) -> np.ndarray:
        """Whether each image has a box, bool [n]."""
        return np.isfinite(self.boxes[:, 0])

    @property
    def annotated(self) -> np.ndarray:
        """Whether it is known if and where each image shows a lesion, bool [n].

        If a hospital has boxes, and all its malignant images have a box, its images without a box show no lesion.
        """
        boxed, known, malignant = self.boxed, self.boxed, self.labels == 1
        for hospital in set(self.hospitals):
            here = self.hospitals == hospital
            if boxed[here].any() and boxed[here & malignant].all():
                known = known | here
        return known

    @property
    def labels(self) -> np.ndarray:
        """Labels, uint8 [n]; 1 for malignant."""
        return self.table["label"].to_numpy(np.uint8)

    @property
    def hospitals(self) -> np.ndarray:
        """Hospital of each image, text [n]."""
        return self.table["hospital"].to_numpy(str)

    @property
    def patients(self) -> list[str]:
        """Patient of each image, with the hospital, because hospitals can use the same names; "" if unknown."""
        pairs = zip(self.table["hospital"], self.table["patient"])
        return [f"{hospital}/{patient}" if patient else "" for hospital, patient in pairs]

    @cached_property
    def groups(self) -> np.ndarray:
        """Group of each image, int [n]: connected components of images of one patient and of near-duplicates.

        Images of a group must stay together. Groups are computed once, at the first use.
        """
        return duplicates.find_groups(self.squares, self.patients)

    def are_of(self, *splits: str) -> np.ndarray:
        """Return whether each image is in the given splits, bool [n]."""
        return self.table["split"].isin(splits).to_numpy()

    def of_split(self, *names: str) -> "Images":
        """Return the images of the given splits."""
        return self[self.are_of(*names)]


def concatenate(*parts: Images) -> Images:
    """Join images in order. A column that a part lacks is empty; windows are kept only if all parts have windows."""
    table = pd.concat([part.table for part in parts], ignore_index=True)
    others = [name for name in table.columns if name not in tablefile.COLUMNS]
    table[others] = table[others].fillna("")
    pixels, squares, sizes = map(np.concatenate, zip(*((part.pixels, part.squares, part.sizes) for part in parts)))
    windows = [part.windows for part in parts if part.windows is not None]
    return Images(pixels, table, squares, sizes, np.concatenate(windows) if len(windows) == len(parts) else None)


def of_arrays(pixels: np.ndarray, labels: np.ndarray, split: str, hospital: str, **more) -> Images:
    """Return images without files, named train/0, train/1, … after their split. The pixels are the frames.

    Args: pixels: uint8 [n, size, size]; labels: [n], 1 for malignant; more: other columns of the table.
    """
    known = {"image": [f"{split}/{i}" for i in range(len(labels))], "label": labels, "split": split}
    return of_pixels(pixels, tablefile.arrange(pd.DataFrame(known | {"hospital": hospital} | more)))


def of_pixels(pixels: np.ndarray, table: pd.DataFrame) -> Images:
    """Return images from frames, uint8 [n, size, size], and a table with one row per frame."""
    return Images(pixels, table, fingerprints.shrink(pixels), np.full((len(pixels), 2), pixels.shape[1:]))


def counts(table: pd.DataFrame) -> str:
    """Return a text table: number of images, malignant images and patients of each hospital in each split."""
    width = max(map(len, ["data set", *table["hospital"]]))
    lines = [f"{'data set':<{width}}{'split':>8}{'images':>8}{'malignant':>11}{'benign or normal':>18}{'patients':>10}"]
    for (hospital, split), part in table.groupby(["hospital", "split"], sort=False):
        known, malignant = part["patient"][part["patient"] != ""], int(part["label"].sum())
        cells = f"{len(part):>8}{malignant:>11}{len(part) - malignant:>18}{known.nunique() or 'unknown':>10}"
        lines.append(f"{hospital:<{width}}{split:>8}{cells}")
    if (table["patient"] == "").all():
        lines.append("No patients are known: only near-duplicates are kept together.")
    elif unknown := int((table["patient"] == "").sum()):
        which = f"{unknown} image{'s' * (unknown > 1)}"
        lines.append(f"The patient of {which} is unknown: of these, only near-duplicates are kept together.")
    return "\n".join(lines)
