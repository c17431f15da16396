import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from common import phantom


@pytest.fixture(scope="module")
def phantoms():
    return phantom.generate(600, 28, seed=1)


@pytest.mark.parametrize(
    "n, size, share, malignant",
    [(0, 28, 0.5, 0), (1, 224, 0, 0), (phantom.CHUNK + 1, 64, 1, phantom.CHUNK + 1), (100, 28, 0.27, 27)],
)
def test_shapes_types_and_the_share_of_malignant_are_exact(n, size, share, malignant):
    images, labels = phantom.generate(n, size, seed=0, malignant_share=share)
    assert images.shape == (n, size, size) and labels.shape == (n,)
    assert images.dtype == labels.dtype == np.uint8
    assert labels.sum() == malignant and set(labels) <= {0, 1}


def test_same_seed_same_phantoms_and_other_seed_others():
    (images, labels), (again, labels_again) = (phantom.generate(40, 28, seed=3) for _ in range(2))
    other, _ = phantom.generate(40, 28, seed=4)
    assert np.array_equal(images, again) and np.array_equal(labels, labels_again)
    assert all((image != unlike).mean() > 0.8 for image, unlike in zip(images, other))


def test_an_image_shows_the_same_anatomy_at_every_size():
    small, large = (phantom.generate(40, size, seed=5)[0].astype(float) for size in (32, 128))
    coarse = [images.reshape(40, 16, images.shape[1] // 16, 16, -1).mean((2, 4)) for images in (small, large)]
    correlation = np.corrcoef(np.concatenate(coarse).reshape(80, -1))[:40, 40:]
    assert correlation.diagonal().min() > 0.97
    assert np.array_equal(correlation.argmax(1), np.arange(40))


def test_one_look_is_rayleigh_speckle(monkeypatch):
    monkeypatch.setattr(phantom, "LOOKS", 1)
    decibels = phantom._scan(np.random.default_rng(0), np.zeros((20, 224, 224), np.float32))
    amplitude = 10 ** (decibels / 20)
    assert amplitude.mean() / amplitude.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.02)  # 1.91


def test_malignant_lesions_cast_a_shadow_downward_and_benign_ones_brighten(phantoms):
    images, labels = phantoms
    sides = np.concatenate([images[..., :4], images[..., -4:]], 2)
    contrast = images[..., 9:19].mean(2) - sides.mean(2)  # lesions lie in the middle columns: [n, rows]
    above, beside, below = contrast[:, :4].mean(1), contrast[:, 9:16].mean(1), contrast[:, 19:].mean(1)
    assert below[labels == 1].mean() < -5 < 0 < below[labels == 0].mean()
    assert abs(above[labels == 1].mean() - above[labels == 0].mean()) < 6
    assert beside[labels == 1].mean() < beside[labels == 0].mean() - 10 < -14  # lesions are dark


def test_malignant_lesions_stand_and_are_rough_benign_ones_lie_flat_and_some_do_neither():
    inside = phantom._contour_distance(np.random.default_rng(0), np.repeat([0, 1], 200), 112) < 1
    height, width = inside.any(2).sum(1), inside.any(1).sum(1)
    taller = (height > width).reshape(2, -1).mean(1)  # of the benign, of the malignant
    assert taller[0] < 0.2 and 0.55 < taller[1] < 0.95
    perimeter = sum(np.diff(inside, axis=axis).sum((1, 2)) for axis in (1, 2))
    benign, malignant = (perimeter**2 / inside.sum((1, 2))).reshape(2, -1)
    assert np.median(malignant) > 1.15 * np.median(benign)
    assert np.quantile(benign, 0.95) > np.quantile(malignant, 0.05)  # the classes overlap


def test_the_box_of_a_lesion_touches_its_contour_on_all_sides_and_grows_with_the_image(monkeypatch):
    drawn, contour = [], phantom._contour_distance
    monkeypatch.setattr(phantom, "_contour_distance", lambda *given: drawn.append(contour(*given)) or drawn[-1])
    images, labels, boxes = phantom.generate_with_boxes(40, 112, seed=6)
    inside = np.concatenate(drawn) <= 1
    assert [np.array_equal(*pair) for pair in zip((images, labels), phantom.generate(40, 112, seed=6))] == [True, True]
    none = np.isnan(boxes).all(1)
    assert 0 < none.sum() < 12 and not labels[none].any() and np.isfinite(boxes[~none]).all()
    for lesion, (x, y, width, height) in zip(inside[~none], np.rint(boxes[~none]).astype(int)):
        part = lesion[y : y + height, x : x + width]
        assert part.sum() == lesion.sum() > 0
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
    small = phantom.generate_with_boxes(40, 28, seed=6)[2]
    assert np.nanmax(np.abs(small * 4 - boxes)) <= 4


@pytest.mark.slow
def test_classes_are_learnable_but_overlap(phantoms):
    images, labels = phantoms
    held_out, truth = phantom.generate(400, 28, seed=2)
    model = make_pipeline(PCA(50, random_state=0), SVC(C=3)).fit(images.reshape(600, -1) / 255, labels)
    scores = model.decision_function(held_out.reshape(400, -1) / 255)
    assert 0.8 < roc_auc_score(truth, scores) < 0.995
