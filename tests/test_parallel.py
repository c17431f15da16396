"""Processes that work beside this one."""

import os
import signal
import time

import pytest

from common import parallel
from common.errors import UserError


def wait_to_be_ended(folder) -> None:
    """Leave a file named after the process, and at an orderly end another."""
    (folder / str(os.getpid())).touch()
    try:
        time.sleep(100)
    finally:
        (folder / f"{os.getpid()} ended").touch()


def fail(folder) -> None:
    (folder / "failed").touch()
    raise UserError("to be said by the process that is accompanied")


def wait_for(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_killed_companion_leaves_the_others_and_an_error_ends_them_in_order(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with parallel.companions(wait_to_be_ended, (tmp_path,), 2, 0, 1):
            wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
            killed, left = (int(path.name) for path in tmp_path.iterdir())
            os.kill(killed, signal.SIGKILL)
            os.kill(left, signal.SIGINT)  # Ctrl-C reaches all, but is left to this process
            time.sleep(0.5)
            os.kill(left, 0)
            raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {str(killed), str(left), f"{left} ended"}
    with pytest.raises(ProcessLookupError):
        os.kill(left, 0)


def test_a_companion_s_user_error_is_silent_and_no_companions_are_none(tmp_path, capfd):
    with parallel.companions(fail, (tmp_path,), 1, 0, 1):
        pass
    assert (tmp_path / "failed").exists() and capfd.readouterr() == ("", "")
    with parallel.companions(fail, (tmp_path / "absent",), 0, 0, 1):
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
