"""Read image files into memory, several at once: the middle square, as in MedMNIST, or the whole frame."""

import hashlib
import itertools
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from common import imagefile
from common.boxes import misplaced, seem_per_cent
from common.delimited import BOX
from common.errors import UserError
from common.fingerprints import SIDE
from common.images import Images
from common.parallel import cpu_count
from common.progress import shown

AT_ONCE = 32  # frames in memory at a time


def md5s(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the MD5 of each file; "" for a file that cannot be read, because `prepare_files` reports the error."""

    def md5(name: str) -> str:
        try:
            with open(folder / name, "rb") as file:
                return hashlib.file_digest(file, "md5").hexdigest()
        except OSError:
            return ""

    with ThreadPoolExecutor(cpu_count()) as pool:
        return list(pool.map(md5, names))


def read_frame(path: Path) -> np.ndarray:
    """Return the only picture of an image file, uint8 [h, w]. Raises: UserError, without the path."""
    image, *more = itertools.islice(imagefile.frames(path), 2)
    if more:
        raise UserError("holds several pictures. Save each picture in a separate file.")
    return image


def prepare_file(path: Path, size: int, whole: bool) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]] | UserError:
    """Return an image file in memory, or the error if the file cannot be used.

    Returns: the whole frame or the middle square, uint8 [size, size]; the middle square, uint8 [28, 28]; height and
    width as stored.
    """
    try:
        frame = read_frame(path)
    except UserError as error:
        return error
    pixels = cut(frame, (0, 0, frame.shape[1], frame.shape[0]), size) if whole else imagefile.prepare(frame, size)
    return pixels, imagefile.prepare(frame, SIDE), frame.shape


def cut(frame: np.ndarray, box: Sequence[float], size: int) -> np.ndarray:
    """Return a window of a frame, uint8 [size, size]. frame: uint8 [h, w]; box: x, y, width and height in pixels."""
    import torch  # imported late, because calibrate.py reads square views without torch

    from common.window import window

    return window(torch.from_numpy(frame.copy())[None], torch.tensor([box]), size)[0].byte().numpy()


def prepare_files(folder: Path, table: pd.DataFrame, size: int, whole: bool, where: Path) -> Images:
    """Decode and prepare image files. Only the prepared images stay in memory.

    Args: table: one row per file; size: side of `Images.pixels`; whole: whole frames instead of middle squares; where:
    path of the data set for errors.
    Raises: UserError when images cannot be used, after each bad image is named on stderr.
    """
    names, bad = list(table["image"]), 0
    pixels, squares = np.empty((len(names), size, size), np.uint8), np.empty((len(names), SIDE, SIDE), np.uint8)
    sizes = np.empty((len(names), 2), int)
    with ThreadPoolExecutor(cpu_count()) as pool, warnings.catch_warnings(action="ignore"):  # about harmless flaws
        prepared = pool.map(lambda name: prepare_file(folder / name, size, whole), names)
        for i, found in enumerate(shown(prepared, "prepared", len(names))):
            if isinstance(found, UserError):
                print(f"warning: {folder / names[i]} {found}", file=sys.stderr)
                bad += 1
            else:
                pixels[i], squares[i], sizes[i] = found
    if bad:
        raise UserError(f"{where}: {bad} of {len(names)} images cannot be used (see above). Repair or remove them.")
    check_boxes(table, sizes, where)
    return Images(pixels, table, squares, sizes)


def check_boxes(table: pd.DataFrame, sizes: np.ndarray, where: Path) -> None:
    """Raise a `UserError` if boxes cannot be in pixels of their frames. sizes: int [n, 2], height and width."""
    boxes = table[BOX].to_numpy()
    advice = "Use x and y of the left upper corner, width and height, all in pixels."
    if len(wrong := np.flatnonzero(misplaced(boxes, sizes))):
        box, (height, width) = ", ".join(f"{side:g}" for side in boxes[wrong[0]]), sizes[wrong[0]]
        which = f"the box of {table['image'].iloc[wrong[0]]} ({box}) does not lie in its {width}×{height} pixels"
        more = f" ({len(wrong) - 1} more boxes have this mistake)" if len(wrong) > 1 else ""
        raise UserError(f"{where}: {which}{more}. {advice}")
    known = ~np.isnan(boxes).any(1)
    if seem_per_cent(boxes[known], sizes[known]):
        raise UserError(f"{where}: all boxes lie in the first 100×100 pixels, so they seem to be per cent. {advice}")


def frames(images: Images) -> Iterator[np.ndarray]:
    """Yield the frame of each image, uint8 [h, w]. Image files are read again. Raises: UserError with the path."""

    def frame(path: str, pixels: np.ndarray) -> np.ndarray:
        try:
            return read_frame(Path(path)) if path else pixels
        except UserError as error:
            raise UserError(f"{path} {error}") from None

    for start in range(0, len(images), AT_ONCE):  # in blocks, because the map of a pool reads ahead without a bound
        here = slice(start, start + AT_ONCE)
        with ThreadPoolExecutor(cpu_count()) as pool, warnings.catch_warnings(action="ignore"):
            yield from pool.map(frame, images.files[here], images.pixels[here])
