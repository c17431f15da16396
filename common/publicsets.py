"""List public data sets of breast ultrasound in the layout of their download (docs/datasets.md)."""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from PIL import Image, ImageChops

from common.delimited import BOX
from common.errors import UserError
from common.imagefolder import SPLITS, FolderFiles, describe_left_out, is_hidden, list_folder
from common.parallel import cpu_count
from common.tablefile import CLASSES, Listed, arrange, blank_unknown, read, shorten

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
BREAST_FOLDER = "BrEaST-Lesions_USG-images_and_masks"
Files = dict[str, Path]  # file by its name without suffix


def visible(folder: Path) -> list[Path]:
    """Return the sorted entries of a folder without hidden entries; [] if the folder does not exist."""
    return [path for path in sorted(folder.iterdir()) if not is_hidden(path.name)] if folder.is_dir() else []


def images_in(folder: Path) -> Files:
    """Return the image files of a folder, including masks."""
    return {path.stem: path for path in visible(folder) if path.suffix.lower() in SUFFIXES}


def mask_edges(mask: Path, width: int, height: int) -> tuple[float, ...] | None:
    """Return the left, top, right and bottom edge of the white, red or green pixels of a mask; None if it is empty.

    The mask is stretched to an image of this width and height. The edges are in pixels of that image.
    """
    with Image.open(mask) as picture:
        grey: Image.Image = picture
        if picture.mode not in ("1", "L"):
            grey = ImageChops.lighter(*picture.convert("RGB").split()[:2])
        edges = grey.getbbox()
        sizes = zip((width, height) * 2, picture.size * 2)
        return tuple(edge * size / own for edge, (size, own) in zip(edges, sizes)) if edges else None


def lesion_box(image: Path, masks: list[Path]) -> np.ndarray:
    """Return the box around all masks of an image: x, y, width, height in pixels, float [4]; nan without a lesion.

    Raises: UserError on a damaged file.
    """
    try:
        with Image.open(image) as picture:
            width, height = picture.size
        found = [edges for mask in masks if (edges := mask_edges(mask, width, height))]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UserError(
            f"{image}: the image or its mask {shorten(masks)} is damaged. Download the data set again."
        ) from None
    if not found:
        return np.full(4, np.nan)
    start, end = np.min(found, axis=0)[:2], np.max(found, axis=0)[2:]
    return np.concatenate([start, end - start])


def check_complete(folder: Path, what: str, lacking: Iterable) -> None:
    """Raise a `UserError` that names the files or columns that a public data set lacks, if any."""
    if missing := shorten(lacking):
        raise UserError(f"{folder}: looks like {what}, but lacks {missing}. Download the data set again.")


def assemble(folder: Path, what: str, info: pd.DataFrame, images: Files, masks: dict[str, list[Path]]) -> Listed:
    """Join the table of a public data set with its image files and the boxes around its masks.

    Args: what: the name of the set. info: text, one row per image, with the columns image (name without suffix), class
    (a word), patient where known, and others. masks: {name of an image: its masks}.
    Raises: UserError if a label is unknown, a file is damaged or missing, or an image with a lesion has no mask.
    """
    classes = info["class"].str.casefold()
    if unknown := sorted(set(classes) - CLASSES.keys()):
        raise UserError(f"{folder}: unknown label {unknown[0]!r} of {what}. Use malignant, benign or normal.")
    check_complete(folder, what, (f"the image {name}" for name in info["image"] if name not in images))
    with_lesion = info["image"][classes != "normal"]
    check_complete(folder, what, (f"the mask of {name}" for name in with_lesion if not masks.get(name)))
    files = [images[name] for name in info["image"]]
    with ThreadPoolExecutor(cpu_count()) as pool:
        boxes = list(pool.map(lesion_box, files, [masks.get(name, []) for name in info["image"]]))
    table = blank_unknown(info.drop(columns="image")).assign(
        **{"image": [file.relative_to(folder).as_posix() for file in files], "class": classes},
        **{"label": classes.map(CLASSES), **dict(zip(BOX, np.transpose(boxes)))},
    )
    notes = [f"read as {what}, with boxes from {sum(map(len, masks.values()))} masks"]
    if empty := int((table["x"].isna() & (classes != "normal")).sum()):
        notes.append(f"{empty} benign or malignant images have no box, because their masks are empty")
    if unused := sorted(images.keys() - set(info["image"])):
        notes.append(
            f"{len(unused)} images are skipped, because the table of {what} does not list them: {shorten(unused)}"
        )
    return Listed(folder, arrange(table), notes)


def read_table(folder: Path, what: str, table: Path, columns: list[str]) -> pd.DataFrame:
    """Read the table of a public data set as text: .csv, or .xlsx if openpyxl is installed. Raises: UserError."""
    try:
        info = read(table) if table.suffix == ".csv" else pd.read_excel(table, dtype=str, engine="openpyxl").fillna("")
    except ImportError:
        way_out = "Run `pip install openpyxl`, or save the sheet as CSV in the same folder."
        raise UserError(f"{table}: is an Excel sheet, and openpyxl is not installed. {way_out}") from None
    except (OSError, ValueError, KeyError, BadZipFile):
        raise UserError(f"{table}: cannot be read. Download the data set again.") from None
    info.columns = [str(name).strip().casefold() for name in info.columns]
    check_complete(folder, what, (f"the column {name} in {table.name}" for name in columns if name not in info))
    return info.apply(lambda cells: cells.str.strip())


def stems(names: pd.Series) -> pd.Series:
    """Return file names without suffix."""
    return names.str.replace(r"\.\w+$", "", regex=True)


def list_busi(folder: Path) -> Listed:
    """List BUSI, Egypt: `benign/benign (1).png`, `benign (1)_mask.png`, `benign (1)_mask_1.png`, no patients."""
    files = {f"{name}/{stem}": path for name in CLASSES for stem, path in images_in(folder / name).items()}
    masks: dict[str, list[Path]] = {}
    for name, path in files.items():
        if "_mask" in name:
            masks.setdefault(name.split("_mask")[0], []).append(path)
    names = sorted(masks.keys() | {name for name in files if re.fullmatch(r"(\w+)/\1 \(\d+\)", name)})
    info = pd.DataFrame({"image": names, "class": [name.split("/")[0] for name in names]})
    images = {name: path for name, path in files.items() if "_mask" not in name}
    listed = assemble(folder, "BUSI", info, images, masks)
    left_out = {reason: paths for reason, paths in list_folder(folder).left_out.items() if reason != "masks"}
    others = [path.name for path in visible(folder) if path.is_dir() and path.name not in CLASSES]
    notes = [f"folders that do not belong to BUSI are skipped: {shorten(others)}"] if others else []
    return Listed(folder, listed.table, listed.notes + notes + describe_left_out(FolderFiles([], left_out)))


def list_busbra(folder: Path) -> Listed:
    """List BUS-BRA, Brazil: `bus_data.csv`, `Images/bus_0001-l.png`, `Masks/mask_0001-l.png`; cases are patients.

    Boxes come from the masks, because the column BBOX counts from 1, and its width and height are one pixel too small.
    """
    check_complete(folder, "BUS-BRA", (n for n in ("bus_data.csv", "Images", "Masks") if not (folder / n).exists()))
    columns = ["id", "case", "pathology", "device", "birads", "histology", "side"]
    info = read_table(folder, "BUS-BRA", folder / "bus_data.csv", columns)[columns]
    info = info.rename(columns={"id": "image", "case": "patient", "pathology": "class"})
    masks = {stem.replace("mask", "bus", 1): [path] for stem, path in images_in(folder / "Masks").items()}
    return assemble(folder, "BUS-BRA", info, images_in(folder / "Images"), masks)


def list_breast(folder: Path) -> Listed:
    """List BrEaST-Lesions-USG, Poland: a folder of `case001.png` and `case001_tumor.png`, and a clinical table.

    Each case is one patient with one image. Masks of other structures (`case001_other1.png`) do not count.
    """
    files = images_in(folder / BREAST_FOLDER) or images_in(folder)
    tables = [path for path in visible(folder) if path.suffix in (".csv", ".xlsx") and "clinical" in path.name.lower()]
    check_complete(folder, "BrEaST-Lesions-USG", [] if tables else ["its clinical table (.xlsx or .csv)"])
    columns = ["image_filename", "classification", "birads"]
    info = read_table(folder, "BrEaST-Lesions-USG", min(tables, key=lambda path: path.suffix), columns)
    info = info.rename(columns={"image_filename": "image", "classification": "class"})
    info["image"] = info["patient"] = stems(info["image"])
    info = info.drop(columns=["caseid", "mask_tumor_filename", "mask_other_filename"], errors="ignore")
    masks: dict[str, list[Path]] = {}
    for stem, path in files.items():
        if "_tumor" in stem:
            masks.setdefault(stem.split("_tumor")[0], []).append(path)
    images = {stem: path for stem, path in files.items() if "_tumor" not in stem and "_other" not in stem}
    return assemble(folder, "BrEaST-Lesions-USG", info, images, masks)


def list_busuclm(folder: Path) -> Listed:
    """List BUS-UCLM, Spain: `INFO.csv`, `images/ALWI_000.png`, `masks/ALWI_000.png` (green: benign, red: malignant).

    ALWI is the patient.
    """
    check_complete(folder, "BUS-UCLM", (n for n in ("INFO.csv", "images", "masks") if not (folder / n).exists()))
    columns = ["image", "label", "doppler", "marks", "combined"]
    info = read_table(folder, "BUS-UCLM", folder / "INFO.csv", columns)[columns]
    info = info.rename(columns={"label": "class"}).assign(image=stems(info["image"]))
    info["patient"] = info["image"].str.split("_").str[0]
    masks = {stem: [path] for stem, path in images_in(folder / "masks").items()}
    return assemble(folder, "BUS-UCLM", info, images_in(folder / "images"), masks)


def recognise(folder: Path) -> Callable[[Path], Listed] | None:
    """Return the function that lists a public data set, recognised by its files; None for other folders.

    The files lie in the folder, or in its only subfolder.
    """

    def has(place: str, pattern: str) -> bool:
        return any(re.fullmatch(pattern, path.name) for path in visible(folder / place))

    if has("", r"bus_data\.csv") or has("Images", r"bus_\d+-.*"):
        return list_busbra
    if has("", r"INFO\.csv") and has("", "images|masks") or has("masks", r"[A-Z]{4}_\d{3}\.png"):
        return list_busuclm
    if any(has(name, rf"{name} \(\d+\)_mask.*") for name in CLASSES):
        return list_busi
    if has(BREAST_FOLDER, ".*") or has("", r"case\d+_tumor.*"):
        return list_breast
    inner = [path for path in visible(folder) if path.is_dir() and path.name.casefold() not in SPLITS]
    reader = recognise(inner[0]) if len(inner) == 1 else None
    return (lambda _: reader(inner[0])) if reader else None
