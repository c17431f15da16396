import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from common import phantom, twins

BOTH = np.repeat([0, 1], 200)  # labels, benign first


@pytest.fixture(scope="module")
def phantoms():
    return phantom.generate(600, 28, seed=1)


def column_contrast(images: np.ndarray, rows: slice) -> np.ndarray:
    """Grey level of the middle columns, where lesions lie, less that of the outer ones: [n]."""
    middle, outer = images[:, rows, 9:19], np.concatenate([images[:, rows, :4], images[:, rows, -4:]], 2)
    return middle.mean((1, 2)) - outer.mean((1, 2))


@pytest.mark.parametrize("size", [28, 64, 128, 224])
@pytest.mark.parametrize("n", [0, 1, phantom.CHUNK + 1])
def test_shapes_and_types(n, size):
    images, labels = phantom.generate(n, size, seed=0)
    assert images.shape == (n, size, size) and images.dtype == np.uint8
    assert labels.shape == (n,) and labels.dtype == np.uint8


def test_grey_range_is_used_and_not_clipped(phantoms):
    images, _ = phantoms
    assert np.ptp(images, axis=(1, 2)).min() > 60
    assert (images == 255).mean() < 0.01 and (images == 0).mean() < 0.01
    assert 60 < images.mean() < 120


def test_same_seed_same_phantoms_and_other_seed_others():
    (images, labels), (again, labels_again) = (phantom.generate(40, 28, seed=3) for _ in range(2))
    other, _ = phantom.generate(40, 28, seed=4)
    assert np.array_equal(images, again) and np.array_equal(labels, labels_again)
    assert all((image != unlike).mean() > 0.8 for image, unlike in zip(images, other))


def test_no_two_phantoms_are_twins(phantoms):
    images, _ = phantoms
    assert twins.find_pairs(images) == []


@pytest.mark.parametrize("share, malignant", [(0, 0), (0.27, 27), (0.5, 50), (1, 100)])
def test_class_share_is_exact(share, malignant):
    _, labels = phantom.generate(100, 28, seed=0, malignant_share=share)
    assert labels.sum() == malignant and set(labels) <= {0, 1}


def test_an_image_shows_the_same_anatomy_at_every_size():
    small, large = (phantom.generate(40, size, seed=5)[0].astype(float) for size in (32, 128))
    coarse = [images.reshape(40, 16, images.shape[1] // 16, 16, -1).mean((2, 4)) for images in (small, large)]
    correlation = np.corrcoef(np.concatenate(coarse).reshape(80, -1))[:40, 40:]
    assert correlation.diagonal().min() > 0.97
    assert np.array_equal(correlation.argmax(1), np.arange(40))


def test_one_look_is_rayleigh_speckle_wider_than_deep(monkeypatch):
    monkeypatch.setattr(phantom, "LOOKS", 1)
    decibels = phantom._scan(np.random.default_rng(0), np.zeros((20, 224, 224), np.float32))
    amplitude = 10 ** (decibels / 20)
    assert amplitude.mean() / amplitude.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.02)  # 1.91
    centred = amplitude - amplitude.mean()
    axial, lateral = (centred[:, 2:] * centred[:, :-2]).mean(), (centred[:, :, 2:] * centred[:, :, :-2]).mean()
    assert lateral > 2 * axial > 0


def test_speckle_is_as_bright_at_the_border_as_inside():
    power = 10 ** (phantom._scan(np.random.default_rng(0), np.zeros((40, 112, 112), np.float32)) / 10)
    borders = (power[:, 0], power[:, -1], power[:, :, 0], power[:, :, -1])
    assert [border.mean() for border in borders] == pytest.approx([power.mean()] * 4, rel=0.08)


def test_skin_is_bright_and_depth_is_dark(phantoms):
    profile = phantoms[0].mean((0, 2))  # by row
    assert profile[0] > profile[1:].max() + 10
    assert profile[-7:].mean() < profile[4:11].mean() - 40
    assert (np.diff(profile[-14:]) < 0).all()


def test_malignant_lesions_cast_a_shadow_downward_and_benign_ones_brighten(phantoms):
    images, labels = phantoms
    above, below = (column_contrast(images, rows) for rows in (slice(0, 4), slice(19, 28)))
    assert below[labels == 1].mean() < -5 < 0 < below[labels == 0].mean()
    assert abs(above[labels == 1].mean() - above[labels == 0].mean()) < 6


def test_lesions_are_darker_than_the_tissue_beside_them(phantoms):
    images, labels = phantoms
    beside = column_contrast(images, slice(9, 16))
    assert beside[labels == 1].mean() < beside[labels == 0].mean() - 10
    assert beside[labels == 0].mean() < -4


def test_benign_lesions_lie_flat_malignant_ones_stand_and_some_do_neither():
    inside = phantom._contour_distance(np.random.default_rng(0), BOTH, 112) < 1
    height, width = inside.any(2).sum(1), inside.any(1).sum(1)
    taller = (height > width).reshape(2, -1).mean(1)
    assert taller[0] < 0.2 and 0.55 < taller[1] < 0.95


def test_malignant_contours_are_rougher():
    inside = phantom._contour_distance(np.random.default_rng(0), BOTH, 112) < 1
    perimeter = sum(np.diff(inside, axis=axis).sum((1, 2)) for axis in (1, 2))
    benign, malignant = (perimeter**2 / inside.sum((1, 2))).reshape(2, -1)
    assert np.median(malignant) > 1.15 * np.median(benign)
    assert np.quantile(benign, 0.95) > np.quantile(malignant, 0.05)  # the classes overlap


def test_only_some_benign_images_have_no_lesion():
    tissue = np.zeros((len(BOTH), 84, 84), np.float32)
    changed = np.abs(phantom._add_lesion(np.random.default_rng(0), tissue, BOTH)).max((1, 2)) > 0
    without_lesion = 1 - changed.reshape(2, -1).mean(1)
    assert without_lesion[0] == pytest.approx(phantom.NORMAL_SHARE, abs=0.08) and without_lesion[1] == 0


@pytest.mark.slow
def test_classes_are_learnable_but_overlap(phantoms):
    images, labels = phantoms
    held_out, truth = phantom.generate(400, 28, seed=2)
    model = make_pipeline(PCA(50, random_state=0), SVC(C=3)).fit(images.reshape(600, -1) / 255, labels)
    scores = model.decision_function(held_out.reshape(400, -1) / 255)
    assert 0.8 < roc_auc_score(truth, scores) < 0.995
