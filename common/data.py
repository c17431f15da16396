"""Find, read and divide the data sets of --data, and join them into one table of images.

found = find(["breastmnist", "scans/"], root=None, size=28)     each data set is a hospital
images = load(found, "train", "val")                            the images of all data sets; test is not read
"""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from common import fingerprints, imagetable, npzfile, phantom, preparation, splits
from common.delimited import BOX
from common.description import hospital_names, notice
from common.errors import UserError
from common.images import Images, concatenate, counts, of_arrays
from common.npzfile import SPLITS
from common.tablefile import Listed

WITHOUT_PATH = ("breastmnist", "phantom")  # values of --data that are not paths
VIEW_NOTES = {
    "frame": "the network looks at the whole frame, because no image has a box",
    "lesion": "the network looks at the lesion and at the frame, because images have boxes",
}
PHANTOM_COUNTS = {"train": 300, "val": 80, "test": 160}


@dataclass(frozen=True)
class DataSet:
    """A data set of --data, found but not read.

    spec: as in --data; hospital: the name of the hospital; md5: of the file, or of the table of image files; read: a
    function that returns the images of a split, or raises UserError; splits: the splits that `read` takes; synthetic:
    whether the images are phantoms; notes: what the user must know; table: one row for each image file, read or not.
    """

    spec: str
    hospital: str
    md5: str
    read: Callable[[str], Images]
    splits: tuple[str, ...] = SPLITS
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    table: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Found:
    """All data sets of a command, and the preparation of their images."""

    sets: tuple[DataSet, ...]
    size: int
    seed: int
    positive: str | None = None
    view: str = "square"  # or frame, or lesion
    undivided: str | None = None  # as for `find`

    @property
    def synthetic(self) -> bool:
        """Whether some images are phantoms."""
        return any(one.synthetic for one in self.sets)

    @property
    def splits(self) -> list[str]:
        """The splits that some data set has."""
        return list(dict.fromkeys(split for one in self.sets for split in one.splits))

    @property
    def name(self) -> str:
        """Name of the data in a sentence."""
        return " + ".join("BreastMNIST" if one.spec == "breastmnist" else one.hospital for one in self.sets)

    @property
    def label(self) -> str:
        """Name of the data in tables and figures."""
        return self.notice or f"{self.name} {self.size}×{self.size}"

    @property
    def notice(self) -> str | None:
        """Notice for every file of results on phantoms; None for real images."""
        return notice(self.describe())

    def unread(self, images: Images) -> pd.DataFrame:
        """Return the rows of the image files that are not among `images`."""
        key = ["hospital", "image"]
        known = pd.MultiIndex.from_frame(images.table[key])
        tables = [one.table for one in self.sets if len(one.table)]
        rows = [table[~pd.MultiIndex.from_frame(table[key]).isin(known)] for table in tables]
        return pd.concat(rows) if rows else pd.DataFrame()

    @property
    def paths(self) -> list[str]:
        """Files and folders that are read: the data sets, and the folders of the images that tables name."""
        specs = paths([one.spec for one in self.sets])
        folders = {os.path.dirname(file) for one in self.sets for file in one.table.get("_file", [])}
        return specs + [one for one in sorted(folders) if not any(Path(spec).is_relative_to(one) for spec in specs)]

    def describe(self) -> dict:
        """Return the description of the data that a run stores, and by which `find_again` finds and checks the data."""
        sets = [{"spec": one.spec, "hospital": one.hospital, "md5": one.md5} for one in self.sets]
        md5s = "\n".join(one.md5 for one in self.sets)
        md5 = md5s if len(self.sets) == 1 else hashlib.md5(md5s.encode()).hexdigest()
        described = {"sets": sets, "size": self.size, "seed": self.seed, "positive": self.positive, "view": self.view}
        return described | {"md5": md5, "synthetic": self.synthetic, "undivided": self.undivided}


def paths(specs: Sequence[str]) -> list[str]:
    """Return the values of --data that are files or folders."""
    return [spec for spec in specs if spec not in WITHOUT_PATH]


def find(
    specs: Sequence[str],
    root: str | None,
    size: int,
    seed: int = 0,
    positive: str | None = None,
    kept: pd.DataFrame | None = None,
    undivided: str | None = None,
    view: str = "auto",
) -> Found:
    """Find and identify data sets. Download BreastMNIST if it is absent.

    Args:
        specs: "breastmnist", "phantom", or the path of an .npz with MedMNIST's keys, of a folder or of a table.
        root: folder with the files of MedMNIST; None for $MEDMNIST_ROOT, otherwise ~/.medmnist.
        size: side of the images in pixels, a number in `npzfile.SIZES`.
        seed: seed of the phantoms and of random splits.
        positive: the class folder of malignant images; None for "malignant".
        kept: the table of an earlier run. Images in this table keep their splits.
        undivided: name of the only split of image files without splits; None: draw train, val and test at random.
        view: what a model looks at: square, frame, lesion, or auto (`choose_view`).

    Raises: UserError when a data set does not exist, is named twice, or has bad images.
    """
    listings = [list_files(spec, positive) for spec in specs]
    if view == "auto" and (view := choose_view(listings)) != "square":
        coarse = ". At 28 pixels, the model sees little detail: give --size 128" * (size < 64)
        print(f"note: --view {view}: {VIEW_NOTES[view]}{coarse}", file=sys.stderr)
    prepare = partial(preparation.prepare_files, size=size, whole=view != "square")
    sets = [
        find_files(spec, of, name, seed, prepare, kept, undivided) if of else find_arrays(spec, name, root, size, seed)
        for spec, name, of in zip(specs, hospital_names(specs), listings)
    ]
    for i, one in enumerate(sets):
        if earlier := [other.spec for other in sets[:i] if other.md5 == one.md5]:
            raise UserError(f"--data {one.spec}: holds the same images as {earlier[0]}. Name each data set once.")
        for note in one.notes:
            print(f"note: {one.spec}: {note}", file=sys.stderr)
    return Found(tuple(sets), size, seed, positive, view, undivided)


def list_files(spec: str, positive: str | None) -> Listed | None:
    """List the image files of a data set; None for a data set of arrays. Raises: UserError."""
    is_npz = spec.lower().endswith(".npz") and not os.path.isdir(spec)
    return None if spec in WITHOUT_PATH or is_npz else imagetable.list_images(Path(spec), positive)


def choose_view(listings: Sequence[Listed | None]) -> str:
    """Return the view: "square" (as MedMNIST) if a data set is arrays, "lesion" if an image has a box, else "frame"."""
    if not all(listings):
        return "square"
    return "lesion" if any(one and one.table["x"].notna().any() for one in listings) else "frame"


def find_arrays(spec: str, hospital: str, root: str | None, size: int, seed: int) -> DataSet:
    """Find BreastMNIST, phantoms, or a file with MedMNIST's keys. Arguments: as for `find`. Raises: UserError."""
    if spec == "phantom":
        return find_phantoms(size, seed)
    return find_npz(spec, npzfile.breastmnist_path(root, size) if spec == "breastmnist" else Path(spec), hospital, size)


def find_phantoms(size: int, seed: int) -> DataSet:
    """Return the data set of phantoms. The random numbers differ between splits and between seeds."""

    def read(split: str) -> Images:
        own_seed = len(SPLITS) * seed + SPLITS.index(split)
        pixels, labels, boxes = phantom.generate_with_boxes(PHANTOM_COUNTS[split], size, own_seed)
        return of_arrays(pixels, labels, split, "phantom", **dict(zip(BOX, boxes.T)))

    md5 = hashlib.md5(f"phantom size {size} seed {seed}".encode()).hexdigest()
    return DataSet("phantom", "phantom", md5, read, synthetic=True)


def find_npz(spec: str, path: Path, hospital: str, size: int) -> DataSet:
    """Find a file with MedMNIST's keys. Raises: UserError."""
    md5 = npzfile.identify(path, size, official=spec == "breastmnist")

    def read(split: str) -> Images:
        return of_arrays(*npzfile.read(path, size, split), split, hospital)

    notes = ("label 0 means malignant, as in MedMNIST",) * (spec != "breastmnist")
    return DataSet(spec, hospital, md5, read, notes=notes)


def find_files(spec, listed: Listed, hospital: str, seed, prepare_files: Callable, kept, undivided) -> DataSet:
    """Find the image files of a folder, a table or a public data set. Raises: UserError."""
    path = Path(spec)
    table = listed.table.assign(_md5=preparation.md5s(listed.folder, listed.table["image"]))
    divided, notes = bool((table["split"] != "").all()), list(listed.notes)
    identity = hashlib.md5(table.to_csv(index=False).encode() + f"{divided or seed}".encode()).hexdigest()
    if (table["hospital"] == "all").any():
        why = "a hospital has the name 'all', which results use for all hospitals together. Rename the hospital"
        raise UserError(f"{path}: {why}.")
    table["hospital"] = [name or hospital for name in table["hospital"]]
    table["_file"] = [str(listed.folder / name) for name in table["image"]]

    prepare = partial(prepare_files, listed.folder, where=path)
    drawn = None
    if kept is not None and splits.are_known(table, kept):
        table, changes = splits.keep(table, kept)
        notes += changes
    elif not divided and undivided is None:
        drawn = splits.draw(prepare(table), seed, path)
        table = drawn.table
        notes.append("has no splits. 70 % of the groups are drawn for train, 10 % for val, 20 % for test")
    elif not divided:
        table["split"] = undivided

    def read(split: str) -> Images:
        return drawn.of_split(split) if drawn else prepare(table[table["split"] == split].reset_index(drop=True))

    names = tuple(sorted(set(table["split"]), key=[*SPLITS, undivided].index))
    return DataSet(spec, hospital, identity, read, names, notes=tuple(notes), table=table)


def find_again(described: dict, kept: pd.DataFrame | None, args, undivided: str | None = None) -> Found:
    """Find the data that a model was trained on, divided as in training, or the data that the flags name.

    Args: described: as from `Found.describe`; kept: the table of the run; args: with --data, --data-root, --size,
    --seed and --positive, None if not given. Raises: UserError, as `find`.
    """
    specs = args.data or [one["spec"] for one in described["sets"]]
    if not args.data and (gone := [spec for spec in paths(specs) if not os.path.exists(spec)]):
        raise UserError(f"{gone[0]}: the data of the run are no longer there. Give their new place with --data.")
    seed = described["seed"] if args.seed is None else args.seed
    size, positive = args.size or described["size"], args.positive or described["positive"]
    undivided = undivided if args.data else described.get("undivided")
    found = find(specs, args.data_root, size, seed, positive, kept, undivided, described["view"])
    if not args.data and found.describe()["md5"] != described["md5"] and args.size is args.seed is None:
        print("note: the data have changed since the model was trained", file=sys.stderr)
    return found


def load(found: Found, *splits: str, optional: Sequence[str] = ()) -> Images:
    """Read the images of the named splits, of all data sets, and print a table of counts on stderr.

    Args: optional: splits that may be empty, or may lack a class.
    Raises: UserError on bad images, and when a split that is not optional is empty, or train or val lacks a class.
    """
    none = of_arrays(np.empty((0, found.size, found.size), np.uint8), np.empty(0, np.uint8), "", "")
    parts = [one.read(split) for split in splits for one in found.sets if split in one.splits]
    images = concatenate(*parts or [none])
    if len(images):
        print(counts(images.table), file=sys.stderr)
    for split in [split for split in splits if split not in optional]:
        part = images.table[images.table["split"] == split]
        if part.empty:
            refuse_empty(found, split)
        if split in ("train", "val"):
            require_both_classes(part["label"].to_numpy(), f"{found.name}: {split}")
    return images


def refuse_empty(found: Found, split: str) -> NoReturn:
    """Raise a `UserError` that says that a split is empty."""
    hint = ", or use crossval.py, which needs no val" if split == "val" else ""
    raise UserError(f"{found.name}: no image is in {split}. Give a data set with images in {split}{hint}.")


def require_both_classes(labels: np.ndarray, what: str) -> None:
    """Raise a `UserError` if labels [n] are of one class only. what: the name of the images in the message."""
    if len(np.unique(labels)) < 2:
        raise UserError(f"{what} holds one class only. Give malignant images, and normal or benign images.")


def require_apart(found: Found, without: str | None = None) -> None:
    """Raise a `UserError` if two data sets hold the same picture, or one name twice, in any split but `without`."""
    sets = [one for one in found.sets if set(one.splits) - {without}]
    if len(sets) < 2:
        return
    parts = [concatenate(*(one.read(split) for split in one.splits if split != without)) for one in sets]
    for i, images in enumerate(parts[1:], 1):
        known = fingerprints.fingerprint(concatenate(*parts[:i]).squares)
        if (same := fingerprints.distance(images.squares, known) <= fingerprints.SAME).any():
            also = f"{same.sum()} of its {len(images)} images are also in another data set"
            also += f", such as {images.table['image'][int(np.argmax(same))]}"
            raise UserError(f"--data {sets[i].spec}: {also}. Name each image once.")
    rows = pd.concat([part.table for part in parts])
    if len(twice := rows[rows.duplicated(["hospital", "image"]) & (rows["image"] != "")]):
        which = f"an image {twice['image'].iloc[0]} of hospital {twice['hospital'].iloc[0]}"
        raise UserError(f"--data: two data sets have {which}. Rename the hospital or the files.")
