"""Work in several processes, and its end; test_tune.py interrupts and kills copies of a function."""

import os
import signal
import time
from functools import partial

import pytest
from conftest import start

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
    before = signal.getsignal(signal.SIGINT)
    parallel.run_copies(leave_mark, (tmp_path,), 3, partial(set_seed, 0, 1))
    assert len(list(tmp_path.iterdir())) == 4 and capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_ctrl_c_while_the_workers_begin_ends_the_run(tmp_path):
    """The first tasks are larger than a pipe, and nobody has read them yet."""
    flags = "--data phantom --weights none --stages 2 --epochs 2 --threads 2 --jobs 2".split()
    process, _ = start("crossval.py", *flags, "--out", tmp_path / "run", until="No patients are known")
    try:
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
