"""What the scripts' command lines share: flags, exit codes, and the one line that explains an error."""

import argparse
import os
import signal
import sys
from collections.abc import Callable

from common import settings
from common.errors import UserError
from common.settings import NATURAL, POSITIVE_INT, number, one_of

INNER_SHARE = number(float, 0, 1, low_open=True, high_open=True)


class Parser(argparse.ArgumentParser):
    """argparse, with a bad flag ending in one line instead of the whole usage, as every other error does."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False)

    def error(self, message: str):
        self.exit(2, f"error: {message}; see python {self.prog} --help\n")


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_machine_flags(parser: Parser) -> None:
    """--threads and --device."""
    group = parser.add_argument_group("machine")
    group.add_argument("--threads", type=POSITIVE_INT, default=cpu_count(), metavar="N", help="CPU threads (default: all)")
    group.add_argument("--device", type=one_of("auto", "cpu", "cuda"), default="auto", metavar="NAME",
                       help="auto (a GPU if there is one), cpu or cuda (default: %(default)s)")


def add_data_flags(parser: Parser) -> None:
    """The flags that say which images, and which seed."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", default="breastmnist", metavar="NAME",
                       help="breastmnist, phantom (generated, no network), or a FILE.npz with MedMNIST's keys "
                       "(default: %(default)s)")
    group.add_argument("--data-root", metavar="DIR",
                       help="folder of MedMNIST's files (default: $MEDMNIST_ROOT, else ~/.medmnist)")
    group.add_argument("--size", type=one_of(28, 64, 128, 224), default=28, metavar="SIDE",
                       help="side of the images in pixels: 28, 64, 128 or 224 (default: %(default)s)")
    group.add_argument("--seed", type=NATURAL, default=0, metavar="N", help="seed of everything random (default: %(default)s)")


def add_sensitivity_flag(parser: Parser, default: float | None = 0.95) -> None:
    """--sensitivity, of the operating point that is stored with a run."""
    parser.add_argument("--sensitivity", type=INNER_SHARE, default=default, metavar="S",
                        help="choose the operating point, on held-out predictions, to find at least this share of the "
                        "malignant images (default: " + ("as stored)" if default is None else "%(default)s)"))


def add_run_flags(parser: Parser, out: str) -> None:
    """The flags of a script that trains: where to, on what, how."""
    parser.add_argument("--out", default=out, metavar="DIR", help="folder for the results (default: %(default)s)")
    parser.add_argument("--params", metavar="FILE", help="settings from a JSON file, such as tune.py's best.json; flags win")
    add_data_flags(parser)
    add_machine_flags(parser)
    settings.add_flags(parser)


def run(main: Callable[[], None]) -> None:
    """Run a script's main: 0 when it returns, 2 with one line for a user's error, 130 for Ctrl-C, 143 for SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
