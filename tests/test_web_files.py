"""What the web page is made of, as files; test_web.py opens it in a browser."""

import re

import numpy as np
from conftest import REPO
from PIL import Image

from web import make_phantoms


def test_the_page_s_policy_is_given_as_a_header():
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', (REPO / "web/index.html").read_text(), re.DOTALL)
    header = f"Content-Security-Policy: {' '.join(policy[1].split())}; frame-ancestors 'none'\n"
    assert header in (REPO / "docs" / "web.md").read_text()


def test_bundled_phantoms_are_what_their_command_makes():
    files = {file.name for file in make_phantoms.FOLDER.iterdir()}
    assert files == set(make_phantoms.SAMPLES)
    for name, image in make_phantoms.samples().items():
        stored = Image.open(make_phantoms.FOLDER / name)
        assert stored.mode == "L" and stored.size == image.size and min(image.size) > 28
        assert np.abs(np.int16(stored) - np.int16(image)).max() <= 1  # another processor may round otherwise


def test_lock_file_names_no_registry():
    lock = (REPO / "web" / "package-lock.json").read_text()
    assert "integrity" in lock and "resolved" not in lock and "://" not in lock
