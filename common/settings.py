"""The settings of a training run, with their defaults and help texts.

Each field is a flag of train.py, tune.py and crossval.py, a key of best.json, and an entry of "config" in metrics.json.
results/README.md says how the defaults were measured.
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
    """Return the value of a setting as files and the command line write it. A boolean becomes on or off."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def setting(default, kind: Kind, reason: str):
    """Return a dataclass field with the kind of value and the help text of its flag."""
    return field(default=default, metadata={"kind": kind, "help": reason})


@dataclass(frozen=True)
class Settings:
    """Settings that decide a trained model, together with the data and the seed."""

    lr: float = setting(3e-4, POSITIVE, "peak learning rate of AdamW")
    wd: float = setting(1e-2, NOT_NEGATIVE, "decoupled weight decay of AdamW; only weight matrices decay")
    epochs: int = setting(20, POSITIVE_INT, "passes over the training images")
    batch_size: int = setting(32, POSITIVE_INT, "images per step")
    warmup: float = setting(
        0.2, SHARE, "share of the steps in which the learning rate rises; then the rate falls to 0 as a cosine"
    )
    weights: str = setting(
        "imagenet",
        Kind(str, "WHAT"),
        "initial weights: imagenet (a download of torchvision), none (random weights), or a FILE",
    )
    view: str = setting(
        "auto",
        one_of("auto", *VIEWS),
        "what the model looks at: the middle square, the whole frame, or the lesion and the frame. auto: square for "
        ".npz files and phantoms, lesion if an image has a box, otherwise frame",
    )
    stages: int | str = setting(
        "auto",
        one_of("auto", 2, 3, 4),
        "residual stages of the trunk; auto: 3 for images below 64 pixels and for the network that finds the lesion, "
        "otherwise 4",
    )
    loss: str = setting("cross-entropy", one_of("cross-entropy", "focal"), "loss function")
    label_smoothing: float = setting(0.0, SHARE_BELOW_ONE, "move each target towards 1/2 by this share")
    class_weights: str = setting(
        "none", one_of("none", "balanced"), "weights in the loss. none: all images equal; balanced: both classes equal"
    )
    mixup: float = setting(
        0.4,
        number(float, 0, 1000),
        "alpha of the Beta distribution of mixup; 0: no mixup. The network that finds the lesion trains without mixup",
    )
    augment: bool = setting(
        True, ON_OFF, "change training images at random: mirror, rotation, scale, shift, gain, erasing"
    )
    ema: float = setting(
        0.98,
        SHARE_BELOW_ONE,
        "decay per step of the average of the weights, which becomes the model; 0 keeps the last weights",
    )
    patience: int = setting(
        10, NATURAL, "train.py: stop after this many epochs without a lower validation loss; 0: train all epochs"
    )
    mirror: bool = setting(True, ON_OFF, "average the predictions of each image and of its mirror image")
    zoom: float = setting(
        0.15,
        SHARE_BELOW_ONE,
        "largest share by which augmentation enlarges or shrinks an image; 0.3 for the network that finds the lesion",
    )
    scanners: str = setting(
        "auto",
        one_of("auto", "on", "off"),
        "augmentation also changes gamma, sharpness and speckle, which differ between scanners. auto: on for the views "
        "frame and lesion, off for the view square",
    )
    precision: str = setting(
        "auto",
        one_of("auto", "fp32", "bf16"),
        "number format of convolutions in training; auto: bf16 where bf16 is fast, otherwise fp32",
    )

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Settings":
        """Return the settings of a command line. A flag wins over --params; --params wins over the default.

        Raises: UserError.
        """
        params = read_params(args.params) if getattr(args, "params", None) else {}
        given = {f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)}
        return cls(**(params | given))

    @property
    def varies_scanners(self) -> bool:
        """What `scanners` means for the view."""
        return self.scanners == "on" or self.scanners == "auto" and self.view in ("frame", "lesion")

    def as_dict(self) -> dict:
        """Return {name: value} as files store settings. `read_params` reads the same settings back."""
        return {f.name: written(getattr(self, f.name)) for f in fields(self)}


KINDS: dict[str, Kind] = {f.name: f.metadata["kind"] for f in fields(Settings)}


def read_params(path: str) -> dict:
    """Read settings from a JSON file, such as best.json of tune.py.

    The key "synthetic" and keys that begin with an underscore are for people, and are skipped.
    Raises: UserError on any other key that is no setting, and on bad values.
    """
    params = read_json(path, "give a JSON file that tune.py wrote")
    return {name: check(name, value, path) for name, value in params.items() if name[:1] != "_" and name != "synthetic"}


def check(name: str, value, path: str):
    """Return the value of a setting in a file, checked as the value of a flag is. Raises: UserError."""
    if name not in KINDS:
        raise UserError(f"{path}: unknown setting {name!r}. Use {', '.join(KINDS)}.")
    try:
        return KINDS[name].read(str(value))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{path}: {name}: {error}.") from None
