"""What train.py trains on where no flag says it, so that its first run comes to a table anywhere."""

import argparse
import textwrap
from dataclasses import replace

from common import data
from common.data import Found
from common.errors import UserError, one_line
from common.settings import Settings, read_params
from common.weights import initial_model

PHANTOMS = "PHANTOM DATA. BreastMNIST is missing, so this run trains on generated images, from random weights. "
PHANTOMS += "Every number of this run is PHANTOM: it shows that the program works, and says nothing about ultrasound."
SCRATCH = "RANDOM WEIGHTS. The ImageNet weights are missing, so this run on BreastMNIST starts from random weights. "
SCRATCH += "Its numbers are lower than those of the README."


def frame(what: str, error: UserError) -> str:
    """Return a notice in a frame: what the run is, why, and what to do."""
    parts = [what, f"Why: {one_line(str(error))}", "With a network, run the same command again."]
    lines = [textwrap.wrap(part, 74, break_long_words=False, break_on_hyphens=False) for part in parts]
    bar = "#" * 78
    return "\n".join([bar, *(f"## {line}" for part in lines for line in part), bar])


def choose(args: argparse.Namespace, settings: Settings) -> tuple[Found, Settings, str]:
    """What to train on, and a notice of what stands in for something else ("" of nothing).

    Without --data, --data-root and weights, by flag or in --params: BreastMNIST from the ImageNet weights; from
    scratch where these cannot be had; phantoms from scratch where BreastMNIST cannot. One of these flags, and all is as
    it says, or by default, or an error. `args.data` becomes what was chosen. Raises: UserError.
    """

    def find(name: str) -> Found:
        args.data = [name]
        return data.find(args.data, args.data_root, args.size, args.seed, view=settings.view)

    params = read_params(args.params) if args.params else {}
    if args.data is not None:
        view = settings.view
        return data.find(args.data, args.data_root, args.size, args.seed, args.positive, view=view), settings, ""
    if args.data_root is not None or hasattr(args, "weights") or "weights" in params:
        return find("breastmnist"), settings, ""
    from_scratch = replace(settings, weights="none")
    try:
        found = find("breastmnist")
        data.load(found, "train", "val")
    except UserError as error:
        return find("phantom"), from_scratch, frame(PHANTOMS, error)
    initial_model(found.size, from_scratch)  # of a model that cannot be, the weights are not to blame
    try:
        initial_model(found.size, settings)  # whose weights training then finds read
    except UserError as error:
        return found, from_scratch, frame(SCRATCH, error)
    return found, settings, ""
