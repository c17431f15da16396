"""Images of one's own, in folders or in a table: which files, what they show, whose they are, and their splits.

A FOLDER follows torchvision's ImageFolder: images below a folder `malignant`, in any depth, are malignant, those below
any other folder are not; BUSI works as it is downloaded, its `*_mask*` files are left out. A FILE.csv has the columns
`image,label` and, where known, `patient` and `split`; paths are relative to the file.
"""

import csv
import hashlib
import os
import sys
import warnings
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

    def fingerprint(self, seed: int) -> str:
        """MD5 of all that the set says: names, contents, labels, patients, splits or the seed that draws them."""
        drawn = [] if all(self.split) else [f"seed {seed}"]
        parts = [f"{e.name}\t{md5}\t{e.label}\t{e.patient}\t{e.split}" for e, md5 in zip(self.entries, self.md5)]
        return hashlib.md5("\n".join(parts + drawn).encode()).hexdigest()

    def rows(self) -> list[dict]:
        """What a run's images.csv keeps: {"image", "md5", "label", "patient", "split"} of each image."""
        return [
            {"image": entry.name, "md5": str(md5), "label": entry.label, "patient": entry.patient, "split": str(split)}
            for entry, md5, split in zip(self.entries, self.md5, self.split)
        ]

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
    files = [Path(path).relative_to(folder) for path in imagefile.find([folder])]
    files = [path for path in files if not any(part.startswith(".") for part in path.parts)]
    masks = [path for path in files if "_mask" in path.name]
    if masks:
        print(f"note: {folder}: {len(masks)} files named *_mask* are left out", file=sys.stderr)
    found = sorted(set(files) - set(masks))
    if loose := [str(path) for path in found if len(path.parts) == 1]:
        raise UserError(f"{folder}: {shortened(loose)}: in no class; put each image into a folder of its class")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
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
    for number, row in enumerate(rows, 2):  # the header is row 1; empty lines do not count
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
    name = os.path.normpath(cells["image"])
    inside = os.path.realpath(folder / name.replace("\0", "")).startswith(os.path.realpath(folder) + os.sep)
    if not cells["image"] or "\0" in name or not inside and name != ".":
        raise UserError(f"{where}: image {cells['image']!r} is not inside {folder}/")
    if not os.path.isfile(folder / name):
        raise UserError(f"{where}: image {cells['image']!r} is no file")
    return Entry(folder / name, name, LABELS[cells["label"].casefold()], cells.get("patient", ""), split)


def check_patients(entries: list[Entry], table: Path) -> None:
    """Raises: UserError when a split column divides a patient."""
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
        frames = imagefile.frames(entry.path)
        image = next(frames)
        if next(frames, None) is not None:
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
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings(action="ignore"):  # of flaws that do no harm
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
    except UserError:
        needed = "that needs ten separate images (patients, where known) of each class, or a column split in a table"
        raise UserError(f"{where}: cannot be divided into train, val and test; {needed}") from None


def read_kept(kept: Path) -> dict[str, dict]:
    """{image: its row} of a run's images.csv. Raises: UserError when it is damaged."""
    try:
        with open(kept, newline="", errors="surrogateescape") as file:
            rows = {row["image"]: row for row in csv.DictReader(file)}
        if not all(row["split"] in ("train", "val", "test") and row["md5"] and row["label"] for row in rows.values()):
            raise KeyError
    except (OSError, csv.Error, KeyError):
        raise UserError(f"{kept}: damaged; train the run again") from None
    return rows


def is_known(found: ImageSet, kept: Path) -> bool:
    """Whether some of the images are those that a run used, wherever they lie now."""
    before = read_kept(kept)
    return any(
        entry.name in before and before[entry.name]["md5"] == md5 for entry, md5 in zip(found.entries, found.md5)
    )


def keep_splits(found: ImageSet, kept: Path) -> ImageSet:
    """The images that a run used, each in the split where it was then; what has changed since is said in warnings.

    Args: kept: the run's images.csv. Raises: UserError.
    """
    before, now = read_kept(kept), found.rows()
    was = [before.get(row["image"]) for row in now]
    names = {row["image"] for row in now}
    told = ("md5", "label", "patient")
    changes = {
        "have changed since": [r["image"] for r, b in zip(now, was) if b and any(str(r[k]) != b.get(k) for k in told)],
        "are gone": sorted(before.keys() - names),
        "are new, and left out": sorted(names - before.keys()),
    }
    for what, changed in changes.items():
        if changed:
            said = f"{len(changed)} {what}: {shortened(changed)}"
            print(f"warning: of the images that the run used, {said}", file=sys.stderr)
    splits = np.array([row["split"] if row else "" for row in was])
    return replace(found, split=splits).only(splits != "")


@lru_cache(maxsize=2)  # splits are asked for one after the other
def load(path: Path, size: int) -> ImageSet:
    """Every image of a FOLDER or a table, prepared at `size`; `split` as the table has it. Raises: UserError."""
    try:
        entries = list_folder(path) if os.path.isdir(path) else list_table(path)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if unwritable := [entry.name for entry in entries if not entry.name.isprintable()]:
        raise UserError(
            f"{path}: file names with characters that cannot be printed: {shortened([*map(ascii, unwritable)])}"
        )
    images, md5 = read(entries, size, cpu_count(), path)
    return ImageSet(path, images, md5, entries, np.array([entry.split for entry in entries]))


@lru_cache(maxsize=2)
def divided(path: Path, size: int, seed: int, kept: Path | None = None) -> ImageSet:
    """The images in the splits of an earlier run, of their table, or drawn from a seed. kept: the run's images.csv.
    Raises: UserError."""
    found = load(path, size)
    if kept:
        return keep_splits(found, kept)
    if all(found.split):
        return found
    labels = np.array([entry.label for entry in found.entries])
    groups = twins.find_groups(found.images, [entry.patient for entry in found.entries])
    return replace(found, split=draw_splits(labels, groups, seed, path))
