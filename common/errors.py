"""Errors that a user can cause and one line can explain."""


class UserError(Exception):
    """Its message names the cause and the way out; scripts print it alone, without traceback, and exit with 2."""


def one_line(message: str) -> str:
    """A message as one line, whatever file name or foreign text is in it."""
    return " ".join(message.split())
