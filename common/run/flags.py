"""What the scripts' command lines share: flags, exit codes, and the one line that explains an error."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import fields

from common.calibration import threshold_rule
from common.errors import UserError, one_line
from common.npzfile import SIZES
from common.parallel import cpu_count
from common.settings import NATURAL, Kind, Settings, number, one_of, written


def not_empty(given: str) -> str:
    """Raises: argparse.ArgumentTypeError when it is empty."""
    if not given:
        raise argparse.ArgumentTypeError("is empty; name one")
    return given


INNER_SHARE = number(float, 0, 1, low_open=True, high_open=True)
THREADS = number(int, 1, 1024)  # far more than any machine has; the system refuses to start thousands
WHAT, FOLDER, FILE = Kind(not_empty, "WHAT"), Kind(not_empty, "DIR"), Kind(str, "FILE")


class Parser(argparse.ArgumentParser):
    """argparse, with a bad flag ending in one line instead of the whole usage, as every other error does."""

    def __init__(self, description: str | None):
        super().__init__(description=description, allow_abbrev=False)

    def error(self, message: str):
        self.exit(2, f"error: {one_line(message)}; see --help\n")


def add(parser, flag: str, kind: Kind, help: str, default=None, shown: str | None = None, **more) -> None:
    """A flag that takes a value; its help ends with the default, or with what `shown` says of it."""
    text = f"{help} (default: {'%(default)s' if shown is None else shown})"
    parser.add_argument(flag, type=kind.read, default=default, metavar=kind.metavar, help=text, **more)


def add_switch(parser, flag: str, help: str) -> None:
    """A flag that takes none, and is off by default."""
    parser.add_argument(flag, action="store_true", help=f"{help} (default: off)")


def add_machine_flags(parser: Parser, device: bool = True) -> None:
    """--threads and, where torch does the work, --device."""
    group = parser.add_argument_group("machine")
    add(group, "--threads", THREADS, "CPU threads", cpu_count(), shown="all")
    if device:
        add(group, "--device", one_of("auto", "cpu", "cuda"), "auto is a GPU if there is one", "auto")


def add_data_flags(parser: Parser, of_run: bool = False, falls_back: bool = False) -> None:
    """The flags that say which images, and which seed.

    Args: of_run: the script reads a run or a model, whose own data are the default (None here); falls_back: it does
    without BreastMNIST where no flag insists on it (--data is None then: `fallback.choose`).
    """
    group = parser.add_argument_group("data")
    kinds = "breastmnist, phantom (generated, no network), a FILE.npz with MedMNIST's keys, a FOLDER with a folder of "
    kinds += "images a class, or a FILE.csv with the columns image,label[,patient][,split]"
    shown = "what the run was trained on" if of_run else None
    if falls_back:
        shown = "breastmnist, or phantoms if it cannot be had and no flag says which data or weights"
    add(group, "--data", WHAT, kinds, None if shown else "breastmnist", shown)
    if of_run:
        also = "where the images of other hospitals lie that the run was trained on too, in their order"
        add(group, "--also", WHAT, also, [], shown="where they were", nargs="+")
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
        point = f"operating point: {threshold_rule('this', 'the held-out images')}"
        add(parser, "--sensitivity", INNER_SHARE, point, 0.95)
    add_data_flags(parser, falls_back=falls_back)
    if calibrates:
        also = "images of other hospitals, as --data takes them, all of which are trained on too"
        add(parser, "--also", WHAT, also, [], shown="none", nargs="+")
    add_machine_flags(parser)
    add_settings_flags(parser)


def run(main: Callable[[], None]) -> None:
    """Run a script's main: 0 when it returns, 2 with one line for a user's error, 130 for Ctrl-C, 143 for SIGTERM, 141,
    as a shell says it, when whoever reads the output has enough, as head does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        try:
            main()
        except UserError as error:
            print(f"error: {one_line(str(error))}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        sys.exit(141)
