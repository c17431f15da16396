"""What audit.py counts, says and draws; test_docs.py has what it says of the real data."""

import dataclasses
import json

import numpy as np
import pytest

import audit
from common import data, scoring
from common.run import outputs


def test_phantoms_have_no_near_duplicates_and_augmentation_is_drawn(tmp_path, runs):
    (tmp_path / "opposite_labels.png").touch()  # of an earlier audit of other data
    (tmp_path / "run.json").write_text(
        json.dumps({"format": outputs.FORMAT, "files": {"opposite_labels.png": "audit.py"}})
    )
    printed, _ = runs("audit.py", "--data", "phantom", "--threads", 1, "--out", tmp_path)
    assert printed.startswith("PHANTOM data") and "pairs with opposite labels: 0" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"augmented.png", "run.json"}
    assert outputs.listed(tmp_path) == {"augmented.png": "audit.py"}
    assert (tmp_path / "augmented.png").read_bytes().startswith(b"\x89PNG")


def pool(pixels, labels, split: str, hospital: str = "h", **columns) -> data.Images:
    return data.of_arrays(np.stack(pixels), np.array(labels), split, hospital, **columns)


def test_audit_counts_what_crosses_splits_and_what_contradicts():
    a, b, c, d = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    both = data.concatenate(pool([a, a[:, ::-1], b], [1, 0, 0], "train"), pool([b, c, b // 2, d], [0, 1, 0, 1], "test"))
    found = audit.audit(both)
    assert (found.groups, found.total, len(found.pairs), found.patients) == (4, 4, 4, [])
    assert found.across_splits == 2 and found.leaking == {"train": 1, "test": 2}
    correlations = [r for *_, r in found.pairs]
    assert correlations == sorted(correlations, reverse=True)
    few = dataclasses.replace(found, pairs=found.pairs[:3])
    assert "of these pairs, the 3 with the highest correlations are counted below" in audit.audit_text(both, few)
    assert "counted below" not in audit.audit_text(both, found)
    ((*pair, _),) = found.opposite
    assert [audit.name_of(both, i) for i in pair] == ["train/0 malignant", "train/1 benign"]


def test_pairs_of_two_patients_are_named():
    """One number in two hospitals is two patients; a patient unknown is none."""
    a, b, c = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    first = pool([a, b, c, c], [0, 0, 1, 1], "all", "h", patient=["x", "y", "x", "x"], image=list("abcd"))
    second = pool([a, b], [0, 0], "all", "k", patient=["x", ""], image=list("ef"))
    found = audit.audit(both := data.concatenate(first, second))
    assert (found.total, found.opposite, [pair[:2] for pair in found.patients]) == (3, [], [(0, 4)])
    assert found.groups == 2 and found.leaking == {"all": 0}
    text = audit.audit_text(both, found)
    assert "pairs of two patients: 1\n  all a benign and all e benign, correlation 1.0000, of h/x and k/x" in text


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 128, 224])
def test_the_real_files_of_other_sizes_hold_the_same(breastmnist, size):
    parts = {split: data.load(breastmnist(size), split) for split in data.SPLITS}
    found = audit.audit(data.concatenate(*parts.values()))
    assert (found.total > 230, found.groups, found.across_splits) == (True, 593, 128)
    assert found.leaking == {"train": 116, "val": 35, "test": 63}
    images = data.concatenate(*parts.values())
    assert scoring.score_test(images, images.are_of("test"), np.zeros(156)).subsets["clean"].sum() == 93
    assert found.opposite[0][2] == pytest.approx(1, abs=1e-5)  # one pair is the same image under both labels
