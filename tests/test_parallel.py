"""Copies of a function at work beside this process; test_tune.py interrupts and kills them."""

import os
import signal
from functools import partial

import pytest

from common import parallel
from common.errors import UserError
from common.seed import set_seed


def leave_mark(folder) -> None:
    """One copy after the other: the first is killed, the others meet a user's error."""
    (folder / str(os.getpid())).touch()
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        raise UserError("to be said by the process that waits") from None
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_copies_are_waited_for_however_they_end_and_stay_silent(tmp_path, capfd):
    parallel.run_copies(leave_mark, (tmp_path,), 3, partial(set_seed, 0, 1))
    assert len(list(tmp_path.iterdir())) == 4 and capfd.readouterr() == ("", "")
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
