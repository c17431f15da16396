"""What audit.py counts, says and draws; test_docs.py has what it says of the real data."""

import numpy as np
import pytest
from conftest import run

import audit
from common.data import SPLITS, Split, concatenate, load
from common.scoring import groups_beside


def test_phantoms_have_no_twins_and_augmentation_is_drawn(tmp_path):
    printed, _ = run("audit.py", "--data", "phantom", "--out", tmp_path)
    assert printed.startswith("PHANTOM data") and "pairs of opposite labels: 0" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["augmented.png"]
    assert (tmp_path / "augmented.png").read_bytes().startswith(b"\x89PNG")


def test_audit_counts_what_crosses_splits_and_what_contradicts():
    a, b, c, d = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    train = Split.of("train", np.stack([a, a[:, ::-1], b]), np.array([1, 0, 0]))
    test = Split.of("test", np.stack([b, c, b // 2, d]), np.array([0, 1, 0, 1]))
    found = audit.audit(both := concatenate(train, test))
    assert (found.groups, len(found.pairs)) == (4, 4)
    assert found.across_splits == 2 and found.leaking == {"train": 1, "test": 2}
    correlations = [r for *_, r in found.pairs]
    assert correlations == sorted(correlations, reverse=True)
    ((*pair, _),) = found.opposite
    assert [audit.name_of(both, i) for i in pair] == ["train 0 malignant", "train 1 benign"]
    known = [{"image": f"{i}.png", "patient": patient} for i, patient in enumerate("xyx")]
    found = audit.audit(files := Split.of("all", np.stack([b, c, d]), np.array([0, 0, 1]), known))
    assert (found.groups, found.pairs, found.leaking) == (2, [], {"all": 0})
    assert audit.name_of(files, 2) == "all 2.png malignant"


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 128, 224])
def test_the_real_files_of_other_sizes_hold_the_same(breastmnist, size):
    train, val, test = load(breastmnist(size), *SPLITS)
    found = audit.audit(concatenate(train, val, test))
    assert (len(found.pairs) > 230, found.groups, found.across_splits) == (True, 593, 128)
    assert found.leaking == {"train": 116, "val": 35, "test": 63} and groups_beside(test, train, val)[1].sum() == 93
    assert found.opposite[0][2] == pytest.approx(1, abs=1e-5)  # one pair is the same image under both labels
