import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.run import lock

HOST = platform.node()
REPO = Path(__file__).parents[2]


def refused(folder) -> str:
    """The one line with which a lock is refused."""
    with pytest.raises(UserError) as caught, lock.hold(folder):
        pytest.fail("the lock was given")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ended_pid() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path):
    with lock.hold(tmp_path):
        message = refused(tmp_path)
        assert f"--out {tmp_path}: another run" in message and f"pid {os.getpid()} on {HOST}" in message
        assert refused(tmp_path) == message  # being refused takes nothing away
        with lock.hold(Path(tmp_path.parent)):
            pass  # of another folder
    assert list(tmp_path.iterdir()) == []
    with lock.hold(tmp_path):
        pass


def test_the_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), lock.hold(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_frees_it(tmp_path, capsys):
    code = "import sys, time; from pathlib import Path; from common import lock\n"
    code += "with lock.hold(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert f"pid {holder.pid} on {HOST}" in refused(tmp_path)
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / lock.NAME).exists()
    with lock.hold(tmp_path):
        assert (tmp_path / lock.NAME).read_text().split() == [str(os.getpid()), HOST]
    assert f"the lock of pid {holder.pid}, which has ended, is taken over" in capsys.readouterr().err


def test_a_lock_of_another_host_is_refused_with_the_way_out(tmp_path):
    file = tmp_path / lock.NAME
    file.write_text("12 elsewhere\n")
    message = refused(tmp_path)
    assert "pid 12 on elsewhere" in message and f"if that run is dead, delete {file}" in message
    assert file.read_text() == "12 elsewhere\n"
    file.unlink()
    with lock.hold(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "half", "x y z\n", "-1 host\n"])
def test_a_lock_file_without_a_holder_in_it(tmp_path, content):
    (tmp_path / lock.NAME).write_text(content)
    with lock.hold(tmp_path):
        assert (tmp_path / lock.NAME).read_text().split() == [str(os.getpid()), HOST]


@pytest.mark.parametrize("absent", ["fcntl", "flock"])
def test_without_the_system_s_locks_the_pid_decides(tmp_path, monkeypatch, absent):
    def unsupported(file, flags):
        raise OSError(95, "Operation not supported")

    if absent == "fcntl":
        monkeypatch.setattr(lock, "fcntl", None)
    else:
        monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    (tmp_path / lock.NAME).write_text(f"{os.getppid()} {HOST}\n")
    assert f"pid {os.getppid()}" in refused(tmp_path)
    (tmp_path / lock.NAME).write_text(f"{ended_pid()} {HOST}\n")
    with lock.hold(tmp_path):
        assert f"pid {os.getpid()}" in refused(tmp_path)


def test_a_file_that_its_holder_removes_meanwhile_is_not_locked(tmp_path, monkeypatch):
    """Between opening and locking, the holder removes the file and another makes a new one: the old one's lock would
    keep nobody out."""
    original, calls = lock.try_lock, []

    def try_lock(file):
        calls.append(file)
        if len(calls) == 1:
            (tmp_path / lock.NAME).unlink()
        return original(file)

    monkeypatch.setattr(lock, "try_lock", try_lock)
    with lock.hold(tmp_path):
        assert len(calls) == 2
        monkeypatch.setattr(lock, "try_lock", original)
        refused(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    assert "cannot be written" in refused(tmp_path / "absent")
