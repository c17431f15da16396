"""What every script's command line needs: a parser, flags of the machine, exit codes, one line for an error. Loads no
training code: predict.py imports this file."""

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
    """argparse, but a bad flag gives one line, as every other error does, instead of the whole usage."""

    def __init__(self, description: str | None):
        super().__init__(description=description, allow_abbrev=False)

    def error(self, message: str):
        self.exit(2, f"error: {one_line(message)}; see --help\n")


def add(parser, flag: str, kind: Kind, help: str, default=None, shown: str | None = None, **more) -> None:
    """Add a flag that takes a value. Its help ends with the default, or with `shown` in place of the default."""
    text = f"{help} (default: {'%(default)s' if shown is None else shown})"
    parser.add_argument(flag, type=kind.read, default=default, metavar=kind.metavar, help=text, **more)


def add_switch(parser, flag: str, help: str) -> None:
    """Add a flag that takes no value and is off by default."""
    parser.add_argument(flag, action="store_true", help=f"{help} (default: off)")


def add_machine_flags(parser: Parser, device: bool = True) -> None:
    """Add --threads and, for scripts that use torch, --device."""
    group = parser.add_argument_group("machine")
    add(group, "--threads", THREADS, "CPU threads", cpu_count(), shown="all")
    if device:
        add(group, "--device", one_of("auto", "cpu", "cuda"), "auto is a GPU if there is one", "auto")


def print_anything() -> None:
    """Let stdout and stderr take every character: a console's encoding that lacks one shows its escape instead."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(main: Callable[[], None]) -> None:
    """Run a script's main. Exit status: 0 when main returns, 2 with one line for a user's error, 130 for Ctrl-C, 143
    for SIGTERM, and 141 (as a shell says it) when the reader of the output has enough, as head does."""
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        sys.exit(141)
