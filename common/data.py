"""BreastMNIST, files like it, phantoms, and image files of one's own, as uint8 arrays."""

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from common import duplicates, imageset, npzfile, phantom
from common.errors import UserError, reading
from common.npzfile import OFFICIAL_MD5, SPLITS, breastmnist_path, fetch

PHANTOM_COUNTS = {"train": 300, "val": 80, "test": 160}


@dataclass(frozen=True)
class Split:
    """images: uint8 [n, size, size]; labels: uint8 [n], 1 for malignant; rows: objects [n], what else is known of each
    image: {"split", "index"}, and of image files {"image", "patient"}."""

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, name: str, images: np.ndarray, labels: np.ndarray, known: list[dict] | None = None) -> "Split":
        """A whole split, its images numbered from 0. known: more of each image."""
        more = known or [{}] * len(labels)
        rows = [{"split": name, "index": i} | extra for i, extra in enumerate(more)]
        return cls(images, labels, np.array(rows, dtype=object))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> "Split":
        return Split(self.images[index], self.labels[index], self.rows[index])

    @property
    def patients(self) -> list[str]:
        """Who each image is of, "" where unknown."""
        return [row.get("patient", "") for row in self.rows]

    @property
    def hospitals(self) -> np.ndarray:
        """Text [n], "" for --data, else the name of the further data that an image is of."""
        return np.array([row.get("hospital", "") for row in self.rows])


def concatenate(*splits: Split) -> Split:
    """The images of several splits, one after the other."""
    return Split(*(np.concatenate([getattr(s, f.name) for s in splits]) for f in fields(Split)))


def find_groups(*splits: Split) -> np.ndarray:
    """What must stay together: images of one patient, where patients are known, and near-duplicates. Returns: connected
    components of both, int [n] over the images of all splits."""
    images = np.concatenate([duplicates.shrink(split.images) for split in splits])
    return duplicates.find_groups(images, [patient for split in splits for patient in split.patients])


@dataclass(frozen=True)
class Source:
    """Where images come from: what --data, --data-root, --size and --seed name. Reading is `load`'s."""

    name: str  # breastmnist, phantom, or the path of an .npz, a folder or a table
    size: int
    path: Path | None  # None for phantom
    md5: str  # of the file, or of all that a folder or table holds; for phantom, of the words that describe it
    seed: int = 0  # of the phantoms, and of splits that are drawn
    kept: Path | None = None  # an earlier run's images.csv, whose splits are taken
    also: tuple["Source", ...] = ()  # other hospitals, all of whose images are for training

    @property
    def of_files(self) -> bool:
        """Whether the images are files of their own, in a folder or table."""
        return self.path is not None and (os.path.isdir(self.path) or self.path.suffix.lower() == ".csv")

    @property
    def folder(self) -> Path:
        """What the names of image files are relative to."""
        assert self.path is not None
        return self.path if os.path.isdir(self.path) else self.path.parent

    @property
    def synthetic(self) -> bool:
        return self.path is None or any(other.synthetic for other in self.also)

    @property
    def label(self) -> str:
        """What to call the data in tables and figures."""
        return self.notice or f"{self.called} {self.size}×{self.size}"

    @property
    def called(self) -> str:
        """The name of the data for people: of a table, its folder and its own."""
        if self.path is None:
            return "PHANTOM data"
        return "BreastMNIST" if self.name == "breastmnist" else file_name(self.path)

    @property
    def notice(self) -> str | None:
        """What every file of results on phantoms says of them; None for real images."""
        return notice(self.describe())

    def describe(self) -> dict:
        """What a run keeps of its source, enough to find it again; "also" only where there are other hospitals."""
        described = {"name": self.name, "size": self.size, "seed": self.seed, "md5": self.md5}
        also = {"also": [other.describe() for other in self.also]} if self.also else {}
        return described | {"synthetic": self.synthetic} | also


def file_name(path: str | Path) -> str:
    """What to call data in a file or folder: of a table, its folder and its own name."""
    path = Path(os.path.abspath(path))
    return f"{path.parent.name}/{path.name}" if path.suffix.lower() == ".csv" else path.name


def notice(described: dict) -> str | None:
    """What everything made from phantoms says of them; None for real images. described: as `Source.describe`."""
    side = described["size"]
    return f"PHANTOM data {side}×{side} (generated, not ultrasound)" if described["synthetic"] else None


def find(
    name: str, root: str | None, size: int, seed: int = 0, kept: Path | None = None, also: Sequence[str] = ()
) -> Source:
    """Locate (if need be, download) and identify the data.

    Args:
        name: "breastmnist", "phantom", the path of an .npz with MedMNIST's keys, or of a folder or table of images
            (`imageset`), which are prepared here.
        root: folder of MedMNIST's files; None for $MEDMNIST_ROOT, else ~/.medmnist.
        size: side of the images in pixels, one of SIZES.
        seed: of the phantoms, and of splits that are drawn.
        kept: an earlier run's images.csv, whose splits are taken.
        also: names of further data, all of whose images are for training.

    Raises: UserError when there is no such file and it cannot be downloaded, or of bad images.
    """
    if also:
        source, *others = find(name, root, size, seed, kept), *(find(other, root, size, seed) for other in also)
        require_different(source, *others)
        return replace(source, also=tuple(others))
    if name == "phantom":
        description = f"phantom size {size} seed {seed}"
        return Source(name, size, None, hashlib.md5(description.encode()).hexdigest(), seed)
    path = breastmnist_path(root, size) if name == "breastmnist" else Path(name)
    if (source := Source(name, size, path, "", seed)).of_files:
        found = imageset.load(path, size)
        known = kept if kept and imageset.is_known(found, kept) else None
        return replace(source, md5=found.fingerprint(seed), kept=known)
    if name == "breastmnist" and not path.exists():
        fetch(path, size)
    with reading(path, way_out="give a readable .npz file, a folder or a .csv of images, breastmnist or phantom"):
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(0, "not a file")
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
    if name == "breastmnist" and md5 != OFFICIAL_MD5[size]:
        print(f"warning: {path} is not the official file (MD5 {md5}); results cannot be compared", file=sys.stderr)
    return Source(name, size, path, md5)


def require_different(*sources: Source) -> None:
    """Raises: UserError when two of --data and --also are the same, or are called the same: they would be merged."""
    for i, other in enumerate(sources):
        for one in sources[:i]:
            if one.md5 == other.md5:
                raise UserError(f"--also {other.name}: the same images as those of {one.name}; name each data set once")
            if one.called == other.called:
                raise UserError(f"--also {other.name}: called {one.called} like {one.name}; rename one of them")


def load(source: Source, *names: str) -> list[Split]:
    """The named splits, in order; "all" is every image, "also" every one of the other hospitals. Only these are read:
    who does not ask for "test" never has it; but of image files all are prepared before they can be divided.

    Raises: UserError, as `npzfile.read` and `imageset`; train and val must hold both classes.
    """
    return [load_split(source, name) for name in names]


def load_split(source: Source, name: str) -> Split:
    """One of those that `load` takes. Each split of phantoms, of each seed, has a seed of its own."""
    if name == "also":
        return load_also(source)
    if name == "all" and not source.of_files:
        return concatenate(*load(source, *SPLITS))
    if source.path is None:
        seed = len(SPLITS) * source.seed + SPLITS.index(name)
        return Split.of(name, *phantom.generate(PHANTOM_COUNTS[name], source.size, seed))
    if source.of_files:
        split = file_split(source, name)
    else:
        split = Split.of(name, *npzfile.read(source.path, source.size, name))
    if name in ("train", "val"):
        require_both_classes(split.labels, f"{source.path}: {name}")
    return split


def further(source: Source) -> list[str]:
    """["also"] where there are other hospitals to train on, as `load` takes it."""
    return ["also"] if source.also else []


def load_also(source: Source) -> Split:
    """Every image of the other hospitals, whose names its rows have as "hospital". Raises: UserError, as `load`."""
    parts = [load(other, "all")[0] for other in source.also]
    known = [
        {"hospital": other.called, "patient": row.get("patient") and f"{other.called} {row['patient']}"}
        for other, part in zip(source.also, parts)
        for row in part.rows
    ]
    whole = concatenate(*parts)
    return Split.of("also", whole.images, whole.labels, known)


def image_rows(source: Source) -> list[dict]:
    """Which image file went where, for a run's images.csv (`imageset.ImageSet`)."""
    assert source.path is not None
    return imageset.divided(source.path, source.size, source.seed, source.kept).rows


def require(source: Source, *names: str) -> None:
    """Raises: UserError, before any training, when image files lack one of the splits that a script will read."""
    if source.of_files:
        load(source, *names)


def require_both_classes(labels: np.ndarray, what: str) -> None:
    """Raises: UserError. labels: [n] of what is named."""
    if len(np.unique(labels)) < 2:
        raise UserError(f"{what} holds one class only; it needs malignant and normal or benign images")


def file_split(source: Source, name: str) -> Split:
    """A split of image files, or all of them."""
    assert source.path is not None
    if name == "all" and not source.kept:
        found = imageset.load(source.path, source.size)
    else:
        found = imageset.divided(source.path, source.size, source.seed, source.kept)
        found = found if name == "all" else found.of_split(name)
    if not found.rows:
        raise UserError(f"{source.path}: {name} holds no images")
    known = [{"image": row["image"], "patient": row["patient"]} for row in found.rows]
    return Split.of(name, found.images, found.labels, known)
