"""What the web page is made of, as files; test_web.py opens it in a browser."""

import hashlib
import json
import re

import numpy as np
import pytest
from conftest import REPO
from PIL import Image

from common import lesion
from web import make_phantoms, make_site

WEB = REPO / "web"


def test_the_page_s_policy_is_given_as_a_header():
    policy = re.search(
        r'Content-Security-Policy" content="(.*?)"', (WEB / "index.html").read_text(encoding="utf-8"), re.DOTALL
    )
    header = f"Content-Security-Policy: {' '.join(policy[1].split())}; frame-ancestors 'none'\n"
    assert header in (REPO / "docs" / "web.md").read_text(encoding="utf-8")


def test_the_page_s_window_is_that_of_the_model():
    (factor,) = re.findall(r"const FACTOR = ([\d.]+);", (WEB / "window.js").read_text(encoding="utf-8"))
    assert float(factor) == lesion.WINDOW_FACTOR


def test_examples_are_small_grey_and_credited():
    credits, page = ((WEB / name).read_text(encoding="utf-8") for name in ("examples/README.md", "index.html"))
    assert "CC BY 4.0" in credits and "Pawłowska" in credits and "Pawłowska" in page
    for name in ("benign.png", "malignant.png", "normal.png"):
        file = WEB / "examples" / name
        assert Image.open(file).mode == "L" and file.stat().st_size <= 60_000 and f"`{name}`" in credits


def test_a_site_is_one_folder_with_all_that_the_page_names(tmp_path, monkeypatch):
    """Without the runtime, which npm installs."""
    monkeypatch.setattr(make_site, "PAGE", [pattern for pattern in make_site.PAGE if "node_modules" not in pattern])
    make_site.make_site(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "web"]
    model = tmp_path / "models" / make_site.default_model()
    said = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))
    assert said["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest() and said["file"] == model.name
    page = tmp_path / "web"
    texts = [file.read_text(encoding="utf-8") for file in [page / "index.html", *page.glob("*.js")]]
    named = re.findall(r'(?:src|href|data-image)="(?!https?:)([\w./]+\.\w+)"|from "(\./[\w.]+)"', "".join(texts))
    assert len(named) > 20 and all((page / (one or other)).is_file() for one, other in named)


def test_a_site_without_its_runtime_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(make_site, "PAGE", ["web/*.html", "web/node_modules/absent.js"])
    with pytest.raises(SystemExit, match="web/node_modules/absent.js is missing. Run: npm --prefix web ci"):
        make_site.make_site(tmp_path)
    assert not list(tmp_path.iterdir())


def test_bundled_phantoms_are_what_their_command_makes():
    files = {file.name for file in make_phantoms.FOLDER.iterdir()}
    assert files == set(make_phantoms.SAMPLES)
    for name, image in make_phantoms.samples().items():
        stored = Image.open(make_phantoms.FOLDER / name)
        assert stored.mode == "L" and stored.size == image.size and min(image.size) > 28
        assert np.abs(np.int16(stored) - np.int16(image)).max() <= 1  # another processor may round otherwise


def test_lock_file_names_no_registry():
    lock = (WEB / "package-lock.json").read_text(encoding="utf-8")
    assert "integrity" in lock and "resolved" not in lock and "://" not in lock
