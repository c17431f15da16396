"""Errors that a user can cause and one line can explain."""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What libraries raise when they read a damaged file. Errors in our own code, such as NameError, are not among them.
FORMAT_ERRORS = (
    *(ValueError, LookupError, TypeError, RuntimeError, EOFError, MemoryError, SyntaxError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError),
)


class UserError(Exception):
    """Its message names the cause and the way out; scripts print it alone, without traceback, and exit with 2."""


def one_line(message: str) -> str:
    """A message as one line, whatever file name or foreign text is in it."""
    return " ".join(message.split())


@contextmanager
def reading(
    path: str | Path,
    what: str = "damaged",
    way_out: str = "train the run again",
    errors: tuple[type[Exception], ...] = FORMAT_ERRORS,
) -> Iterator[None]:
    """Make one line of what goes wrong with a file from outside. errors: what its format's library raises.
    Raises: UserError, "PATH: WHAT; WAY_OUT" or, by the system, "PATH: cannot be read (…); …"."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {way_out}") from None
    except errors:
        raise UserError(f"{path}: {what}; {way_out}") from None
