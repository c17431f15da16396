"""Command lines of all scripts: the parser, the flags of the machine, exit codes, and errors in one line.

This file loads no training code, because predict.py imports this file.
"""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable

from common.errors import UserError, one_line
from common.kinds import THREADS, Kind, one_of
from common.parallel import cpu_count


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports a bad flag in one line, without the usage."""

    def __init__(self, description: str | None):
        super().__init__(description=description, allow_abbrev=False)

    def error(self, message: str):
        self.exit(2, f"error: {one_line(message)}. See --help\n")


def add(parser, flag: str, kind: Kind, help: str, default=None, shown: str | None = None, **more) -> None:
    """Add a flag that takes a value. The help ends with the default, or with `shown` instead."""
    text = f"{help} (default: {'%(default)s' if shown is None else shown})"
    parser.add_argument(flag, type=kind.read, default=default, metavar=kind.metavar, help=text, **more)


def add_switch(parser, flag: str, help: str) -> None:
    """Add a flag that takes no value and is off by default."""
    parser.add_argument(flag, action="store_true", help=f"{help} (default: off)")


def add_machine_flags(parser: Parser, device: bool = True) -> None:
    """Add --threads and, for scripts that use torch, --device."""
    group = parser.add_argument_group("machine")
    add(group, "--threads", THREADS, "number of CPU threads", cpu_count(), shown="all")
    if device:
        add(
            group,
            "--device",
            one_of("auto", "cpu", "cuda"),
            "where to compute; auto uses a GPU if there is one",
            "auto",
        )


def print_anything() -> None:
    """Let stdout and stderr take every character. A character that the console cannot show becomes an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(main: Callable[[], None]) -> None:
    """Run the main function of a script.

    Exit status: 0 when main returns; 2 after a `UserError`, which is printed as one line; 130 after Ctrl-C; 143 after
    SIGTERM; 141 when the reader of the output closes the pipe, as head does.
    """
    print_anything()
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discards what is still buffered
        sys.exit(141)
