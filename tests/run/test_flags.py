import os
import subprocess
import sys

import pytest
from conftest import REPO

MAIN = """import sys
from common.errors import UserError
from common.run import flags
def main():
    print("a table")
    {}
flags.run(main)"""


@pytest.mark.parametrize(
    "words, error",
    [
        (["predict.py", "--help"], ""),
        (["-c", MAIN.format("pass")], ""),
        (["-c", MAIN.format("print('more', flush=True)")], ""),
        (["-c", MAIN.format("raise UserError('why')")], "error: why\n"),
    ],
)
def test_a_reader_that_has_enough_is_no_error(words, error):
    """As head does: it closes the pipe, and what the script still prints goes nowhere."""
    reader, closed = os.pipe()
    os.close(reader)
    command, env = [sys.executable, *words], os.environ | {"PYTHONUNBUFFERED": ""}
    ended = subprocess.run(command, cwd=REPO, env=env, stdout=closed, stderr=subprocess.PIPE, text=True)
    os.close(closed)
    assert (ended.returncode, ended.stderr) == (141, error)
