import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from common import loss
from common.loss import LOSSES
from common.run.search import RANGES
from common.settings import KINDS


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """200 logits, hard targets, and blended ones."""
    rng = np.random.default_rng(0)
    values = 3 * rng.normal(size=200), (rng.random(200) < 0.3).astype(float), rng.random(200)
    logits, targets, blended = map(torch.from_numpy, values)
    return logits, targets, blended


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_is_torchvision_s_on_hard_targets(drawn, gamma):
    logits, targets, _ = drawn
    expected = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=gamma)
    torch.testing.assert_close(loss.focal(logits, targets, gamma), expected, rtol=1e-10, atol=1e-12)


def test_losses_of_blended_targets_are_their_formulas(drawn):
    logits, _, blended = drawn
    p, y = expit(logits.numpy()), blended.numpy()
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    np.testing.assert_allclose(loss.cross_entropy(logits, blended), expected, rtol=1e-12)
    np.testing.assert_allclose(loss.focal(logits, blended), np.abs(y - p) ** 2 * expected, rtol=1e-10)


@pytest.mark.parametrize("malignant", [1, 27])
def test_balanced_class_weights_are_scikit_learns(malignant):
    labels = np.r_[np.ones(malignant, np.uint8), np.zeros(100 - malignant, np.uint8)]
    weights = loss.class_weights(torch.from_numpy(labels), "balanced")
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.array([0, 1]), y=labels), rtol=1e-6)
    assert loss.class_weights(torch.from_numpy(labels), "none").tolist() == [1, 1]


@pytest.mark.parametrize("name", LOSSES)
def test_training_loss_is_the_mean_weighted_by_the_targets_before_smoothing(drawn, name):
    logits, _, blended = drawn
    per_image = LOSSES[name](logits, blended * 0.8 + 0.1).numpy()  # smoothing 0.2
    expected = np.average(per_image, weights=0.6 + 1.9 * blended.numpy())
    weights = torch.tensor([0.6, 2.5], dtype=torch.float64)
    assert float(loss.training_loss(logits, blended, name, 0.2, weights)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_right_and_finite_at_large_logits(name):
    logits = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4] * 2, requires_grad=True)
    targets = torch.tensor([0.0] * 5 + [1.0] * 5)
    value = loss.training_loss(logits, targets, name, 0.0, torch.ones(2))
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()
    assert (logits.grad[:5] >= 0).all() and (logits.grad[5:] <= 0).all()
    assert logits.grad[4] == pytest.approx(0.1) and logits.grad[5] == pytest.approx(-0.1)  # wrong and sure: full slope


def test_every_loss_can_be_chosen_and_searched():
    for name in LOSSES:
        assert KINDS["loss"].read(name) == name and name in RANGES["loss"].values
    assert len(LOSSES) == len(RANGES["loss"].values)
