"""Choice of data and weights when no flag of train.py names them, so that a first run needs no network."""

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


def notice(what: str, error: UserError) -> str:
    """Return a notice in a frame of "#": what the run is, why, and how to get the real data or weights."""
    parts = [what, f"Why: {one_line(str(error))}", "With a network, run the same command again."]
    lines = [textwrap.wrap(part, 74, break_long_words=False, break_on_hyphens=False) for part in parts]
    bar = "#" * 78
    return "\n".join([bar, *(f"## {line}" for part in lines for line in part), bar])


def choose(args: argparse.Namespace, settings: Settings) -> tuple[Found, Settings, str]:
    """Choose what train.py trains on. Returns: the data, the settings, and a notice, "" if nothing was replaced.

    If no flag and no key of --params names data or weights, the first possible choice counts: BreastMNIST from ImageNet
    weights, BreastMNIST from random weights, phantoms from random weights. Otherwise nothing is replaced. `args.data`
    becomes the list of the chosen data sets. Raises: UserError.
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
        for split in ("train", "val"):
            found.sets[0].read(split)  # a damaged file raises its error here
    except UserError as error:
        return find("phantom"), from_scratch, notice(PHANTOMS, error)
    initial_model(found.size, from_scratch)  # an impossible model raises its error here
    try:
        initial_model(found.size, settings)  # keeps the weights in memory for training
    except UserError as error:
        return found, from_scratch, notice(SCRATCH, error)
    return found, settings, ""
