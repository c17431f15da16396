"""Every setting of a training run, its default and its reason, in one place.

Each field is a flag of train.py, tune.py and crossval.py, a key of best.json, and an entry of "config" in metrics.json.
results/README.md says which defaults were measured, and how.
"""

import argparse
from dataclasses import dataclass, field, fields

from common.description import VIEWS
from common.errors import UserError
from common.files import read_json
from common.kinds import (
    NATURAL,
    NOT_NEGATIVE,
    ON_OFF,
    POSITIVE,
    POSITIVE_INT,
    SHARE,
    SHARE_BELOW_ONE,
    Kind,
    number,
    one_of,
)


def written(value):
    """A setting as files and the command line have it: on and off for a boolean."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def setting(default, kind: Kind, reason: str):
    """A dataclass field with what its flag needs."""
    return field(default=default, metadata={"kind": kind, "help": reason})


@dataclass(frozen=True)
class Settings:
    """What decides a trained model, besides the data and the seed."""

    lr: float = setting(3e-4, POSITIVE, "peak learning rate of AdamW")
    wd: float = setting(1e-2, NOT_NEGATIVE, "decoupled weight decay of AdamW, on weight matrices only")
    epochs: int = setting(20, POSITIVE_INT, "passes over the training images")
    batch_size: int = setting(32, POSITIVE_INT, "images per step")
    warmup: float = setting(0.2, SHARE, "share of the steps in which the rate climbs; then it falls as a cosine to 0")
    weights: str = setting(
        "imagenet", Kind(str, "WHAT"), "start from torchvision's ImageNet weights, from 'none', or from a FILE"
    )
    view: str = setting(
        "auto",
        one_of("auto", *VIEWS),
        "what is looked at: the middle square, the whole frame, or the lesion and the frame; auto: the square of .npz "
        "data and phantoms, else the lesion where an image has a box, and the frame where none has",
    )
    stages: int | str = setting(
        "auto", one_of("auto", 2, 3, 4), "residual stages of the trunk; auto: 3 for what is below 64 pixels, else all 4"
    )
    loss: str = setting("cross-entropy", one_of("cross-entropy", "focal"), "cross-entropy or focal")
    label_smoothing: float = setting(0.0, SHARE_BELOW_ONE, "share by which targets move towards 1/2")
    class_weights: str = setting("none", one_of("none", "balanced"), "none, or balanced: both classes weigh the same")
    mixup: float = setting(0.4, number(float, 0, 1000), "alpha of mixup's Beta distribution; 0 turns it off")
    augment: bool = setting(True, ON_OFF, "random mirror, rotation, scale, shift, gain and erasing")
    ema: float = setting(
        0.98, SHARE_BELOW_ONE, "decay per step of the weight average that is kept; 0 keeps the last weights"
    )
    patience: int = setting(
        10, NATURAL, "train.py: stop after this many epochs without a lower validation loss; 0: keep the last"
    )
    mirror: bool = setting(True, ON_OFF, "average each prediction with the mirrored image's")
    zoom: float = setting(0.15, SHARE_BELOW_ONE, "augmentation scales by up to this share, in or out")
    scanners: str = setting(
        "auto",
        one_of("auto", "on", "off"),
        "augmentation also varies gamma, sharpness and speckle, as they differ between scanners; auto: on in the views "
        "frame and lesion, off in the view square",
    )
    precision: str = setting(
        "auto", one_of("auto", "fp32", "bf16"), "of convolutions in training; auto: bf16 where that is fast, else fp32"
    )

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Settings":
        """Settings from the command line: a flag wins over --params, which wins over the default. Raises: UserError."""
        params = read_params(args.params) if getattr(args, "params", None) else {}
        given = {f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)}
        return cls(**(params | given))

    @property
    def varies_scanners(self) -> bool:
        """What `scanners` means for the view."""
        return self.scanners == "on" or self.scanners == "auto" and self.view in ("frame", "lesion")

    def as_dict(self) -> dict:
        """{name: value} as files keep it, from which `read_params` makes the same settings."""
        return {f.name: written(getattr(self, f.name)) for f in fields(self)}


KINDS: dict[str, Kind] = {f.name: f.metadata["kind"] for f in fields(Settings)}


def read_params(path: str) -> dict:
    """Settings from a JSON file, such as tune.py's best.json. "synthetic" and keys with an underscore are for people;
    any other that is no setting is refused. Raises: UserError."""
    params = read_json(path, "give a file that tune.py wrote")
    return {name: check(name, value, path) for name, value in params.items() if name[:1] != "_" and name != "synthetic"}


def check(name: str, value, path: str):
    """One setting out of a file, held to the same bounds as its flag. Raises: UserError."""
    if name not in KINDS:
        raise UserError(f"{path}: {name!r} is no setting; known are {', '.join(KINDS)}")
    try:
        return KINDS[name].read(str(value))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{path}: {name}: {error}") from None
