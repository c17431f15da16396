"""The data that a run was made with, found again from what it keeps of them (`Source.describe`)."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common import data
from common.data import Source, Split
from common.errors import UserError
from common.npzfile import SIZES, breastmnist_path


def find_again(
    described: dict,
    name: str | None,
    root: str | None,
    size: int | None,
    seed: int | None,
    kept: Path | None = None,
    also: Sequence[str] = (),
    another: str = "warning",
) -> Source:
    """The source of a run from its `describe()`; what is not None is taken instead. Other data than the run's are named
    in a line, which begins with `another`. Raises: UserError, as `find`.

    Args: kept: the run's images.csv, which says of its own images, wherever they lie, what is in which split; also:
    where its other hospitals lie now; of other data than the run's there are none.
    """
    seed = described["seed"] if seed is None else seed  # which may be 0
    source = data.find(name or described["name"], root, size or described["size"], seed, kept)
    warn_of_another(source, described, another)
    if not (also or name is None or source.kept or source.md5 == described["md5"]):
        return source
    try:
        others = find_others(described, root, source.size, also)
    except UserError as error:
        if also:
            raise
        print(f"warning: further images that the model was trained on are left out: {error}", file=sys.stderr)
        return source
    for other, before in zip(others, described.get("also", [])):
        warn_of_another(other, before)
    return replace(source, also=others)


def find_others(described: dict, root: str | None, size: int, names: Sequence[str] = ()) -> tuple[Source, ...]:
    """The other hospitals of a run. names: where they lie now, in their order. Raises: UserError, as `find`."""
    known = described.get("also", [])
    were = [other["name"] for other in known]
    if names and len(names) != len(known):
        raise UserError(f"--also: name all that the model was trained on, in this order: {', '.join(were) or 'none'}")
    return tuple(data.find(place, root, size, other["seed"]) for place, other in zip(names or were, known))


def warn_of_another(source: Source, described: dict, kind: str = "warning") -> None:
    """Say it when data are none of those that a run described."""
    if source.md5 not in [part["md5"] for part in (described, *described.get("also", []))]:
        was = f"{described['name']}, MD5 {described['md5']}"
        now = f"{source.label}, MD5 {source.md5},"
        print(f"{kind}: {now} is not what the model was trained on ({was})", file=sys.stderr)


def load_again(
    described: dict, root: str | None, names: Sequence[str], kept: Path | None = None, also: Sequence[str] = ()
) -> Split | None:
    """The images of splits that a model was made with; None where they are not here: nothing is downloaded for it.
    Their patients are left out: the numbers of two hospitals have nothing to do with each other.

    Args: described: of the model's data, as `Source.describe`; root, kept: as `find`; also: where its other hospitals
    lie now.
    """
    name, size = described["name"], described["size"]
    if name == "breastmnist":  # at any size: the pictures are the same
        size = next((s for s in (size, *SIZES) if breastmnist_path(root, s).exists()), None)
        if size is None:
            return None
    others = described.get("also", [])
    if any(other["name"] == "breastmnist" for other in others) and not breastmnist_path(root, size).exists():
        return None
    try:
        source = data.find(name, root, size, described["seed"], kept)
        same = source.md5 == described["md5"] or source.kept or (name == "breastmnist" and size != described["size"])
        source = replace(source, also=find_others(described, root, size, also))
        same = same and [other.md5 for other in source.also] == [other["md5"] for other in others]
        found = data.concatenate(*data.load(source, *names))
    except UserError:
        return None
    return Split.of("known", found.images, found.labels) if same else None


def describes_data(value) -> bool:
    """Whether a value out of a file is what `Source.describe` gives, and "trained_on"."""
    kinds = {"name": str, "size": int, "seed": int, "md5": str, "synthetic": bool, "trained_on": list}
    known = isinstance(value, dict) and all(type(value.get(key)) is kind for key, kind in kinds.items())
    also = value.get("also", []) if known else []
    return (
        known and value["size"] in SIZES and all(type(o[k]) is kinds[k] for o in also for k in ("name", "seed", "md5"))
    )
