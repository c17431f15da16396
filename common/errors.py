"""Errors that a user can cause and one line can explain."""


class UserError(Exception):
    """Its message names the cause and the way out; scripts print it alone, without traceback, and exit with 2."""
