"""The flags of the scripts that read data or train. `common.run.command` has the flags of every script."""

import argparse
from dataclasses import fields

from common.kinds import FILE, FOLDER, INNER_SHARE, NATURAL, WHAT, Kind, not_empty, one_of
from common.npzfile import SIZES
from common.run.command import Parser, add, add_machine_flags, add_switch, run
from common.settings import Settings, written
from common.thresholds import WORDS

__all__ = [
    "FILE",
    "FOLDER",
    "INNER_SHARE",
    "WHAT",
    "Parser",
    "add",
    "add_machine_flags",
    "add_switch",
    "not_empty",
    "run",
]


def add_data_flags(parser: Parser, of_run: bool = False, falls_back: bool = False) -> None:
    """The flags that say which images, and which seed.

    Args: of_run: the script reads a run or a model, whose own data are the default (None here); falls_back: it does
    without BreastMNIST where no flag insists on it (--data is None then: `fallback.choose`).
    """
    group = parser.add_argument_group("data")
    kinds = "one data set or several, each a hospital: breastmnist, phantom (generated, no network), a FILE.npz with "
    kinds += "MedMNIST's keys, a FOLDER with one folder per class, a FILE.csv with the columns image and label, or the "
    kinds += "folder of BUSI, BUS-BRA, BrEaST or BUS-UCLM as downloaded"
    shown = "the data that the model was trained on" if of_run else None
    if falls_back:
        shown = "breastmnist, or phantoms if it cannot be had and no flag says which data or weights"
    add(group, "--data", WHAT, kinds, None if shown else ["breastmnist"], shown or "breastmnist", nargs="+")
    add(group, "--positive", Kind(not_empty, "NAME"), "the class folder of malignant images", shown="malignant")
    root = Kind(str, "DIR")  # an empty one is none
    add(group, "--data-root", root, "folder of MedMNIST's files", shown="$MEDMNIST_ROOT, else ~/.medmnist")
    size, seed = ("the run's", "0, or the run's for its phantoms") if of_run else (None, None)
    add(group, "--size", one_of(*SIZES), "side of the images in pixels", None if of_run else 28, size)
    add(group, "--seed", NATURAL, "seed of everything random", None if of_run else 0, seed)


def add_settings_flags(parser: Parser, **defaults) -> None:
    """One flag for each setting. Flags not given are absent from the namespace, so that --params can fill them; but
    those whose default a script changes, by `defaults`, are there."""
    group = parser.add_argument_group("model and training")
    for f in fields(Settings):
        flag, shown = f"--{f.name.replace('_', '-')}", str(written(defaults.get(f.name, f.default)))
        add(group, flag, f.metadata["kind"], f.metadata["help"], defaults.get(f.name, argparse.SUPPRESS), shown)


def add_run_flags(parser: Parser, out: str, calibrates: bool = True, falls_back: bool = False) -> None:
    """The flags of a script that trains: where to, on what, how.

    Args: out: default of --out; calibrates: the script leaves a run behind, with an operating point, and can resume it;
    falls_back: as `add_data_flags`.
    """
    add(parser, "--out", FOLDER, "folder for the results", out)
    add(parser, "--params", FILE, "settings from a JSON file, such as tune.py's best.json; flags win", shown="none")
    if calibrates:
        add_switch(parser, "--resume", "go on with the interrupted run in --out; the other flags stay the same")
        point = f"operating point: {WORDS['sensitivity'].format('this')} on images not trained on"
        add(parser, "--sensitivity", INNER_SHARE, point, 0.95)
    add_data_flags(parser, falls_back=falls_back)
    add_machine_flags(parser)
    add_settings_flags(parser)
