"""What several test files share: to run scripts, read and damage files. Data and models: common_fixtures.py."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from common.errors import UserError

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a background shell leaves it, for every process to inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
REPO = Path(__file__).resolve().parent.parent
ENCODING_WARNINGS = {"PYTHONWARNDEFAULTENCODING": "1", "PYTHONWARNINGS": "default::EncodingWarning"}


def pytest_configure(config) -> None:
    """What imports torch is not for the process that only hands out tests to others (tx: by xdist)."""
    if hasattr(config, "workerinput") or not config.option.tx:
        config.pluginmanager.import_plugin("common_fixtures")


def pytest_collection_modifyitems(items) -> None:
    """The longest file first, so that in the end no process is left alone with it."""
    items.sort(key=lambda item: item.path.name != "test_scripts.py")


def one_line(err: str) -> str:
    """The only error, beside notes, warnings, tables of the data and progress."""
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "Traceback" not in err
    return line


def start(script: str, *words, until: str = "", encoding: str = "utf-8", **how) -> tuple[subprocess.Popen, str]:
    """Start a script as a process on one thread, and read its stderr up to a line that holds a text. encoding: of the
    console; how: of Popen. Returns: (process, what was read)."""
    command, pipe = [sys.executable, *map(str, (REPO / script, *words))], subprocess.PIPE
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": encoding} | ENCODING_WARNINGS
    how |= {"cwd": REPO, "env": env, "encoding": encoding}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, **how)
    read = ""
    while until not in read:
        assert process.stderr and (line := process.stderr.readline()), f"the script ended: {read}"
        read += line
    return process, read


def run(script: str, *words, status: int = 0, encoding: str = "utf-8") -> tuple[str, str]:
    """Run a script to its end, as a process of its own. It names the encoding of every text file: where it does not,
    Windows would take another. Returns: (stdout, stderr)."""
    process, _ = start(script, *words, encoding=encoding)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    assert [line for line in err.splitlines() if "EncodingWarning" in line and str(REPO) in line] == []
    return out, err


def refusal(function, *given) -> str:
    """The one line with which a function refuses."""
    with pytest.raises(UserError) as caught:
        function(*given)
    assert (message := str(caught.value)) and "\n" not in message
    return message


def damaged(content: bytes, changes: Iterable[tuple[float, int | bytes]]) -> bytes:
    """A copy of a file with damage. changes: (place from 0 to 1, the bit to flip or the bytes to write there)."""
    copy = bytearray(content)
    for place, change in changes:
        at = int(place * len(copy))
        if isinstance(change, int):
            copy[at] ^= 1 << change
        else:
            copy[at : at + len(change)] = change
    return bytes(copy)


def read_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not strict JSON")

    return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)


def read_csv(path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def breastmnist_root() -> Path:
    """The folder of the real files; tests that need it are skipped, with the reason, where there is none."""
    beside = REPO.parent / "shared" / "data"
    root = Path(os.environ.get("MEDMNIST_ROOT") or beside)
    if not (root / "breastmnist.npz").exists():
        pytest.skip(f"no breastmnist.npz in {root}; set MEDMNIST_ROOT to the folder that holds it")
    return root
