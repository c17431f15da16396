"""Check the description of data in a run or an .onnx file (`data.Found.describe`), and name hospitals."""

import os
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError

LARGEST = 1024  # pixels per side; no model of this project has more
KINDS = {"size": int, "seed": int, "md5": str, "synthetic": bool, "trained_on": list, "sets": list, "view": str}
VIEWS = ("square", "frame", "lesion")


def describes_data(value) -> bool:
    """Return whether a value is a dict of `data.Found.describe` with "trained_on", the splits of training."""
    known = isinstance(value, dict) and all(type(value.get(key)) is kind for key, kind in KINDS.items())
    sized = known and 8 <= value["size"] <= LARGEST and value["view"] in VIEWS
    return sized and all({"spec", "hospital", "md5"} <= set(one) for one in value["sets"])


def notice(described: dict) -> str | None:
    """Return the notice for results on phantoms; None for real images."""
    side = described["size"]
    return f"PHANTOM data {side}×{side} (generated, not ultrasound)" if described["synthetic"] else None


def hospital_names(specs: Sequence[str]) -> list[str]:
    """Return a name for each data set: the name of its file or folder.

    If two names are the same, or a name is "all" (which results use for all hospitals together), the name of the parent
    folder comes first. Raises: UserError when two names are still the same.
    """
    places = [Path(os.path.abspath(spec)) for spec in specs]
    short = [path.name if os.path.isdir(path) else path.stem for path in places]
    clear = [name != "all" and short.count(name) == 1 for name in short]
    names = [name if one else f"{path.parent.name}/{name}" for path, name, one in zip(places, short, clear)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--data: two data sets have the name {twice[0]}. Rename a folder, or name each data set once.")
    return names
