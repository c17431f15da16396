"""List the images of a folder with one folder per class, in the layout of torchvision's ImageFolder."""

import unicodedata
from pathlib import Path

import pandas as pd

from common.delimited import SUFFIXES
from common.errors import UserError
from common.imagefolder import SPLITS, describe_left_out, is_hidden, is_mask_folder, list_folder
from common.tablefile import CLASSES, Listed, arrange, shorten


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, without hidden folders and folders of masks."""
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(name for name in names if not is_hidden(name) and not is_mask_folder(name))


def caseless(name: str) -> str:
    """Return the name of a folder in lower case, with composed accents."""
    return unicodedata.normalize("NFC", name).casefold()


def find_classes(folder: Path) -> list[tuple[str, ...]]:
    """Return the class folders as (name,), or as (split, name) if the top folders are splits. Raises: UserError."""
    tops = folders_in(folder)
    splits = [top for top in tops if top.casefold() in SPLITS]
    if not splits:
        return [(top,) for top in tops]
    if len(splits) < len(tops):
        others = shorten(top for top in tops if top not in splits)
        raise UserError(f"{folder}: {shorten(splits)} are splits, but not {others}. Move or remove {others}.")
    if empty := [split for split in splits if not folders_in(folder / split)]:
        raise UserError(
            f"{folder}: there is no class folder in {shorten(empty)}. Add class folders, or remove {shorten(empty)}."
        )
    return [(split, name) for split in splits for name in folders_in(folder / split)]


def hint_table(folder: Path) -> str:
    """Return a hint that names a table in a folder without class folders; "" if there is no table."""
    tables = [path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    return f", or give a table, such as {folder / tables[0]}" if tables else ""


def label_classes(folder: Path, names: list[str], positive: str | None) -> dict[str, int]:
    """Return {name of a class folder in lower case: label}, with label 1 for positive. Raises: UserError."""
    if not names:
        raise UserError(
            f"{folder}: has no class folders. Make folders such as malignant/ and benign/{hint_table(folder)}."
        )
    known = {caseless(name) for name in names}
    listed = f"Class folders there: {shorten(names)}"
    if positive is not None and caseless(positive) not in known:
        named = f"'{positive}', which --positive names (now, or when the model was trained)"
        raise UserError(f"{folder}: has no class folder {named}. Give the right name with --positive. {listed}")
    labels = CLASSES if positive is None else {name: int(name == caseless(positive)) for name in known}
    if unknown := [name for name in names if caseless(name) not in labels]:
        way_out = (
            f"Use malignant, benign and normal, or name the positive folder with --positive NAME{hint_table(folder)}"
        )
        raise UserError(f"{folder}: unknown class folder '{unknown[0]}'. {way_out}. {listed}")
    if len({labels[name] for name in known}) < 2:
        raise UserError(
            f"{folder}: holds one class only. Add a folder of the other class{hint_table(folder)}. {listed}"
        )
    return {name: labels[name] for name in known}


def list_class_folders(folder: Path, positive: str | None = None) -> Listed:
    """List the images of a folder with one folder per class.

    If folders such as train/, val/ and test/ hold the class folders, they are the splits. Raises: UserError, OSError.
    """
    places = find_classes(folder)
    labels = label_classes(folder, sorted({place[-1] for place in places}), positive)
    listing = list_folder(folder)
    if closed := [path for path in listing.images if path.is_dir()]:
        raise UserError(f"{closed[0]}: the folder cannot be read. Check its permissions.")
    paths = [path.relative_to(folder) for path in listing.images]
    depth, notes = len(places[0]), describe_left_out(listing)
    if loose := [path.as_posix() for path in paths if len(path.parts) <= depth]:
        raise UserError(f"{folder}: {shorten(loose)} lies in no class folder. Move each image into a class folder.")
    if empty := ["/".join(place) for place in places if not any(path.parts[:depth] == place for path in paths)]:
        skipped = "".join(f" {note}." for note in notes)
        raise UserError(f"{folder}: there is no image in {shorten(empty)}. Add images, or remove the folder.{skipped}")
    classes = [caseless(path.parts[depth - 1]) for path in paths]
    table = pd.DataFrame({"image": [path.as_posix() for path in paths], "label": [labels[name] for name in classes]})
    table["split"] = [SPLITS[path.parts[0].casefold()] if depth == 2 else "" for path in paths]
    inner = sorted({"/".join(path.parts[: depth + 1]) for path in paths})
    if all(len(path.parts) > depth + 1 for path in paths) and len(inner) > len(places):
        like_patients = "If they are patients, give a table with the column patient"
        notes.append(f"the names of the folders {shorten(inner)} are not used, only their images. {like_patients}")
    return Listed(folder, arrange(table.assign(**{"class": classes})), notes)
