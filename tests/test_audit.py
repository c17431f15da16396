"""What audit.py says and draws; the counts behind it are in test_twins.py."""

import subprocess
import sys

import pytest

import audit


@pytest.fixture
def audited(tmp_path, monkeypatch, capsys):
    """A function that audits a data set, and returns what is printed."""

    def run(*flags) -> str:
        monkeypatch.setattr(sys, "argv", ["audit.py", *map(str, flags), "--out", str(tmp_path)])
        audit.main()
        return capsys.readouterr().out

    return run


def test_phantoms_have_no_twins_and_augmentation_is_drawn(tmp_path):
    command = [sys.executable, audit.__file__, "--data", "phantom", "--out", tmp_path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert printed.startswith("PHANTOM data") and "0 pairs carry opposite labels" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["augmented.png"]
    assert (tmp_path / "augmented.png").read_bytes().startswith(b"\x89PNG")


def test_the_real_data(audited, breastmnist_root, tmp_path):
    printed = audited("--data-root", breastmnist_root)
    facts = "780 images, 238 pairs", "593 groups", "128 pairs cross splits", "116 of train, 35 of val, 63 of test"
    assert all(fact in printed for fact in facts)
    assert "10 pairs carry opposite labels\n  train 115 malignant and test 76 benign, correlation 1.0000" in printed
    names = {"twins_threshold.png", "twins_labels.png", "augmented.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
