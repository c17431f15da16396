"""Images of one's own, in folders or in a table: which files, what they show, whose they are, and their splits.

A FOLDER follows torchvision's ImageFolder: images below a folder `malignant`, in any depth, are malignant, those below
any other folder are not; BUSI works as it is downloaded, its `*_mask*` files are left out. A FILE.csv has the columns
`image,label` and, where known, `patient` and `split`; paths are relative to the file.
"""

import csv
import hashlib
import itertools
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from common import duplicates, imagefile
from common.errors import UserError, reading
from common.folds import assign_folds
from common.npzfile import SPLITS
from common.parallel import cpu_count

LABELS = {"malignant": 1, "1": 1, "benign": 0, "normal": 0, "0": 0}
SPLIT_OF_TENTH = ["train"] * 7 + ["val"] + ["test"] * 2
NAMED = 20  # of a long list, in a message


@dataclass(frozen=True)
class ImageSet:
    """images: uint8 [n, size, size], as a model takes them; rows: of each, what a run's images.csv keeps: {"image": the
    path as results have it, "md5": of the file, "label": 1 for malignant, "patient" and "split": "" where unknown}."""

    images: np.ndarray
    rows: list[dict]

    @property
    def labels(self) -> np.ndarray:
        """uint8 [n]."""
        return np.array([row["label"] for row in self.rows], np.uint8)

    def fingerprint(self, seed: int) -> str:
        """MD5 of all that the set says: names, contents, labels, patients, splits or the seed that draws them."""
        drawn = [] if all(row["split"] for row in self.rows) else [f"seed {seed}"]
        parts = ["\t".join(map(str, row.values())) for row in self.rows]
        return hashlib.md5("\n".join(parts + drawn).encode()).hexdigest()

    def of_split(self, *names: str) -> "ImageSet":
        """The images of some splits."""
        chosen = [i for i, row in enumerate(self.rows) if row["split"] in names]
        return ImageSet(self.images[chosen], [self.rows[i] for i in chosen])


def shortened(items: list[str]) -> str:
    """Items with commas between, the first few of many."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def row_of(name: str, label: int, patient: str = "", split: str = "") -> dict:
    """A row of `ImageSet`; its file is not read as yet."""
    return {"image": name, "md5": "", "label": label, "patient": patient, "split": split}


def list_folder(folder: Path) -> list[dict]:
    """The images below a folder a class. Raises: UserError without a folder `malignant`, or with one that is empty."""
    files = [path.relative_to(folder) for path in imagefile.list_folder(folder, class_folders=True).images]
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
    return [row_of(str(path), int(positive)) for path, positive in zip(found, malignant)]


def list_table(table: Path) -> list[dict]:
    """The images that a table names. Raises: UserError, with the row, on what cannot be meant."""
    needed = "it needs the columns image,label (and may have patient,split)"
    with reading(table, "no table of images", needed), open(table, newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    if not lines or not {"image", "label"} <= lines[0].keys():
        raise UserError(f"{table}: no table of images; {needed}")
    seen: dict[str, dict] = {}
    splits: dict[str, set] = {}
    for number, line in enumerate(lines, 2):  # the header is row 1; empty lines do not count
        where = f"{table}, row {number}"
        row = read_line(line, where, table.parent)
        if seen.setdefault(row["image"], row) != row:
            raise UserError(f"{where}: {row['image']} is there before, with another label, patient or split")
        splits.setdefault(row["patient"], set()).add(row["split"])
    if divided := [patient for patient, names in splits.items() if patient and len(names) > 1]:
        raise UserError(f"{table}: images of patient {shortened(divided)} are in several splits")
    return list(seen.values())


def read_line(line: dict, where: str, folder: Path) -> dict:
    """A row of a table. Raises: UserError."""
    if None in line or None in line.values():
        raise UserError(f"{where}: has more or fewer cells than the header")
    cells = {column: cell.strip() for column, cell in line.items()}
    if (label := cells["label"].casefold()) not in LABELS:
        raise UserError(f"{where}: label {cells['label']!r} is none of malignant, benign, normal, 1, 0")
    if (split := cells.get("split", "")) not in SPLITS and "split" in cells:
        raise UserError(f"{where}: split {split!r} is none of train, val, test")
    name = os.path.normpath(cells["image"])
    inside = os.path.realpath(folder / name.replace("\0", "")).startswith(os.path.realpath(folder) + os.sep)
    if not cells["image"] or "\0" in name or not inside and name != ".":
        raise UserError(f"{where}: image {cells['image']!r} is not inside {folder}/")
    if not os.path.isfile(folder / name):
        raise UserError(f"{where}: image {cells['image']!r} is no file")
    return row_of(name, LABELS[label], cells.get("patient", ""), split)


def prepare(path: Path, size: int) -> tuple[np.ndarray, str] | UserError:
    """(image as MedMNIST prepared its own, uint8 [size, size]; MD5 of the file), or why there is none."""
    try:
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        image, *more = itertools.islice(imagefile.frames(path), 2)
        if more:
            raise UserError("holds several pictures; save each in a file of its own")
        return imagefile.prepare(image, size), md5
    except OSError as error:
        return UserError(f"cannot be read ({error.strerror or error})")
    except UserError as error:
        return error


def read(folder: Path, rows: list[dict], size: int, where: Path) -> ImageSet:
    """Decode and prepare every file, several at once; memory is that of the prepared images.
    Raises: UserError when one is bad, after all bad ones are named on stderr."""
    from common.progress import shown  # predict.py, which needs no tqdm, imports this file

    images, known, paths = np.empty((len(rows), size, size), np.uint8), [], [folder / row["image"] for row in rows]
    with ThreadPoolExecutor(cpu_count()) as pool, warnings.catch_warnings(action="ignore"):  # of harmless flaws
        prepared = pool.map(lambda path: prepare(path, size), paths)
        for i, result in enumerate(shown(prepared, "prepared", len(rows))):
            if isinstance(result, UserError):
                print(f"warning: {paths[i]} {result}", file=sys.stderr)
            else:
                images[i], md5 = result
                known.append(rows[i] | {"md5": md5})
    if bad := len(rows) - len(known):
        raise UserError(f"{where}: {bad} of {len(rows)} images cannot be used (named above); mend or remove them")
    return ImageSet(images, known)


def read_kept(kept: Path) -> dict[str, dict]:
    """{image: its row} of a run's images.csv. Raises: UserError when it is damaged."""
    with reading(kept), open(kept, newline="", errors="surrogateescape") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
        if not all(row["split"] in SPLITS and row["md5"] and row["label"] for row in rows.values()):
            raise ValueError("a cell is empty")
    return rows


def is_known(found: ImageSet, kept: Path) -> bool:
    """Whether some of the images are those that a run used, wherever they lie now."""
    before = read_kept(kept)
    return any(row["image"] in before and before[row["image"]]["md5"] == row["md5"] for row in found.rows)


def keep_splits(found: ImageSet, kept: Path) -> ImageSet:
    """The images that a run used, each in the split where it was then, of the run's images.csv; what has changed since
    is said in warnings. Raises: UserError."""
    before, now = read_kept(kept), {row["image"]: row for row in found.rows}
    both = [name for name in now if name in before]
    changes = {
        "have changed since": [
            name for name in both if any(str(now[name][k]) != before[name].get(k) for k in ("md5", "label", "patient"))
        ],
        "are gone": sorted(before.keys() - now.keys()),
        "are new, and left out": sorted(now.keys() - before.keys()),
    }
    for what, changed in changes.items():
        if changed:
            said = f"{len(changed)} {what}: {shortened(changed)}"
            print(f"warning: of the images that the run used, {said}", file=sys.stderr)
    return with_splits(found, [before.get(name, {"split": ""})["split"] for name in now]).of_split(*SPLITS)


def with_splits(found: ImageSet, splits) -> ImageSet:
    """The images in other splits."""
    return ImageSet(found.images, [row | {"split": str(split)} for row, split in zip(found.rows, splits)])


@lru_cache(maxsize=8)  # splits are asked for one after the other, of several sets
def load(path: Path, size: int) -> ImageSet:
    """Every image of a FOLDER or a table, prepared at `size`; splits as the table has them. Raises: UserError."""
    try:
        folder, rows = (path, list_folder(path)) if os.path.isdir(path) else (path.parent, list_table(path))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if unwritable := [ascii(row["image"]) for row in rows if not row["image"].isprintable()]:
        raise UserError(f"{path}: file names with characters that cannot be printed: {shortened(unwritable)}")
    return read(folder, rows, size, path)


@lru_cache(maxsize=8)
def divided(path: Path, size: int, seed: int, kept: Path | None = None) -> ImageSet:
    """The images in the splits of an earlier run, of their table, or drawn from a seed: 70, 10 and 20 %, stratified by
    class and with groups kept whole. kept: the run's images.csv. Raises: UserError."""
    found = load(path, size)
    if kept:
        return keep_splits(found, kept)
    if all(row["split"] for row in found.rows):
        return found
    groups = duplicates.find_groups(found.images, [row["patient"] for row in found.rows])
    try:
        tenths = assign_folds(found.labels, groups, len(SPLIT_OF_TENTH), seed)
    except UserError:
        needed = "that needs ten separate images (patients, where known) of each class, or a column split in a table"
        raise UserError(f"{path}: cannot be divided into train, val and test; {needed}") from None
    return with_splits(found, np.array(SPLIT_OF_TENTH)[tenths])
