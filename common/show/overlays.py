"""Write pictures coloured by the evidence of a model, for predict.py. Needs numpy and Pillow."""

import os
from itertools import chain, count
from pathlib import Path

from common import evidence, files
from common.errors import UserError
from common.show.answers import printable


def check_folder(folder: str, named: list[str]) -> None:
    """Refuse a folder of --evidence from which the next prediction would read the maps as images.

    Raises: UserError.
    """
    target = Path(os.path.realpath(folder))
    for path in (path for path in named if "\0" not in path):
        there = Path(os.path.realpath(path))
        if target.is_relative_to(there) if there.is_dir() else target == there.parent:
            where = f"--evidence {printable(folder)} is the folder of IMAGE {printable(path)}, or lies inside it"
            raise UserError(f"{where}. The next prediction would read the maps as images. Name another folder.")


def make_folder(folder: str, named: list[str]) -> Path:
    """Make the folder of --evidence and return its path. named: the images. Raises: UserError if it cannot be used."""
    check_folder(folder, named)
    with files.writing_to(target := Path(folder)):
        target.mkdir(parents=True, exist_ok=True)
    return target


def save(folder: Path, name: str, pixels, values, window) -> Path:
    """Write NAME.png or, if the file exists, NAME_2.png and so on. Return the path.

    Args: pixels: uint8 [h, w]; values: the evidence [rows, columns]; window: x, y, width and height of the map in
    pixels; None for the middle square. Raises: UserError.
    """
    names = chain([name], (f"{name}_{number}" for number in count(2)))
    path = next(path for one in names if not (path := folder / f"{one}.png").exists())
    with files.replacing(path) as beside:
        evidence.overlay(pixels, values, window).save(beside, "PNG")
    return path
