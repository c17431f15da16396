"""What a run and its .onnx file keep of their data: `data.Found.describe`, read back; and what hospitals are called."""

import os
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError

LARGEST = 1024  # pixels a side; a model of more is no file of ours
KINDS = {"size": int, "seed": int, "md5": str, "synthetic": bool, "trained_on": list, "sets": list, "view": str}
VIEWS = ("square", "frame", "lesion")


def describes_data(value) -> bool:
    """Whether a value out of a file is what `data.Found.describe` gives, and "trained_on", the splits of training."""
    known = isinstance(value, dict) and all(type(value.get(key)) is kind for key, kind in KINDS.items())
    sized = known and 8 <= value["size"] <= LARGEST and value["view"] in VIEWS
    return sized and all({"spec", "hospital", "md5"} <= set(one) for one in value["sets"])


def notice(described: dict) -> str | None:
    """What everything made from phantoms says of them; None for real images."""
    side = described["size"]
    return f"PHANTOM data {side}×{side} (generated, not ultrasound)" if described["synthetic"] else None


def hospital_names(specs: Sequence[str]) -> list[str]:
    """A name for each data set: of its file or folder, together with the folder around it where two are the same, or
    where it is "all", as results call all hospitals together. Raises: UserError where two cannot be told apart."""
    places = [Path(os.path.abspath(spec)) for spec in specs]
    short = [path.name if os.path.isdir(path) else path.stem for path in places]
    clear = [name != "all" and short.count(name) == 1 for name in short]
    names = [name if one else f"{path.parent.name}/{name}" for path, name, one in zip(places, short, clear)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--data: two data sets are called {twice[0]}; rename a folder, or name each data set once")
    return names
