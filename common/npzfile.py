"""Download BreastMNIST, and read the splits of an .npz file with the keys of MedMNIST."""

import hashlib
import os
import sys
import tempfile
import tokenize
from contextlib import suppress
from pathlib import Path

import numpy as np

from common import download
from common.errors import FORMAT_ERRORS, UserError, one_line, reading

OFFICIAL_MD5 = {  # copied from medmnist.INFO["breastmnist"], because the import of medmnist takes seconds
    28: "750601b1f35ba3300ea97c75c52ff8f6",
    64: "742edef2a1fd1524b2efff4bd7ba9364",
    128: "363e4b3f8d712e9b5de15470a2aaadf1",
    224: "b56378a6eefa9fed602bb16d192d4c8b",
}
SIZES = tuple(OFFICIAL_MD5)
SPLITS = ("train", "val", "test")
LARGEST = 4 << 30  # limit of one array in bytes, because a small compressed file can unpack to any size


def breastmnist_path(root: str | None, size: int) -> Path:
    """Return the path of BreastMNIST in a size; the file may be absent. root: None for MEDMNIST_ROOT or ~/.medmnist."""
    folder = Path(root or os.environ.get("MEDMNIST_ROOT") or Path.home() / ".medmnist")
    return folder / ("breastmnist.npz" if size == 28 else f"breastmnist_{size}.npz")


def fetch(path: Path, size: int) -> None:
    """Download BreastMNIST to `path` with medmnist, which checks the MD5. Raises: UserError.

    The download goes to a temporary folder first, so that an interrupted download leaves nothing.
    """
    import medmnist  # imported late, because scikit-learn takes seconds

    new, url = not path.parent.exists(), medmnist.INFO["breastmnist"]["url" if size == 28 else f"url_{size}"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as beside, download.limited(url):
            medmnist.BreastMNIST(split="train", download=True, root=beside, size=size)
            os.replace(Path(beside) / path.name, path)
    except (RuntimeError, OSError) as error:
        reason = error if isinstance(error, OSError) else error.__context__  # the text of medmnist is a long manual
        if isinstance(reason, KeyboardInterrupt):  # medmnist takes Ctrl-C for a failed download
            raise reason from None
        raise UserError(
            f"{path}: BreastMNIST cannot be downloaded ({one_line(str(reason))}). Save {url} there, or name its folder "
            "with --data-root, or give --data phantom --weights none, which need no network."
        ) from None
    finally:
        if new:
            with suppress(OSError):  # the folder holds the file, or could not be made
                path.parent.rmdir()


def identify(path: Path, size: int, official: bool) -> str:
    """Return the MD5 of a file. Raises: UserError.

    Args: official: the file is BreastMNIST, which is downloaded if absent. Another MD5 gives a warning.
    """
    if official and not path.exists():
        fetch(path, size)
    with reading(path, way_out="give a readable .npz file, a folder or a .csv of images, breastmnist or phantom"):
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(0, "not a file")
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
    if official and md5 != OFFICIAL_MD5[size]:
        print(f"warning: {path} is not the official file (MD5 {md5}). Do not compare its results", file=sys.stderr)
    return md5


def read(path: Path, size: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the images and labels of one split. Other splits are not read.

    MedMNIST stores 0 for malignant; the label is flipped here. A file without val gives no images for val.

    Returns: images uint8 [n, size, size]; labels uint8 [n], 1 for malignant.
    Raises: UserError when the file is damaged, lacks a key, or has anything but grey uint8 images of this size with
        labels 0 and 1.
    """
    needed = [f"{split}_{part}" for split in SPLITS for part in ("images", "labels")]
    errors = (*FORMAT_ERRORS, tokenize.TokenError)  # numpy parses headers of arrays as Python
    readable = reading(path, "is not a readable .npz file", "check the file, or download the file again", errors)
    with readable, np.load(path, allow_pickle=False) as arrays:
        if any(member.file_size > LARGEST for member in arrays.zip.infolist()):
            raise UserError(f"{path}: holds an array of more than {LARGEST >> 30} GiB. Check the file.")
        missing = [key for key in needed if key not in arrays]
        if missing and missing != ["val_images", "val_labels"]:
            raise UserError(f"{path}: has no {', '.join(missing)}. Use MedMNIST's keys, such as train_images.")
        if missing and name == "val":
            return np.empty((0, size, size), np.uint8), np.empty(0, np.uint8)
        images, labels = (np.asarray(arrays[f"{name}_{part}"]) for part in ("images", "labels"))  # may be bytes
        if problem := find_problem(images, labels, name, size):
            raise UserError(f"{path}: {problem}")
    return images, (1 - labels.reshape(-1)).astype(np.uint8)


def find_problem(images: np.ndarray, labels: np.ndarray, name: str, size: int) -> str | None:
    """Return in words what is wrong with a split as stored; None if nothing is wrong."""
    if images.dtype != np.uint8:
        return f"{name}_images are {images.dtype}. Use uint8, from 0 to 255."
    if images.ndim != 3 or images.shape[1:] != (size, size):
        fitting = [s for s in SIZES if images.shape[1:] == (s, s)]
        advice = f"Give --size {fitting[0]}." if fitting else f"Grey images of --size {size} are [n, {size}, {size}]."
        return f"{name}_images have shape {list(images.shape)}. {advice}"
    if len(images) == 0:
        return f"{name} holds no images. Add images."
    if labels.shape not in ((len(images),), (len(images), 1)):
        return f"{name}_labels have shape {list(labels.shape)}. For {len(images)} images, use [{len(images)}, 1]."
    if labels.dtype.kind not in "iub" or not np.isin(labels, (0, 1)).all():
        return f"{name}_labels hold other values than 0 and 1. Use 0 for malignant, and 1 for normal or benign."
    return None
