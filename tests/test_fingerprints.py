"""Fingerprints: bit-exact, pinned, and right about real pictures."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO

from common import duplicates, fingerprints, imagefile
from common.fingerprints import NEAR, NO_MATCH, SAME
from results import log
from results.fingerprints import CHANGES


def naive(image) -> bytes:
    """The fingerprint of a 28×28 image, bit by bit, in Python's whole numbers."""
    pixels = [784 * int(value) - int(image.sum()) for row in image for value in row]
    stream = hashlib.shake_256(b"breastmnist fingerprint 1").digest(256 * 98)
    bits = ""
    for k in range(256):
        random = "".join(f"{byte:08b}" for byte in stream[98 * k : 98 * (k + 1)])
        signs = [1 if bit == "1" else -1 for bit in random]
        projected = sum(sign * value for sign, value in zip(signs, pixels))
        bits += "1" if projected > 0 else "0"
    return int(bits, 2).to_bytes(32, "big")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (9, 28, 28), np.uint8)


def test_a_fingerprint_is_the_naive_one(images):
    assert [each.tobytes() for each in fingerprints.fingerprint(images[:3])] == [naive(image) for image in images[:3]]


def test_the_format_never_changes():
    ramp = (np.arange(784) * 7919 % 251).astype(np.uint8).reshape(1, 28, 28)
    assert fingerprints.fingerprint(ramp).tobytes().hex() == (
        "c474d4ffdef7b9db992d2a5996fbcad855b4ee449b0d9105c3905c1fe3fe54c6"
    )


@pytest.mark.parametrize("block", [1, 4, 2048])
def test_the_distance_is_the_smallest_to_any_known_image_as_stored_or_mirrored(images, block, monkeypatch):
    monkeypatch.setattr(fingerprints, "BLOCK", block)
    known = fingerprints.fingerprint(images[3:])

    def smallest(image) -> int:
        views = [int.from_bytes(naive(view)) for view in (image, image[:, ::-1])]
        return min((view ^ int.from_bytes(each.tobytes())).bit_count() for view in views for each in known)

    expected = [smallest(image) for image in images[:5]]
    assert fingerprints.distance(images[:5], known).tolist() == expected and expected[3:] == [0, 0]


def test_brightness_contrast_and_mirror_do_not_matter_but_the_negative_does(images):
    known = fingerprints.fingerprint(images[:1] // 4)
    changed = np.stack([images[0] // 4 * 3 + 9, images[0, :, ::-1] // 4, 255 - images[0] // 4])
    assert fingerprints.distance(changed, known)[:2].tolist() == [0, 0]
    assert fingerprints.distance(changed, known)[2] > 100


@pytest.mark.parametrize("shape", [(28, 28), (64, 64), (50, 90)])
def test_constant_images_match_nothing(shape):
    flat = np.stack([np.full(shape, grey, np.uint8) for grey in (0, 77, 255)])
    known = fingerprints.fingerprint(flat)
    assert not known.any() and fingerprints.distance(flat, known).tolist() == [NO_MATCH] * 3
    assert SAME < NEAR < NO_MATCH


def test_nothing_known_and_nothing_asked(images):
    none = np.zeros((0, 32), np.uint8)
    assert fingerprints.distance(images, none).tolist() == [NO_MATCH] * 9
    for size in (28, 64):
        empty = np.zeros((0, size, size), np.uint8)
        assert fingerprints.fingerprint(empty).shape == (0, 32)
        assert fingerprints.distance(empty, fingerprints.fingerprint(images)).shape == (0,)
    assert fingerprints.decode(fingerprints.encode(none)).shape == (0, 32)


def test_fingerprints_as_text(images):
    stored = fingerprints.fingerprint(images)
    text = fingerprints.encode(stored)
    assert text.isascii() and len(text) == 384 and np.array_equal(fingerprints.decode(text), stored)


@pytest.mark.parametrize("text", ["AAAA", "A", "é" * 44, "?" * 44, " " * 44, None, 5, b"", ["A"]])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError):
        fingerprints.decode(text)


def busi(split: str) -> list[np.ndarray]:
    """The files from which a split of BreastMNIST was made."""
    folder = REPO.parent / "shared" / "external"
    if not (table := folder / "busi_splits.csv").exists():
        pytest.skip(f"no {table}")
    rows = [line.split(",") for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    return [next(imagefile.frames(Path(folder, row[0]))) for row in rows if row[2] == split]


@pytest.fixture(scope="module")
def train(breastmnist_root) -> dict[str, np.ndarray]:
    with np.load(breastmnist_root / "breastmnist.npz") as file:
        return {name: file[f"{name}_images"] for name in ("train", "val")}


def test_the_files_of_busi_are_known_by_the_images_of_breastmnist(train):
    known = fingerprints.fingerprint(train["train"])
    bits = [fingerprints.distance(image[np.newaxis], known)[0] for image in busi("train")]
    assert len(bits) == 546 and max(bits) <= SAME


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_file_of_a_picture_is_the_same_picture(train, change):
    known = fingerprints.fingerprint(train["val"])
    assert all(fingerprints.distance(change(image)[np.newaxis], known)[0] <= SAME for image in busi("val")[::4])


@pytest.mark.parametrize("size", [64, 128, 224])
def test_a_picture_is_known_at_every_size(train, breastmnist_root, size):
    if not (path := breastmnist_root / f"breastmnist_{size}.npz").exists():
        pytest.skip(f"no {path}")
    with np.load(path) as file:
        known = fingerprints.fingerprint(file["val_images"])
    bits = fingerprints.distance(train["val"], known)
    assert len(bits) == 78 and max(bits) <= SAME


def test_near_duplicates_are_nearly_those_of_the_correlation(train):
    bits = fingerprints.distance(train["val"], fingerprints.fingerprint(train["train"]))
    val, others = (duplicates.unit_vectors(train[name]) for name in ("val", "train"))
    correlation = duplicates.correlate(val, others).max(1)
    near = correlation > duplicates.THRESHOLD
    assert near.sum() == 31 and np.sum(near == (bits <= NEAR)) >= 76 and correlation[bits <= NEAR].min() > 0.9


def test_the_limits_are_those_of_the_measurement():
    rows = log.read("fingerprints.csv")
    copies = [row for row in rows if row["about"].startswith("the same picture, ") and "border" not in row["about"]]
    assert len(copies) == 11 and max(int(row["largest_distance"]) for row in copies) == SAME

    def f2(row: dict) -> float:
        """Recall weighs twice: a near-duplicate that is missed counts as unseen."""
        precision, recall = float(row["precision"]), float(row["recall"])
        return 5 * precision * recall / (4 * precision + recall)

    best = max((row for row in rows if row["about"] == "near-duplicates" and row["bits"] == "256"), key=f2)
    assert int(best["limit"]) == NEAR
