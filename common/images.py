"""Some images and what is known of them: a pixel array and a table with one row per image.

The columns of the table, `tablefile.COLUMNS`, have the same names in every part of the program.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from common import duplicates, fingerprints, tablefile


@dataclass(frozen=True)
class Images:
    """Some images and what is known of them.

    pixels: uint8 [n, size, size], the middle square, or in the views frame and lesion the whole frame; table: a row per
    image, with `tablefile.COLUMNS` and whatever else the data set has; squares: uint8 [n, 28, 28], the middle square of
    each image, by which pictures are compared; sizes: int [n, 2], height and width of each frame as stored; windows: in
    the view lesion, once they are placed, uint8 [n, size, size], what the network sees around the lesion.
    """

    pixels: np.ndarray
    table: pd.DataFrame
    squares: np.ndarray
    sizes: np.ndarray
    windows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, chosen) -> "Images":
        """Some of the images. chosen: bool [n], or indices."""
        rows = np.arange(len(self))[chosen]
        windows = None if self.windows is None else self.windows[rows]
        table = self.table.iloc[rows].reset_index(drop=True)
        return Images(self.pixels[rows], table, self.squares[rows], self.sizes[rows], windows)

    def look(self, name: str) -> np.ndarray:
        """What is seen at one of the two looks, "window" or "frame", uint8 [n, size, size]."""
        pictures = self.windows if name == "window" else self.pixels
        assert pictures is not None  # the windows have been placed
        return pictures

    @property
    def seen(self) -> np.ndarray:
        """What a model takes: the pixels, or where windows are placed both, uint8 [n, 2, size, size]."""
        return self.pixels if self.windows is None else np.stack([self.windows, self.pixels], 1)

    @property
    def boxes(self) -> np.ndarray:
        """The box around each lesion in pixels of the frame, float64 [n, 4]; nan where it is unknown."""
        return self.table[tablefile.BOX].to_numpy(float)

    @property
    def boxed(self) -> np.ndarray:
        """Which images have a box, bool [n]."""
        return np.isfinite(self.boxes[:, 0])

    @property
    def annotated(self) -> np.ndarray:
        """Of which images it is known whether and where there is a lesion, bool [n]. An image without a box shows none
        if it is not malignant, and all malignant images of its hospital have a box."""
        boxed, known, malignant = self.boxed, self.boxed, self.labels == 1
        for hospital in set(self.hospitals):
            here = self.hospitals == hospital
            if boxed[here].any() and boxed[here & malignant].all():
                known = known | here
        return known

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
        return duplicates.find_groups(self.squares, self.patients)

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
    pixels, squares, sizes = map(np.concatenate, zip(*((part.pixels, part.squares, part.sizes) for part in parts)))
    windows = [part.windows for part in parts if part.windows is not None]
    return Images(pixels, table, squares, sizes, np.concatenate(windows) if len(windows) == len(parts) else None)


def of_arrays(pixels: np.ndarray, labels: np.ndarray, split: str, hospital: str, **more) -> Images:
    """Images without files, called train/0, train/1, … by their split: the pixels are the frames. more: other
    columns."""
    known = {"image": [f"{split}/{i}" for i in range(len(labels))], "label": labels, "split": split}
    return of_pixels(pixels, tablefile.arrange(pd.DataFrame(known | {"hospital": hospital} | more)))


def of_pixels(pixels: np.ndarray, table: pd.DataFrame) -> Images:
    """Images whose pixels, uint8 [n, size, size], are the frames."""
    return Images(pixels, table, fingerprints.shrink(pixels), np.full((len(pixels), 2), pixels.shape[1:]))


def counts(table: pd.DataFrame) -> str:
    """How many images, malignant ones and patients each hospital has in each split, as a table in words."""
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
