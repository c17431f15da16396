"""Errors that a user can cause, each explained in one line."""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Exceptions of libraries that read a damaged file. Errors in our own code, such as NameError, are not among them.
FORMAT_ERRORS = (
    *(ValueError, LookupError, TypeError, RuntimeError, EOFError, MemoryError, SyntaxError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError),
)


class UserError(Exception):
    """A mistake of the user. The message says what is wrong, where, and what to do.

    Scripts print the message in one line, without a traceback, and exit with status 2.
    """


def one_line(message: str) -> str:
    """Return a message as one line, even if a file name or a foreign text in the message has line breaks."""
    return " ".join(message.split())


def sentence(words: str) -> str:
    """Return words as a sentence, with a capital letter and a full stop."""
    return f"{words[:1].upper()}{words[1:]}."


@contextmanager
def reading(
    path: str | Path,
    what: str = "is damaged",
    way_out: str = "train the run again",
    errors: tuple[type[Exception], ...] = FORMAT_ERRORS,
) -> Iterator[None]:
    """Turn the errors of reading a file into one line.

    Args: errors: the exceptions that the library of the file format raises.
    Raises: UserError, "PATH: WHAT. WAY_OUT." or, if the system refuses, "PATH: cannot be read (REASON). WAY_OUT.".
    """
    advice = sentence(way_out)
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). {advice}") from None
    except errors:
        raise UserError(f"{path}: {what}. {advice}") from None
