"""List the images of a folder, and the skipped files with the reason. Uses the standard library only.

Training and prediction use the same list. A file is skipped for three reasons:

- "masks": drawings of the lesion that data sets ship with the images. A file is a mask in three cases: its name without
  its mask word is the name of another image in the same folder (`case001_tumor.png` and `case001.png`), its name has a
  strong word, such as `mask`, or the file lies in a folder such as `masks/`.
- "hidden": files that the operating system or an editor leaves behind, such as `._x.png` or `Thumbs.db`.
- "no image suffix": all other files. A file with another suffix, or without suffix, is an image if it starts like an
  image format: DICOM files often have no suffix.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = tuple(
    ".png .jpg .jpeg .jpe .jfif .bmp .dib .tif .tiff .gif .webp .jp2 .pgm .ppm .pnm .dcm .dicom".split()
)  # what Pillow and pydicom decode here
PREAMBLE = 128  # bytes before DICOM's mark
MAGIC = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0{4}|II[*+]\0|MM\0[*+]|RIFF.{4}WEBP|.{128}DICM", re.DOTALL
)
# The first element of a DICOM file without preamble, of group 2 or 8: a VR in capitals, or a short length.
BARE_DICOM = re.compile(rb"[\x02\x08]\0.\0([A-Z]{2}|..\0\0)", re.DOTALL)

STRONG_WORDS = {"mask", "maske", "masken", "masque", "máscara", "mascara", "maschera", "segmentation", "groundtruth"}
MASK_WORDS = STRONG_WORDS | {"seg", "segm", "gt", "annotation", "label", "roi", "contour", "tumor", "tumour", "other"}
MASK_WORDS |= {"lesion"}
MASK_FOLDERS = STRONG_WORDS | {"annotation", "gt", "label"}
WORD = re.compile(r"(?i:ground[-_ ]?truth)|\d+|[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")  # finds the words of "imgMask1" too
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
SPLITS |= {"test": "test", "testing": "test"}  # {word in a name: split}
HIDDEN = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "dicomdir"}
SHOWN = 3  # names of files in a sentence


@dataclass(frozen=True)
class FolderFiles:
    """The images of a folder. left_out: {reason: skipped files}, for the reasons that occur."""

    images: list[Path]
    left_out: dict[str, list[Path]] = field(default_factory=dict)


def read_start(path: Path) -> bytes:
    """Return the first bytes of a file; b"" if the path is not a file, or cannot be read."""
    try:
        if not path.is_file():  # a pipe would block
            return b""
        with open(path, "rb") as file:
            return file.read(PREAMBLE + 4)
    except OSError:
        return b""


def is_bare_dicom(start: bytes) -> bool:
    """Return whether a file starts like a DICOM file without preamble."""
    return bool(BARE_DICOM.match(start))


def is_dicom(start: bytes) -> bool:
    """Return whether a file starts like a DICOM file, with or without preamble."""
    return start[PREAMBLE : PREAMBLE + 4] == b"DICM" or is_bare_dicom(start)


def is_image(path: Path) -> bool:
    """Return whether a file has the suffix of an image, or starts like an image."""
    if path.name.lower().endswith(SUFFIXES):
        return True
    start = read_start(path)
    return bool(MAGIC.match(start)) or is_bare_dicom(start)


def is_hidden(name: str) -> bool:
    """Return whether an operating system or an editor hides a file or folder with this name."""
    return name.startswith(".") or name.casefold() in HIDDEN


def words(name: str) -> tuple[str, ...]:
    """Return the words and numbers of a name in lower case: `benign (1)_Mask2` gives benign, 1, mask, 2."""
    return tuple(re.sub(r"[-_ ]", "", word).casefold() for word in WORD.findall(name))


def is_one_of(word: str, known: set[str]) -> bool:
    """Return whether a word or its singular is known."""
    return word in known or word.removesuffix("s") in known


def without_mask_words(name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the words of a name without one mask word, without the word and its number, and without all mask words."""
    yield tuple(word for word in name if not is_one_of(word, MASK_WORDS))
    for i, word in enumerate(name):
        if is_one_of(word, MASK_WORDS):
            yield name[:i] + name[i + 1 :]
            if name[i + 1 : i + 2] and name[i + 1].isdigit():
                yield name[:i] + name[i + 2 :]


def is_mask(name: tuple[str, ...], beside: set[tuple[str, ...]]) -> bool:
    """Return whether a name is the name of a mask. beside: the names of all images in the folder."""
    if any(is_one_of(word, STRONG_WORDS) for word in name):
        return True
    return any(rest and rest != name and rest in beside for rest in without_mask_words(name))


def is_mask_folder(name: str) -> bool:
    """Return whether a folder with this name holds masks: `masks`, `GT`, `train_masks`, but not `images_and_masks`."""
    found = words(name)
    if len(found) == 1:
        return is_one_of(found[0], MASK_FOLDERS)
    about_masks = all(is_one_of(word, MASK_WORDS) or word.isdigit() or word in SPLITS for word in found)
    return about_masks and any(is_one_of(word, STRONG_WORDS) for word in found)


def walk(folder: Path, closed: list[OSError]) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and every folder below it, with the sorted names of the files.

    Links are followed, except to a folder above the link. closed: collects the errors of folders that cannot be listed.
    """
    above = {os.fspath(folder): {os.path.realpath(folder)}}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=closed.append):
        deeper = {name: os.path.realpath(os.path.join(here, name)) for name in sorted(folders)}
        folders[:] = [name for name, real in deeper.items() if real not in above[here]]
        above |= {os.path.join(here, name): above[here] | {deeper[name]} for name in folders}
        yield Path(here), sorted(files)


def reasons(folder: Path, within: tuple[str, ...], names: list[str]) -> Iterator[tuple[Path, str]]:
    """Yield each file of a folder with the reason to skip the file, or "". within: names of the folders above."""
    hidden = {name for name in names if any(map(is_hidden, (*within, name)))}
    images = {name: words(Path(name).stem) for name in names if name not in hidden and is_image(folder / name)}
    all_masks, beside = any(map(is_mask_folder, within)), set(images.values())
    for name in names:
        reason = "hidden" if name in hidden else "" if name in images else "no image suffix"
        if name in images and (all_masks or is_mask(images[name], beside)):
            reason = "masks"
        yield folder / name, reason


def list_folder(folder: str | Path) -> FolderFiles:
    """List the images in a folder and in all folders below it, in order, and the files that are skipped.

    A folder that cannot be listed counts as an image, so that reading the image reports the error.
    """
    folder = Path(folder)
    listing, closed = FolderFiles([]), list[OSError]()
    for here, names in walk(folder, closed):
        for path, reason in reasons(here, here.relative_to(folder).parts, names):
            (listing.left_out.setdefault(reason, []) if reason else listing.images).append(path)
    listing.images.extend(Path(error.filename) for error in closed)
    return listing


def find(path: str | Path) -> FolderFiles:
    """List the images of a path: the images of a folder, by `list_folder`, otherwise the path itself."""
    return list_folder(path) if os.path.isdir(path) else FolderFiles([Path(path)])


def describe_left_out(listing: FolderFiles) -> list[str]:
    """Return a sentence for each reason, such as "12 files skipped: masks (benign (1)_mask.png, ...)"."""
    said = []
    for reason, paths in sorted(listing.left_out.items()):
        names = ", ".join(path.name for path in paths[:SHOWN]) + ", ..." * (len(paths) > SHOWN)
        said.append(f"{len(paths)} file{'s' * (len(paths) != 1)} skipped: {reason} ({names})")
    return said
