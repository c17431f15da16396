"""Image files on their way into memory: decoded and prepared as MedMNIST prepared its images, several at once."""

import hashlib
import itertools
import sys
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from common import imagefile
from common.errors import UserError
from common.parallel import cpu_count
from common.progress import shown


def md5s(folder: Path, names: Iterable[str]) -> list[str]:
    """The MD5 of each file; "" of one that cannot be read, which `prepare_files` will say."""

    def md5(name: str) -> str:
        try:
            with open(folder / name, "rb") as file:
                return hashlib.file_digest(file, "md5").hexdigest()
        except OSError:
            return ""

    with ThreadPoolExecutor(cpu_count()) as pool:
        return list(pool.map(md5, names))


def prepare_file(path: Path, size: int) -> np.ndarray | UserError:
    """The middle square of an image file at [size, size], or why there is none."""
    try:
        image, *more = itertools.islice(imagefile.frames(path), 2)
        if more:
            raise UserError("holds several pictures; save each in a file of its own")
        return imagefile.prepare(image, size)
    except UserError as error:
        return error


def prepare_files(folder: Path, names: list[str], size: int, where: Path) -> np.ndarray:
    """Decode and prepare image files; memory is that of the prepared images, uint8 [n, size, size].
    Raises: UserError when an image is bad, after all bad images are named on stderr."""
    pixels, bad = np.empty((len(names), size, size), np.uint8), 0
    with ThreadPoolExecutor(cpu_count()) as pool, warnings.catch_warnings(action="ignore"):  # of harmless flaws
        prepared = pool.map(lambda name: prepare_file(folder / name, size), names)
        for i, found in enumerate(shown(prepared, "prepared", len(names))):
            if isinstance(found, UserError):
                print(f"warning: {folder / names[i]} {found}", file=sys.stderr)
                bad += 1
            else:
                pixels[i] = found
    if bad:
        raise UserError(f"{where}: {bad} of {len(names)} images cannot be used (see above); mend or remove them")
    return pixels
