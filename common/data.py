"""BreastMNIST, files like it, and phantoms, as uint8 arrays."""

import hashlib
import os
import sys
import tempfile
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import phantom
from common.errors import UserError, one_line

OFFICIAL_MD5 = {  # of medmnist.INFO["breastmnist"], whose import takes seconds
    28: "750601b1f35ba3300ea97c75c52ff8f6",
    64: "742edef2a1fd1524b2efff4bd7ba9364",
    128: "363e4b3f8d712e9b5de15470a2aaadf1",
    224: "b56378a6eefa9fed602bb16d192d4c8b",
}
SIZES = tuple(OFFICIAL_MD5)
SPLITS = ("train", "val", "test")
LARGEST = 4 << 30  # bytes of one array; a small compressed file can unpack to any number
PHANTOM_COUNTS = {"train": 300, "val": 80, "test": 160}


@dataclass(frozen=True)
class Split:
    """images: uint8 [n, size, size]; labels: uint8 [n], 1 for malignant."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> "Split":
        return Split(self.images[index], self.labels[index])


def concatenate(*splits: Split) -> Split:
    """The images of several splits, one after the other."""
    return Split(np.concatenate([s.images for s in splits]), np.concatenate([s.labels for s in splits]))


@dataclass(frozen=True)
class Source:
    """Where images come from: what --data, --data-root, --size and --seed name. Reading is `load`'s."""

    name: str  # breastmnist, phantom, or the path of an .npz
    size: int
    path: Path | None  # None for phantom
    md5: str  # of the file; for phantom, of the words that describe it
    seed: int = 0  # of the phantoms

    @property
    def synthetic(self) -> bool:
        return self.path is None

    @property
    def label(self) -> str:
        """What to call the data in tables and figures."""
        name = self.path.name if self.path and self.name != "breastmnist" else "BreastMNIST"
        return self.notice or f"{name} {self.size}×{self.size}"

    @property
    def notice(self) -> str | None:
        """What every file of results on phantoms says of them; None for real images."""
        return notice(self.describe())

    def describe(self) -> dict:
        """What a run keeps of its source, enough to find it again."""
        return {
            "name": self.name, "size": self.size, "seed": self.seed, "md5": self.md5, "synthetic": self.synthetic
        }  # fmt: skip


def notice(described: dict) -> str | None:
    """What everything made from phantoms says of them; None for real images. described: as `Source.describe`."""
    side = described["size"]
    return f"PHANTOM data {side}×{side} (generated, not ultrasound)" if described["synthetic"] else None


def find(name: str, root: str | None, size: int, seed: int = 0) -> Source:
    """Locate (if need be, download) and identify the data.

    Args:
        name: "breastmnist", "phantom", or the path of an .npz with MedMNIST's keys.
        root: folder of MedMNIST's files; None for $MEDMNIST_ROOT, else ~/.medmnist.
        size: side of the images in pixels, one of SIZES.
        seed: of the phantoms.

    Raises: UserError when there is no such file and it cannot be downloaded.
    """
    if name == "phantom":
        description = f"phantom size {size} seed {seed}"
        return Source(name, size, None, hashlib.md5(description.encode()).hexdigest(), seed)
    path = breastmnist_path(root, size) if name == "breastmnist" else Path(name)
    if name == "breastmnist" and not path.exists():
        download(path, size)
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "not a file")
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give --data a readable .npz file") from None
    if name == "breastmnist" and md5 != OFFICIAL_MD5[size]:
        print(f"warning: {path} is not the official file (MD5 {md5}); results cannot be compared", file=sys.stderr)
    return Source(name, size, path, md5)


def find_again(described: dict, name: str | None, root: str | None, size: int | None, seed: int | None) -> Source:
    """The source of a run from its `describe()`; what is not None is taken instead. Other data than the run's are named
    in a warning. Raises: UserError, as `find`."""
    given: dict[str, Any] = {"name": name, "size": size, "seed": seed}
    wanted = {key: described[key] if value is None else value for key, value in given.items()}
    source = find(root=root, **wanted)
    if source.md5 != described["md5"]:
        was = f"{described['name']}, MD5 {described['md5']}"
        now = f"{source.label}, MD5 {source.md5},"
        print(f"warning: {now} is not what the model was trained on ({was})", file=sys.stderr)
    return source


def same_images(described: dict, source: Source) -> bool:
    """Whether a source has the images that a `describe()` is of, perhaps at another size: then the MD5 differs, but is
    also an official one, or of phantoms of the same seed."""
    official = {described["md5"], source.md5} <= set(OFFICIAL_MD5.values())
    phantoms = described["synthetic"] and source.synthetic and described["seed"] == source.seed
    return described["md5"] == source.md5 or official or phantoms


def describes_data(data) -> bool:
    """Whether a value out of a file is what `Source.describe` gives, and "trained_on"."""
    kinds = {"name": str, "size": int, "seed": int, "md5": str, "synthetic": bool, "trained_on": list}
    known = isinstance(data, dict) and all(type(data.get(key)) is kind for key, kind in kinds.items())
    return known and data["size"] in SIZES


def breastmnist_path(root: str | None, size: int) -> Path:
    """Where BreastMNIST of a size lies, or will."""
    folder = Path(root or os.environ.get("MEDMNIST_ROOT") or Path.home() / ".medmnist")
    return folder / ("breastmnist.npz" if size == 28 else f"breastmnist_{size}.npz")


def download(path: Path, size: int) -> None:
    """Fetch BreastMNIST with medmnist, which checks the MD5, into a folder of its own, then move it to `path`: a
    download that was cut off leaves nothing. Raises: UserError."""
    import medmnist  # takes seconds, for scikit-learn

    new = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as beside, redirect_stdout(sys.stderr):
            medmnist.BreastMNIST(split="train", download=True, root=beside, size=size)
            os.replace(Path(beside) / path.name, path)
    except (RuntimeError, OSError) as error:
        reason = error if isinstance(error, OSError) else error.__context__  # medmnist's own text is a long manual
        if isinstance(reason, KeyboardInterrupt):  # which medmnist takes for a failed download
            raise reason from None
        raise UserError(
            f"{path} is absent and cannot be downloaded ({reason}); give --data-root (or MEDMNIST_ROOT) a folder "
            f"that holds it, or try --data phantom --weights none, which needs no network"
        ) from None
    finally:
        if new:
            with suppress(OSError):  # it holds the file, or could not be made
                path.parent.rmdir()


def load(source: Source, *names: str) -> list[Split]:
    """The named splits, in order. Only these are read: who does not ask for "test" never has it.

    Raises: UserError when the file is corrupt, lacks a key, or holds something else than grey uint8 images of the
        source's size with labels 0 and 1; train and val must hold both classes.
    """
    if source.path is None:
        return [phantom_split(source, name) for name in names]
    try:
        with np.load(source.path, allow_pickle=False) as arrays:
            if any(member.file_size > LARGEST for member in arrays.zip.infolist()):
                raise UserError(f"{source.path}: an array in it unpacks to more than {LARGEST >> 30} GiB")
            return [read_split(arrays, name, source) for name in names]
    except UserError:
        raise
    except Exception as error:  # numpy and zipfile raise anything on a damaged file, on several lines too
        reason = one_line(str(error))
        raise UserError(f"{source.path}: not a readable .npz file ({reason}); download it again or check it") from None


def phantom_split(source: Source, name: str) -> Split:
    """A split of phantoms, each split of each seed from a seed of its own."""
    seed = len(SPLITS) * source.seed + SPLITS.index(name)
    return Split(*phantom.generate(PHANTOM_COUNTS[name], source.size, seed))


def read_split(arrays, name: str, source: Source) -> Split:
    """One split of an open .npz, checked. This is where the label flips: MedMNIST stores 0 for malignant."""
    missing = [f"{s}_{part}" for s in SPLITS for part in ("images", "labels") if f"{s}_{part}" not in arrays]
    if missing:
        raise UserError(f"{source.path}: lacks {', '.join(missing)}; an .npz needs MedMNIST's six keys")
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    if problem := find_problem(images, labels, name, source.size):
        raise UserError(f"{source.path}: {problem}")
    return Split(images, (1 - labels.reshape(-1)).astype(np.uint8))


def find_problem(images: np.ndarray, labels: np.ndarray, name: str, size: int) -> str | None:
    """What is wrong with a split as stored, in words; None if nothing is."""
    if images.dtype != np.uint8:
        return f"{name}_images are {images.dtype}; they must be uint8, 0 to 255"
    if images.ndim != 3 or images.shape[1:] != (size, size):
        fitting = [s for s in SIZES if images.shape[1:] == (s, s)]
        way_out = f"use --size {fitting[0]}" if fitting else f"grey images of --size {size} are [n, {size}, {size}]"
        return f"{name}_images have shape {list(images.shape)}; {way_out}"
    if len(images) == 0:
        return f"{name} holds no images"
    if labels.shape not in ((len(images),), (len(images), 1)):
        return f"{name}_labels have shape {list(labels.shape)}; {len(images)} images need [{len(images)}, 1]"
    if labels.dtype.kind not in "iub" or not np.isin(labels, (0, 1)).all():
        return f"{name}_labels must be whole numbers 0 (malignant) or 1 (normal or benign)"
    if name != "test" and len(np.unique(labels)) < 2:
        return f"{name} holds one class only; it needs malignant (0) and normal or benign (1) images"
    return None
