"""The command line that all scripts share, in any console."""

import os
import subprocess
import sys

import pytest
from conftest import REPO

MAIN = """import sys
from common.errors import UserError
from common.run import command
def main():
    print("gr\\xf6\\xdfe \\u4e73 \\xb1")
    raise UserError("gr\\xf6\\xdfe \\u4e73 \\xd7")
command.run(main)"""


@pytest.mark.parametrize("env", [
    {"PYTHONIOENCODING": "cp1251"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-8"},
    {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
])  # fmt: skip
def test_every_character_can_be_printed(env):
    ended = subprocess.run([sys.executable, "-c", MAIN], cwd=REPO, env=os.environ | env, capture_output=True)
    encoding = env.get("PYTHONIOENCODING", "ascii")
    out, err = (text.encode(encoding, "backslashreplace") for text in ("größe 乳 ±", "error: größe 乳 ×"))
    assert (ended.returncode, ended.stdout.splitlines(), ended.stderr.splitlines()) == (2, [out], [err])
