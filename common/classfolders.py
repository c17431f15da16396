"""List the images of a folder with one folder per class, as torchvision's ImageFolder takes it."""

from pathlib import Path

import pandas as pd

from common.errors import UserError
from common.imagefolder import describe_left_out, is_hidden, list_folder
from common.tablefile import CLASSES, SPLITS, SUFFIXES, Listed, arrange, shorten


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, without hidden ones."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def find_classes(folder: Path) -> list[tuple[str, ...]]:
    """The class folders: (name,), or (split, name) where the folders on top are splits. Raises: UserError."""
    tops = folders_in(folder)
    splits = [top for top in tops if top.casefold() in SPLITS]
    if not splits:
        return [(top,) for top in tops]
    if len(splits) < len(tops):
        others = shorten(top for top in tops if top not in splits)
        raise UserError(f"{folder}: {shorten(splits)} are splits, but {others} is none. Move it, or remove it")
    if empty := [split for split in splits if not folders_in(folder / split)]:
        raise UserError(f"{folder}: no class folder in {shorten(empty)}. Put class folders into it, or remove it")
    return [(split, name) for split in splits for name in folders_in(folder / split)]


def hint_table(folder: Path) -> str:
    """Name a table in a folder that is not organised by class."""
    tables = [path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    return f". Or give a table, such as {folder / tables[0]}" if tables else ""


def label_classes(folder: Path, names: list[str], positive: str | None) -> dict[str, int]:
    """The label of each class folder, by its name in lower case. Raises: UserError."""
    if not names:
        raise UserError(f"{folder}: has no class folders, such as malignant/ and benign/{hint_table(folder)}")
    known = {name.casefold() for name in names}
    listed = f"Its class folders are: {shorten(names)}{hint_table(folder)}"
    if positive is not None and positive.casefold() not in known:
        raise UserError(f"{folder}: has no class folder '{positive}' as --positive says. {listed}")
    labels = CLASSES if positive is None else {name: int(name == positive.casefold()) for name in known}
    if unknown := [name for name in names if name.casefold() not in labels]:
        way_out = "Use malignant, benign and normal, or say with --positive NAME which folder is positive"
        raise UserError(f"{folder}: unknown class folder '{unknown[0]}'. {way_out}. {listed}")
    if len({labels[name] for name in known}) < 2:
        raise UserError(f"{folder}: needs a folder of malignant and a folder of other images. {listed}")
    return {name: labels[name] for name in known}


def list_class_folders(folder: Path, positive: str | None = None) -> Listed:
    """List the images of a folder with one folder per class. The folders train/, val/ and test/ above the classes, if
    they exist, are the splits. Raises: UserError, OSError."""
    places = find_classes(folder)
    labels = label_classes(folder, sorted({place[-1] for place in places}), positive)
    listing = list_folder(folder, class_folders=True)
    if closed := [path for path in listing.images if path.is_dir()]:
        raise UserError(f"{closed[0]}: the folder cannot be read")
    paths = [path.relative_to(folder) for path in listing.images]
    depth = len(places[0])
    if loose := [path.as_posix() for path in paths if len(path.parts) <= depth]:
        raise UserError(f"{folder}: {shorten(loose)} lies in no class folder. Move each image into one")
    if empty := ["/".join(place) for place in places if not any(path.parts[:depth] == place for path in paths)]:
        raise UserError(f"{folder}: no image in {shorten(empty)}. Put images into the folder, or remove it")
    classes = [path.parts[depth - 1].casefold() for path in paths]
    table = pd.DataFrame({"image": [path.as_posix() for path in paths], "label": [labels[name] for name in classes]})
    table["split"] = [SPLITS[path.parts[0].casefold()] if depth == 2 else "" for path in paths]
    return Listed(folder, arrange(table.assign(**{"class": classes})), describe_left_out(listing))
