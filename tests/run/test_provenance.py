from pathlib import Path

import numpy as np

from common import data, files
from common.run import provenance

REAL = data.Source("own.npz", 28, Path("own.npz"), "1234")


def test_provenance_is_the_same_from_run_to_run_and_says_what_was_used():
    first, again = (provenance.provenance(REAL, 2) for _ in range(2))
    assert first == again and first["threads"] == 2 and first["data"] == REAL.describe()
    assert first["packages"].keys() >= {"numpy", "torch", "torchvision", "medmnist", "onnxruntime"}
    assert first["packages"]["numpy"] == np.__version__
    assert first["command"].startswith("python ") and first["cpu"] and files.as_json(first) == first


def test_a_copy_without_git_does_not_claim_to_be_clean(monkeypatch):
    assert provenance.command("no-such-program-anywhere") is None and provenance.command("false") is None
    monkeypatch.setattr(provenance, "command", lambda *words: None)
    described = provenance.provenance(REAL, 1)
    assert described["commit"] is None and described["uncommitted_changes"] is None
