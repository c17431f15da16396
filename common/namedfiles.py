"""Find the files that a table names, as the disk spells their names. Needs only the standard library."""

import os
import re
import unicodedata
from pathlib import Path

# {folder: (its path as on the disk, {composed name: name on the disk}, {caseless name: name on the disk})}
NameCache = dict[Path, tuple[Path, dict[str, str], dict[str, str]]]


def is_absolute(cell: str) -> bool:
    """Return whether a path is absolute under Unix or Windows."""
    return bool(re.match(r"[/\\]|[A-Za-z]:[/\\]", cell))


def target(cell: str, folder: Path) -> Path:
    """Return the absolute path that a cell names, with "/" or with backslashes."""
    plain = os.path.normpath(folder / cell)
    return Path(plain if os.path.isfile(plain) else os.path.normpath(folder / cell.replace("\\", "/")))


def find_file(cell: str, folder: Path, cache: NameCache) -> Path | None:
    """Return the file that a cell names, or None.

    If an absolute path no longer exists, the longest end of the path that exists in the folder counts.
    """
    if os.path.isfile(path := spell(target(cell, folder), cache)):
        return path
    parts = target(cell, folder).parts if is_absolute(cell) else ()
    ends = (spell(folder.joinpath(*parts[i:]), cache) for i in range(1, len(parts)))
    return next((path for path in ends if os.path.isfile(path)), None)


def spell(path: Path, cache: NameCache, caseless: bool = False) -> Path:
    """Return a path as the disk spells it. A path that does not exist is returned unchanged.

    Accents may be composed or decomposed. Case may differ if the disk ignores case, or if `caseless`.
    """
    if path.parent == path:
        return path
    if path.parent not in cache:
        parent = path.parent if os.path.isdir(path.parent) else spell(path.parent, cache, caseless)
        names = os.listdir(parent) if os.path.isdir(parent) and os.access(parent, os.R_OK) else []
        composed = {unicodedata.normalize("NFC", name): name for name in names}
        cache[path.parent] = parent, composed, {name.casefold(): own for name, own in composed.items()}
    parent, composed, folded = cache[path.parent]
    wanted = unicodedata.normalize("NFC", path.name)
    name = composed.get(wanted)
    if name is None and (caseless or os.path.exists(path)):
        name = folded.get(wanted.casefold())
    return parent / (name or path.name)


def name_in(file: Path, folder: Path, absolute: bool = False) -> str:
    """Return the path of a file relative to a folder, with "/"; an absolute path of a file outside stays absolute."""
    for plain in (Path, Path.resolve):  # a folder may have two names, by a link
        if plain(file).is_relative_to(plain(folder)):
            return plain(file).relative_to(plain(folder)).as_posix()
    return file.as_posix() if absolute else Path(os.path.relpath(file, folder)).as_posix()
