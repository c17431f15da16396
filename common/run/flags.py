"""Flags of the scripts that read data or train. `common.run.command` has the flags of every script."""

import argparse
from dataclasses import fields

from common.kinds import FILE, FOLDER, INNER_SHARE, NATURAL, WHAT, Kind, not_empty, one_of
from common.npzfile import SIZES
from common.run.command import Parser, add, add_machine_flags, add_switch, run
from common.settings import Settings, written
from common.thresholds import RULES

__all__ = ["Parser", "add", "add_machine_flags", "add_switch", "run"]


def add_data_flags(
    parser: Parser,
    of_run: bool = False,
    falls_back: bool = False,
    default: str = "the data that the model was trained on",
) -> None:
    """Add the flags that choose the images and the seed.

    Args:
        of_run: the script reads a run or a model. The default of each flag is then None, for the data of the run.
        falls_back: the script can replace BreastMNIST. The default of --data is then None (`fallback.choose`).
        default: with `of_run`, the words of --help for the default of --data.
    """
    group = parser.add_argument_group("data")
    kinds = "one data set or several; each counts as a hospital. Give breastmnist, phantom (generated images, no "
    kinds += (
        "network needed), a FILE.npz with MedMNIST's keys, a FOLDER with one folder per class, a FILE.csv with the "
    )
    kinds += "columns image and label, or the folder of BUSI, BUS-BRA, BrEaST or BUS-UCLM as downloaded"
    shown = default if of_run else None
    if falls_back:
        shown = "breastmnist; phantom if BreastMNIST cannot be downloaded and no flag names data or weights"
    add(group, "--data", WHAT, kinds, None if shown else ["breastmnist"], shown or "breastmnist", nargs="+")
    positive = "name of the class folder with the malignant images"
    add(group, "--positive", Kind(not_empty, "NAME"), positive, shown="as in training" if of_run else "malignant")
    root = Kind(str, "DIR")  # an empty text counts as not given
    add(group, "--data-root", root, "folder with the files of MedMNIST", shown="$MEDMNIST_ROOT, otherwise ~/.medmnist")
    size, seed = ("as in training", "as in training") if of_run else (None, None)
    add(group, "--size", one_of(*SIZES), "side of the images in pixels", None if of_run else 28, size)
    add(group, "--seed", NATURAL, "seed of all random numbers", None if of_run else 0, seed)


def add_settings_flags(parser: Parser) -> None:
    """Add one flag for each setting. A flag that is not given is absent from the namespace: --params can fill it."""
    group = parser.add_argument_group("model and training")
    for f in fields(Settings):
        flag, shown = f"--{f.name.replace('_', '-')}", str(written(f.default))
        add(group, flag, f.metadata["kind"], f.metadata["help"], argparse.SUPPRESS, shown)


def add_run_flags(parser: Parser, out: str, calibrates: bool = True, falls_back: bool = False) -> None:
    """Add the flags of a script that trains: output, data, machine and settings.

    Args:
        out: default of --out.
        calibrates: the script writes a run with an operating point, and can resume the run.
        falls_back: as for `add_data_flags`.
    """
    add(parser, "--out", FOLDER, "folder for the results", out)
    add(
        parser,
        "--params",
        FILE,
        "read settings from a JSON file, such as best.json of tune.py; a flag wins over the file",
        shown="none",
    )
    if calibrates:
        add_switch(parser, "--resume", "continue the interrupted run in --out; give the same other flags as before")
        point = f"the operating point is the {RULES['sensitivity'].format('X')} on images not used for training"
        add(parser, "--sensitivity", INNER_SHARE, point, 0.95)
    add_data_flags(parser, falls_back=falls_back)
    add_machine_flags(parser)
    add_settings_flags(parser)
