"""Data sets as one table of images: what --data names, found, read and divided into splits.

    sets = find(["breastmnist", "scans/"], root=None, size=28)      each data set is a hospital
    images = load(sets, "train", "val")                             their union; test is not read

The columns of the table, `tablefile.COLUMNS`, have the same names in every part of the program.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from common import duplicates, fingerprints, imagetable, npzfile, phantom, preparation, tablefile
from common.description import notice
from common.errors import UserError
from common.folds import assign_folds
from common.npzfile import SPLITS

PHANTOM_COUNTS = {"train": 300, "val": 80, "test": 160}
SPLIT_OF_TENTH = ["train"] * 7 + ["val"] + ["test"] * 2  # of splits that are drawn


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

    def of_split(self, *names: str) -> "Images":
        """The images of some splits."""
        return self[self.table["split"].isin(names).to_numpy()]


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


def find_groups(images: Images) -> np.ndarray:
    """What must stay together: images of one patient, where patients are known, and near-duplicates. Returns: connected
    components of both, int [n]."""
    return duplicates.find_groups(images.pixels, images.patients)


@dataclass(frozen=True)
class DataSet:
    """A data set that --data names, found but not read.

    spec: as --data has it; hospital: its name; md5: of the file, or of all that a folder or a table says; read: gives
    the images of a split, and raises UserError when they are bad; splits: that `read` takes; notes: what the user must
    know about the table.
    """

    spec: str
    hospital: str
    md5: str
    read: Callable[[str], Images]
    splits: tuple[str, ...] = SPLITS
    synthetic: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """All data sets of a command, and how their images are prepared."""

    sets: tuple[DataSet, ...]
    size: int
    seed: int
    positive: str | None = None

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
        """What to call the data in a sentence."""
        return " + ".join("BreastMNIST" if one.spec == "breastmnist" else one.hospital for one in self.sets)

    @property
    def label(self) -> str:
        """What to call the data in tables and figures."""
        return self.notice or f"{self.name} {self.size}×{self.size}"

    @property
    def notice(self) -> str | None:
        """What every file of results on phantoms says of them; None for real images."""
        return notice(self.describe())

    @property
    def paths(self) -> list[str]:
        """The files and folders that are read."""
        return [one.spec for one in self.sets if one.spec not in ("breastmnist", "phantom")]

    def describe(self) -> dict:
        """What a run keeps of its data: enough to find them again, and to tell others from them."""
        sets = [{"spec": one.spec, "hospital": one.hospital, "md5": one.md5} for one in self.sets]
        md5s = [one.md5 for one in self.sets]
        md5 = md5s[0] if len(md5s) == 1 else hashlib.md5("\n".join(md5s).encode()).hexdigest()
        described = {"sets": sets, "size": self.size, "seed": self.seed, "positive": self.positive}
        return described | {"md5": md5, "synthetic": self.synthetic}


def find(
    specs: Sequence[str],
    root: str | None,
    size: int,
    seed: int = 0,
    positive: str | None = None,
    kept: pd.DataFrame | None = None,
    undivided: str | None = None,
) -> Found:
    """Locate (if need be, download) and identify data sets.

    Args:
        specs: "breastmnist", "phantom", or the path of an .npz with MedMNIST's keys, of a folder or of a table.
        root: folder of MedMNIST's files; None for $MEDMNIST_ROOT, else ~/.medmnist.
        size: side of the images in pixels, one of `npzfile.SIZES`.
        seed: of the phantoms, and of splits that are drawn.
        positive: the class folder of malignant images; None for "malignant".
        kept: the table of an earlier run, whose splits are taken where it knows the images.
        undivided: a name for the only split of image files without splits; None: draw train, val and test.

    Raises: UserError when there is no such data set, when one is named twice, or of bad images.
    """
    names = hospital_names(specs)
    sets = [find_one(spec, name, root, size, seed, positive, kept, undivided) for spec, name in zip(specs, names)]
    for i, one in enumerate(sets):
        if earlier := [other.spec for other in sets[:i] if other.md5 == one.md5]:
            raise UserError(f"--data {one.spec}: holds the same images as {earlier[0]}; name each data set once")
        for note in one.notes:
            print(f"note: {one.spec}: {note}", file=sys.stderr)
    return Found(tuple(sets), size, seed, positive)


def hospital_names(specs: Sequence[str]) -> list[str]:
    """A name for each data set: of its file or folder, together with the folder around it where two are the same.
    Raises: UserError where two cannot be told apart."""
    paths = [Path(os.path.abspath(spec)) for spec in specs]
    short = [path.name if os.path.isdir(path) else path.stem for path in paths]
    names = [name if short.count(name) == 1 else f"{path.parent.name}/{name}" for path, name in zip(paths, short)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--data: two data sets are called {twice[0]}; rename a folder, or name each data set once")
    return names


def find_one(spec, hospital, root, size, seed, positive, kept, undivided) -> DataSet:
    """One data set; the arguments are those of `find`. Raises: UserError."""
    if spec == "phantom":
        return find_phantoms(size, seed)
    path = npzfile.breastmnist_path(root, size) if spec == "breastmnist" else Path(spec)
    if spec == "breastmnist" or path.suffix.lower() == ".npz" and not os.path.isdir(path):
        return find_npz(spec, path, hospital, size)
    return find_files(spec, path, hospital, size, seed, positive, kept, undivided)


def find_phantoms(size: int, seed: int) -> DataSet:
    """Phantoms: each split, of each seed, has a seed of its own."""

    def read(split: str) -> Images:
        own_seed = len(SPLITS) * seed + SPLITS.index(split)
        return of_arrays(*phantom.generate(PHANTOM_COUNTS[split], size, own_seed), split, "phantom")

    md5 = hashlib.md5(f"phantom size {size} seed {seed}".encode()).hexdigest()
    return DataSet("phantom", "phantom", md5, read, synthetic=True)


def find_npz(spec: str, path: Path, hospital: str, size: int) -> DataSet:
    """A file with MedMNIST's keys. Raises: UserError."""
    md5 = npzfile.identify(path, size, official=spec == "breastmnist")
    return DataSet(spec, hospital, md5, lambda split: of_arrays(*npzfile.read(path, size, split), split, hospital))


def find_files(spec, path: Path, hospital: str, size, seed, positive, kept, undivided) -> DataSet:
    """Image files in a folder, a table or a public data set. Raises: UserError."""
    listed = imagetable.list_images(path, positive)
    table = listed.table.assign(_md5=preparation.md5s(listed.folder, listed.table["image"]))
    table["hospital"] = [name or hospital for name in table["hospital"]]
    divided, notes = bool((table["split"] != "").all()), list(listed.notes)
    identity = hashlib.md5(table.to_csv(index=False).encode() + f"{divided or seed}".encode()).hexdigest()
    table["_file"] = [str(listed.folder / name) for name in table["image"]]

    def prepare(rows: pd.DataFrame) -> Images:
        return Images(preparation.prepare_files(listed.folder, list(rows["image"]), size, path), rows)

    if kept is not None and is_known(table, kept):
        table, changes = keep_splits(table, kept)
        notes, divided = notes + changes, True
    everything = None
    if not divided and undivided is None:
        everything = draw_splits(prepare(table), seed, path)
        notes.append("has no splits of its own: 70 % of the groups are drawn for train, 10 % for val, 20 % for test")
    elif not divided:
        table["split"] = undivided

    def read(split: str) -> Images:
        if everything:
            return everything.of_split(split)
        return prepare(table[table["split"] == split].reset_index(drop=True))

    splits = SPLITS if divided or everything else (str(undivided),)
    return DataSet(spec, hospital, identity, read, splits, notes=tuple(notes))


def draw_splits(images: Images, seed: int, path: Path) -> Images:
    """The images divided into train, val and test: 70, 10, 20 %, by group, stratified by class. Raises: UserError."""
    try:
        tenths = assign_folds(images.labels, find_groups(images), len(SPLIT_OF_TENTH), seed)
    except UserError:
        needed = "that takes ten separate images (patients, where known) of each class, or a column split in a table"
        raise UserError(f"{path}: cannot be divided into train, val and test; {needed}") from None
    return Images(images.pixels, images.table.assign(split=np.array(SPLIT_OF_TENTH)[tenths]))


def find_again(described: dict, kept: pd.DataFrame | None, args, undivided: str | None = None) -> Found:
    """The data that a model was trained on, or those that the flags name.

    Args: described: as `Found.describe`; kept: the run's table; args: --data, --data-root, --size, --seed, --positive,
    None where not given. Raises: UserError, as `find`.
    """
    specs = args.data or [one["spec"] for one in described["sets"]]
    seed = described["seed"] if args.seed is None else args.seed
    positive = args.positive or described["positive"]
    found = find(specs, args.data_root, args.size or described["size"], seed, positive, kept, undivided)
    if not args.data and found.describe()["md5"] != described["md5"] and args.size is args.seed is None:
        print("note: the data have changed since the model was trained", file=sys.stderr)
    return found


def is_known(table: pd.DataFrame, kept: pd.DataFrame) -> bool:
    """Whether some image files are those that an earlier run used, wherever they lie now."""
    return "_md5" in kept and not table.merge(kept[["image", "_md5"]], on=["image", "_md5"]).empty


def keep_splits(table: pd.DataFrame, kept: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The image files that an earlier run used, each in its split, and what has changed since, in sentences."""
    before = kept.drop_duplicates("image").set_index("image")
    there = table["image"].isin(before.index)
    same = table[there]["_md5"].to_numpy() == before.loc[table[there]["image"], "_md5"].to_numpy()
    of_set = before[before["hospital"].isin(before.loc[table[there]["image"], "hospital"])]
    changes = {
        "have changed since": list(table[there]["image"][~same]),
        "are gone": sorted(set(of_set.index) - set(table["image"])),
        "are new, and left out": list(table["image"][~there]),
    }
    said = [
        f"of the images that the run used, {len(names)} {what}: {tablefile.shorten(names)}"
        for what, names in changes.items()
        if names
    ]
    table = table[there].reset_index(drop=True)
    return table.assign(split=before.loc[table["image"], "split"].to_numpy()), said


def load(found: Found, *splits: str, optional: Sequence[str] = ()) -> Images:
    """The images of the named splits, of all data sets; only these are read. A table of their counts goes to stderr.

    Args: optional: splits that may hold no images.
    Raises: UserError when another split holds none, when train or val lacks a class, or of bad images.
    """
    images = concatenate(*(one.read(split) for split in splits for one in found.sets if split in one.splits))
    print(counts(images.table), file=sys.stderr)
    for split in splits:
        part = images.table[images.table["split"] == split]
        if part.empty and split in optional:
            continue
        if part.empty:
            raise UserError(f"{found.name}: {split} holds no images; give a data set or a column split that has them")
        if split in ("train", "val"):
            require_both_classes(part["label"].to_numpy(), f"{found.name}: {split}")
    return images


def require_both_classes(labels: np.ndarray, what: str) -> None:
    """Raises: UserError. labels: [n] of what is named."""
    if len(np.unique(labels)) < 2:
        raise UserError(f"{what} holds one class only; it needs malignant and normal or benign images")


def require_apart(found: Found) -> None:
    """Raises: UserError, before any training, when two data sets hold the same picture. Every split is read for this
    comparison, and forgotten again."""
    if len(found.sets) == 1:
        return
    parts = [concatenate(*map(one.read, one.splits)) for one in found.sets]
    for i, (one, images) in enumerate(zip(found.sets, parts)):
        for earlier in parts[:i]:
            known = fingerprints.fingerprint(earlier.pixels)
            same = fingerprints.distance(images.pixels, known) <= fingerprints.SAME
            if same.any():
                first = images.table["image"][int(np.argmax(same))]
                raise UserError(
                    f"--data {one.spec}: {same.sum()} of its {len(images)} images are in another data set too, such as "
                    f"{first}; name each image once"
                )


def counts(table: pd.DataFrame) -> str:
    """How many images, malignant ones and patients each hospital has in each split, as a table in words."""
    lines = [f"{'data set':<20}{'split':>8}{'images':>8}{'malignant':>11}{'benign or normal':>18}{'patients':>10}"]
    for (hospital, split), part in table.groupby(["hospital", "split"], sort=False):
        known, malignant = part["patient"][part["patient"] != ""], int(part["label"].sum())
        cells = f"{len(part):>8}{malignant:>11}{len(part) - malignant:>18}{known.nunique() or 'unknown':>10}"
        lines.append(f"{hospital:<20}{split:>8}{cells}")
    if (table["patient"] == "").all():
        lines.append("No patients are known: only near-duplicates are kept together.")
    elif unknown := int((table["patient"] == "").sum()):
        lines.append(f"The patient of {unknown} images is unknown: of these, only near-duplicates are kept together.")
    return "\n".join(lines)
