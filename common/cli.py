"""What the scripts' command lines share: flags, exit codes, and the one line that explains an error."""

import argparse
import os
import signal
import sys
from collections.abc import Callable

from common import settings
from common.data import SIZES
from common.errors import UserError, one_line
from common.settings import NATURAL, number, one_of

INNER_SHARE = number(float, 0, 1, low_open=True, high_open=True)
THREADS = number(int, 1, 1024)  # far more than any machine has; the system refuses to start thousands


class Parser(argparse.ArgumentParser):
    """argparse, with a bad flag ending in one line instead of the whole usage, as every other error does."""

    def __init__(self, description: str):
        super().__init__(description=description, allow_abbrev=False)

    def error(self, message: str):
        self.exit(2, f"error: {one_line(message)}; see --help\n")


def cpu_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_machine_flags(parser: Parser, device: bool = True) -> None:
    """--threads and, where torch does the work, --device."""
    group = parser.add_argument_group("machine")
    group.add_argument("--threads", type=THREADS, default=cpu_count(), metavar="N", help="CPU threads (default: all)")
    if device:
        group.add_argument(
            "--device",
            type=one_of("auto", "cpu", "cuda"),
            default="auto",
            metavar="NAME",
            help="auto (a GPU if there is one), cpu or cuda (default: %(default)s)",
        )


def add_data_flags(parser: Parser, run: bool = False) -> None:
    """The flags that say which images, and which seed.

    Args: run: the script reads a run or a model, whose own data are the default (None here).
    """
    group = parser.add_argument_group("data")
    of_run = "what the run was trained on" if run else None
    group.add_argument(
        "--data",
        default=None if run else "breastmnist",
        metavar="NAME",
        help="breastmnist, phantom (generated, no network), or a FILE.npz with MedMNIST's keys "
        f"(default: {of_run or 'breastmnist'})",
    )
    group.add_argument(
        "--data-root", metavar="DIR", help="folder of MedMNIST's files (default: $MEDMNIST_ROOT, else ~/.medmnist)"
    )
    group.add_argument(
        "--size",
        type=one_of(*SIZES),
        default=None if run else 28,
        metavar="SIDE",
        help=f"side of the images in pixels: 28, 64, 128 or 224 (default: {'the run’s' if run else 28})",
    )
    group.add_argument(
        "--seed",
        type=NATURAL,
        default=None if run else 0,
        metavar="N",
        help=f"seed of everything random (default: 0{', or the run’s for its phantoms' if run else ''})",
    )


def add_run_flags(parser: Parser, out: str, calibrates: bool = True) -> None:
    """The flags of a script that trains: where to, on what, how.

    Args: out: default of --out; calibrates: the script leaves a run behind, with an operating point, and can resume it.
    """
    parser.add_argument("--out", default=out, metavar="DIR", help="folder for the results (default: %(default)s)")
    if calibrates:
        parser.add_argument(
            "--resume",
            action="store_true",
            help="go on with the interrupted run in --out; the other flags stay the same (default: off)",
        )
    parser.add_argument(
        "--params",
        metavar="FILE",
        help="settings from a JSON file, such as tune.py's best.json; flags win (default: none)",
    )
    if calibrates:
        parser.add_argument(
            "--sensitivity",
            type=INNER_SHARE,
            default=0.95,
            metavar="S",
            help="operating point: the highest threshold that finds at least this share of the "
            "malignant images among held-out predictions (default: %(default)s)",
        )
    add_data_flags(parser)
    add_machine_flags(parser)
    settings.add_flags(parser)


def run(main: Callable[[], None]) -> None:
    """Run a script's main: 0 when it returns, 2 with one line for a user's error, 130 for Ctrl-C, 143 for SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
