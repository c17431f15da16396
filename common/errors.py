"""Errors that a user can cause and one line can explain."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Its message names the cause and the way out; scripts print it alone, without traceback, and exit with 2."""


def one_line(message: str) -> str:
    """A message as one line, whatever file name or foreign text is in it."""
    return " ".join(message.split())


@contextmanager
def reading(path: str | Path, what: str = "damaged", way_out: str = "train the run again") -> Iterator[None]:
    """Make one line of whatever goes wrong with a file from outside: what is in it may be anything, and so is what
    libraries raise of it. Raises: UserError, "PATH: WHAT; WAY_OUT" or, by the system, "PATH: cannot be read (…); …"."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {way_out}") from None
    except Exception:
        raise UserError(f"{path}: {what}; {way_out}") from None
