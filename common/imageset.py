"""Images of one's own, in folders or in a table: which files, what they show, whose they are, and their splits.

A FOLDER follows torchvision's ImageFolder: images below a folder `malignant`, in any depth, are malignant, those below
any other folder are not; BUSI works as it is downloaded, its `*_mask*` files are left out. A FILE.csv has the columns
`image,label` and, where known, `patient` and `split`; paths are relative to the file.
"""

import csv
import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from common import imagefile, twins
from common.errors import UserError
from common.folds import assign_folds
from common.parallel import cpu_count

LABELS = {"malignant": 1, "1": 1, "benign": 0, "normal": 0, "0": 0}
SPLIT_OF_TENTH = ["train"] * 7 + ["val"] + ["test"] * 2
NAMED = 20  # of a long list, in a message


@dataclass(frozen=True)
class Entry:
    """An image: its file; `name`, the path as results have it; 1 for malignant; patient and split, "" where unknown."""

    path: Path
    name: str
    label: int
    patient: str = ""
    split: str = ""


@dataclass(frozen=True)
class ImageSet:
    """images: uint8 [n, size, size], as a model takes them; md5: of each file, text [n]; split: names [n], "" where
    there is none."""

    path: Path
    images: np.ndarray
    md5: np.ndarray
    entries: list[Entry]
    split: np.ndarray

    @property
    def fingerprint(self) -> str:
        """MD5 of all that the set says: names, contents, labels, patients and splits."""
        parts = [f"{e.name}\t{md5}\t{e.label}\t{e.patient}\t{e.split}" for e, md5 in zip(self.entries, self.md5)]
        return hashlib.md5("\n".join(parts).encode(errors="surrogateescape")).hexdigest()

    def only(self, chosen: np.ndarray) -> "ImageSet":
        """Some of the images. chosen: bool [n]."""
        entries = [entry for entry, keep in zip(self.entries, chosen) if keep]
        return ImageSet(self.path, self.images[chosen], self.md5[chosen], entries, self.split[chosen])


def shortened(items: list[str]) -> str:
    """Items with commas between, the first few of many."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def list_folder(folder: Path) -> list[Entry]:
    """The images below a folder a class. Raises: UserError without a folder `malignant`, or with one that is empty."""
    files = [path.relative_to(folder) for path in imagefile.find([folder])]
    masks = [path for path in files if "_mask" in path.name]
    if masks:
        print(f"note: {folder}: {len(masks)} files named *_mask* are left out", file=sys.stderr)
    found = sorted(set(files) - set(masks))
    if loose := [str(path) for path in found if len(path.parts) == 1]:
        raise UserError(f"{folder}: {shortened(loose)}: in no class; put each image into a folder of its class")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    if empty := [name for name in classes if not any(path.parts[0] == name for path in found)]:
        raise UserError(f"{folder}: no image in {shortened(empty)}; remove the folder, or put images into it")
    malignant = ["malignant" in (part.casefold() for part in path.parent.parts) for path in found]
    if not any(malignant) or all(malignant):
        raise UserError(f"{folder}: needs a folder malignant/ and at least one other, each with images")
    return [Entry(folder / path, str(path), int(positive)) for path, positive in zip(found, malignant)]


def list_table(table: Path) -> list[Entry]:
    """The images that a table names. Raises: UserError, with the row, on what cannot be meant."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not rows or not {"image", "label"} <= rows[0].keys():
        raise UserError(f"{table}: no table of images; it needs the columns image,label (and may have patient,split)")
    seen: dict[str, Entry] = {}
    for number, row in enumerate(rows, 2):  # the header is row 1
        entry = entry_of(row, f"{table}, row {number}", table.parent)
        earlier = seen.setdefault(entry.name, entry)
        if earlier != entry:
            raise UserError(
                f"{table}, row {number}: {entry.name} is there before, with another label, patient or split"
            )
    check_patients(list(seen.values()), table)
    return list(seen.values())


def entry_of(row: dict, where: str, folder: Path) -> Entry:
    """A row of a table. Raises: UserError."""
    if None in row or None in row.values():
        raise UserError(f"{where}: has more or fewer cells than the header")
    cells = {column: cell.strip() for column, cell in row.items()}
    if cells["label"].casefold() not in LABELS:
        raise UserError(f"{where}: label {cells['label']!r} is none of malignant, benign, normal, 1, 0")
    if (split := cells.get("split", "")) not in ("train", "val", "test") and "split" in cells:
        raise UserError(f"{where}: split {split!r} is none of train, val, test")
    path = folder / cells["image"].replace("\0", "")
    if not cells["image"] or "\0" in cells["image"] or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{where}: image {cells['image']!r} is not inside {folder}/")
    if not path.is_file():
        raise UserError(f"{where}: image {cells['image']!r} is no file")
    return Entry(path, cells["image"], LABELS[cells["label"].casefold()], cells.get("patient", ""), split)


def check_patients(entries: list[Entry], table: Path) -> None:
    """Raises: UserError when a split column divides a patient, or leaves some rows out."""
    splits: dict[str, set] = {}
    for entry in entries:
        splits.setdefault(entry.patient, set()).add(entry.split)
    divided = [patient for patient, names in splits.items() if patient and len(names) > 1]
    if divided:
        raise UserError(f"{table}: images of patient {shortened(divided)} are in several splits")


def prepare(entry: Entry, size: int) -> tuple[np.ndarray, str] | UserError:
    """(image as MedMNIST prepared its own, uint8 [size, size]; MD5 of the file), or why there is none."""
    try:
        with open(entry.path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        image, *more = imagefile.frames(entry.path)
        if more:
            raise UserError("holds several pictures; save each in a file of its own")
        return imagefile.prepare(image, size), md5
    except OSError as error:
        return UserError(f"cannot be read ({error.strerror or error})")
    except UserError as error:
        return error


def read(entries: list[Entry], size: int, threads: int, where: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode and prepare every file, several at once: (images uint8 [n, size, size], MD5s [n]). Memory is that of the
    prepared images. Raises: UserError when one is bad, after all bad ones are named on stderr."""
    from common.progress import shown  # predict.py, which needs no tqdm, imports this file

    images, md5s, bad = np.empty((len(entries), size, size), np.uint8), [], 0
    with ThreadPoolExecutor(threads) as pool:
        prepared = pool.map(lambda entry: prepare(entry, size), entries)
        for i, result in enumerate(shown(prepared, "prepared", len(entries))):
            if isinstance(result, UserError):
                print(f"warning: {entries[i].path} {result}", file=sys.stderr)
                bad += 1
            else:
                images[i] = result[0]
                md5s.append(result[1])
    if bad:
        raise UserError(f"{where}: {bad} of {len(entries)} images cannot be used (named above); mend or remove them")
    return images, np.array(md5s)


def draw_splits(labels: np.ndarray, groups: np.ndarray, seed: int, where: Path) -> np.ndarray:
    """Train, val and test, 70, 10 and 20 %, stratified by class and with groups kept whole: names [n].
    Raises: UserError when a class has fewer than ten groups."""
    try:
        return np.array(SPLIT_OF_TENTH)[assign_folds(labels, groups, len(SPLIT_OF_TENTH), seed)]
    except UserError as error:
        raise UserError(f"{where}: cannot be divided into train, val and test: {error}") from None


def keep_splits(found: ImageSet, kept: Path) -> ImageSet:
    """The images that a run used, each in the split where it was then; what has changed since is said in warnings.

    Args: kept: the run's images.csv. Raises: UserError when none of them is there.
    """
    with open(kept, newline="") as file:
        before = {row["image"]: row for row in csv.DictReader(file)}
    was = [before.get(entry.name) for entry in found.entries]
    now = {entry.name for entry in found.entries}
    changes = {
        "have changed since": [
            entry.name for entry, row, md5 in zip(found.entries, was, found.md5) if row and row["md5"] != md5
        ],
        "are gone": sorted(before.keys() - now),
        "are new, and left out": sorted(now - before.keys()),
    }
    for what, names in changes.items():
        if names:
            print(f"warning: of the images that the run used, {len(names)} {what}: {shortened(names)}", file=sys.stderr)
    here = np.array([row is not None for row in was], bool)
    if not here.any():
        raise UserError(f"{kept}: none of the images that the run used are there; give their folder or table to --data")
    splits = np.array([row["split"] if row else "" for row in was])
    return replace(found, split=splits).only(here)


@lru_cache(maxsize=2)  # splits are asked for one after the other
def load(path: Path, size: int) -> ImageSet:
    """Every image of a FOLDER or a table, prepared at `size`; `split` as the table has it. Raises: UserError."""
    entries = list_folder(path) if path.is_dir() else list_table(path)
    images, md5 = read(entries, size, cpu_count(), path)
    return ImageSet(path, images, md5, entries, np.array([entry.split for entry in entries]))


def divide(found: ImageSet, seed: int, kept: Path | None = None) -> ImageSet:
    """The images in the splits of an earlier run, of their table, or drawn from a seed. kept: the run's images.csv.
    Raises: UserError."""
    if kept:
        return keep_splits(found, kept)
    if all(found.split):
        return found
    labels = np.array([entry.label for entry in found.entries])
    groups = twins.find_groups(found.images, [entry.patient for entry in found.entries])
    return replace(found, split=draw_splits(labels, groups, seed, found.path))
