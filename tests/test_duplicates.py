import tracemalloc

import numpy as np
import pytest
from PIL import Image

from common import duplicates
from common.npzfile import breastmnist_path
from results.fingerprints import SAME_PICTURE


def brute_force(images, threshold) -> dict[tuple[int, int], float]:
    """{(i, j): correlation} of all near-duplicates, one np.corrcoef after the other."""
    found = {}
    for i in range(len(images)):
        for j in range(i + 1, len(images)):
            views = (images[j], images[j][:, ::-1])
            correlation = max(np.corrcoef(images[i].ravel(), view.ravel())[0, 1] for view in views)
            if correlation > threshold:
                found[i, j] = correlation
    return found


def blend(image, noise, share: float) -> np.ndarray:
    """An image changed by a share of another."""
    return ((1 - share) * image + share * noise).round().astype(np.uint8)


def read(root, side: int, split: str) -> np.ndarray:
    """A split of the real BreastMNIST."""
    if not (path := breastmnist_path(str(root), side)).exists():
        pytest.skip(f"no {path}")
    with np.load(path) as file:
        return file[f"{split}_images"]


@pytest.fixture(scope="module")
def images():
    """20 random images and 40 changed copies of them: most copies are near-duplicates, some are just not."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (60, 28, 28), np.uint8)
    for i in range(20):
        noise[20 + i] = blend(noise[i], noise[20 + i], 0.01 * i + 0.15)  # correlations from 0.98 down to 0.89
        noise[40 + i] = blend(noise[i][:, ::-1], noise[40 + i], 0.01 * i + 0.15)
    return noise[rng.permutation(60)]


@pytest.mark.parametrize("threshold", [duplicates.THRESHOLD, 0.9])
def test_pairs_are_those_of_brute_force(images, threshold, monkeypatch):
    monkeypatch.setattr(duplicates, "THRESHOLD", threshold)
    expected = brute_force(images, threshold)
    found = {(i, j): correlation for i, j, correlation in duplicates.find_pairs(images)[0]}
    assert 20 < len(expected) < 60 and found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("block", [1, 7, 59, 60])
def test_blocks_do_not_matter(images, block, monkeypatch):
    whole, total = duplicates.find_pairs(images)
    monkeypatch.setattr(duplicates, "BLOCK", block)
    blocked, also_total = duplicates.find_pairs(images)
    assert total == also_total == len(whole) == len(blocked)
    by_pair, expected = ({pair[:2]: pair[2] for pair in pairs} for pairs in (blocked, whole))
    assert by_pair == pytest.approx(expected, abs=1e-6)
    joined = duplicates.group(60, duplicates.alike_sets(images))
    assert joined.tolist() == duplicates.group(60, by_pair).tolist()


@pytest.mark.parametrize("block", [7, 2048])
def test_the_most_alike_pairs_are_listed_and_all_are_counted(images, block, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", block)
    listed, total = duplicates.find_pairs(images)
    assert [r for *_, r in listed] == sorted((r for *_, r in listed), reverse=True)
    monkeypatch.setattr(duplicates, "MOST", 9)
    assert duplicates.find_pairs(images) == (listed[:9], total)


def test_contrast_and_mirror_keep_near_duplicates_but_upside_down_does_not():
    image = np.random.default_rng(0).integers(0, 200, (28, 28), np.uint8)
    others = [image // 2 + 20, image[:, ::-1], image[::-1], 255 - image, image.T]
    pairs, _ = duplicates.find_pairs(np.stack([image, *others]))
    assert {pair[:2] for pair in pairs} == {(0, 1), (0, 2), (1, 2)}


def test_constant_images_have_no_near_duplicate():
    images = np.stack([np.full((64, 64), grey, np.uint8) for grey in (0, 0, 77, 255)])
    assert duplicates.find_pairs(images) == ([], 0) and duplicates.find_groups(images).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("side", [64, 128, 224])
def test_larger_images_are_compared_at_28(images, side):
    large = [Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC) for image in images]
    small = [np.asarray(image.resize((28, 28), Image.Resampling.BILINEAR)) for image in large]
    found, _ = duplicates.find_pairs(np.stack([np.asarray(image) for image in large]))
    assert {pair[:2] for pair in found} == brute_force(small, duplicates.THRESHOLD).keys()


@pytest.mark.parametrize(
    "n, sets, expected",
    [
        pytest.param(4, [], [0, 1, 2, 3], id="none"),
        pytest.param(5, [(3, 4), (2, 3), (1, 2)], [0, 1, 1, 1, 1], id="chain from its end"),
        pytest.param(6, [(0, 5), (1, 4), (4, 5), (2, 3)], [0, 0, 2, 2, 0, 0], id="two that meet"),
        pytest.param(3, [(0, 1), (0, 1), (1, 2), (0, 2)], [0, 0, 0], id="ring, repeated"),
        pytest.param(7, [[6, 5, 4], [3, 2], [2, 0, 5]], [0, 1, 0, 0, 0, 0, 0], id="sets of several"),
    ],
)
def test_groups_are_connected_components(n, sets, expected):
    assert duplicates.group(n, sets).tolist() == expected


def test_groups_join_images_of_one_patient():
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    images[4] = images[1]
    assert duplicates.find_groups(images).tolist() == [0, 1, 2, 3, 1, 5]
    assert duplicates.find_groups(images, ["a", "", "b", "a", "b", ""]).tolist() == [0, 1, 1, 0, 1, 5]


def test_the_highest_correlation_is_the_brute_force_one(images):
    pairs = brute_force(images, -1)
    expected = [max(pairs[tuple(sorted((i, j)))] for j in range(40, 60)) for i in range(40)]
    vectors = duplicates.unit_vectors(images)
    np.testing.assert_allclose(duplicates.correlate(vectors[:40], vectors[40:]).max(1), expected, atol=1e-5)


@pytest.mark.parametrize("size", [64, 128, 224])
def test_a_picture_is_known_at_every_size(breastmnist_root, size):
    small, large = (duplicates.unit_vectors(read(breastmnist_root, side, "val")) for side in (28, size))
    assert (duplicates.correlate(large, small).max(1) > SAME_PICTURE).all()


@pytest.mark.parametrize("side", [28, 64])
def test_the_groups_of_breastmnist(breastmnist_root, side):
    train, val, test = (read(breastmnist_root, side, split) for split in ("train", "val", "test"))
    groups = duplicates.find_groups(np.concatenate([train, val, test]))
    seen, asked = groups[: len(train) + len(val)], groups[len(train) + len(val) :]
    assert (len(groups), len(np.unique(groups)), np.sum(~np.isin(asked, seen))) == (780, 593, 93)


def test_equal_images_take_little_memory(monkeypatch):
    """1,500 equal frames of a video are a million pairs."""
    monkeypatch.setattr(duplicates, "MOST", 100)
    monkeypatch.setattr(duplicates, "BLOCK", 256)
    frames = np.tile(np.arange(28, dtype=np.uint8), (1500, 28, 1))
    tracemalloc.start()
    assert not duplicates.find_groups(frames).any()
    listed, total = duplicates.find_pairs(frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(listed), total) == (100, 1500 * 1499 // 2) and peak < 40e6
