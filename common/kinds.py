"""Kinds of values that flags take: how each text is read and checked, and what --help shows."""

import argparse
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of value. `read` turns a text into the value, as argparse's `type` does; --help shows `metavar`."""

    read: Callable[[str], Any]
    metavar: str


def number(kind, low, high, low_open=False, high_open=False) -> Kind:
    """Return the kind of a finite int or float within bounds. Its errors name the bounds. An open bound is excluded."""
    expected = f"{'a whole number' if kind is int else 'a number'} {'above' if low_open else 'at least'} {low:g}"
    if math.isfinite(high):
        expected += f" and {'below' if high_open else 'at most'} {high:g}"

    def read(text: str):
        with suppress(ValueError, OverflowError):  # the text is no number, or a whole number beyond any float
            value = kind(text)
            above = value > low if low_open else value >= low
            below = value < high if high_open else value <= high
            if above and below and math.isfinite(value):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")

    return Kind(read, "N" if kind is int else "X")


def one_of(*choices) -> Kind:
    """Return the kind of a choice among the given words or numbers."""
    named = {str(choice): choice for choice in choices}

    def read(text: str):
        if text not in named:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(named)}")
        return named[text]

    return Kind(read, f"{{{','.join(named)}}}")


def not_empty(given: str) -> str:
    """Return the text itself. Raises: argparse.ArgumentTypeError on an empty text."""
    if not given:
        raise argparse.ArgumentTypeError("the value is empty")
    return given


ON_OFF = Kind(lambda text: one_of("on", "off").read(text) == "on", "{on,off}")
POSITIVE_INT = number(int, 1, 10**9)
NATURAL = number(int, 0, 2**32 - 1)
POSITIVE = number(float, 0, math.inf, low_open=True)
NOT_NEGATIVE = number(float, 0, math.inf)
SHARE = number(float, 0, 1)
SHARE_BELOW_ONE = number(float, 0, 1, high_open=True)
INNER_SHARE = number(float, 0, 1, low_open=True, high_open=True)
THREADS = number(int, 1, 1024)  # more than any machine has; the system refuses to start thousands
WHAT, FOLDER, FILE = Kind(not_empty, "WHAT"), Kind(not_empty, "DIR"), Kind(str, "FILE")
