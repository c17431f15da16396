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
def logits():
    return 3 * torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def targets():
    return (torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) < 0.3).double()


@pytest.fixture
def blended():
    return torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_is_torchvision_s_on_hard_targets(logits, targets, gamma):
    expected = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=gamma)
    torch.testing.assert_close(loss.focal(logits, targets, gamma), expected, rtol=1e-10, atol=1e-12)


def test_focal_on_blended_targets_is_its_formula_and_vanishes_at_the_target(logits, blended):
    p, y = expit(logits.numpy()), blended.numpy()
    expected = np.abs(y - p) ** 2 * -(y * np.log(p) + (1 - y) * np.log(1 - p))
    np.testing.assert_allclose(loss.focal(logits, blended), expected, rtol=1e-10)
    assert loss.focal(blended.logit(), blended).max() < 1e-12


def test_smoothing_moves_targets_towards_one_half():
    targets = torch.tensor([0.0, 1.0, 0.5, 0.25])
    torch.testing.assert_close(loss.smooth(targets, 0.1), torch.tensor([0.05, 0.95, 0.5, 0.275]))
    assert torch.equal(loss.smooth(targets, 0.0), targets)


@pytest.mark.parametrize("malignant", [1, 27, 50, 99])
def test_balanced_class_weights_are_scikit_learns(malignant):
    labels = np.r_[np.ones(malignant, np.uint8), np.zeros(100 - malignant, np.uint8)]
    weights = loss.class_weights(torch.from_numpy(labels), "balanced")
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.array([0, 1]), y=labels), rtol=1e-6)
    assert loss.class_weights(torch.from_numpy(labels), "none").tolist() == [1, 1]


@pytest.mark.parametrize("name", LOSSES)
def test_training_loss_is_the_weighted_mean(logits, targets, name):
    weights = torch.tensor([0.6, 2.5], dtype=torch.float64)
    of_image = weights[targets.long()].numpy()
    per_image = LOSSES[name](logits, targets * 0.8 + 0.1).numpy()  # smoothing 0.2; weights see the target itself
    expected = np.average(per_image, weights=of_image)
    assert float(loss.training_loss(logits, targets, name, 0.2, weights)) == pytest.approx(expected, rel=1e-12)


def test_weights_of_blended_targets_are_blended(logits, blended):
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    expected = np.average(loss.cross_entropy(logits, blended), weights=1 + 2 * blended.numpy())
    assert float(loss.training_loss(logits, blended, "cross-entropy", 0.0, weights)) == pytest.approx(expected)


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
        assert KINDS["loss"](name) == name and name in RANGES["loss"].values
    assert len(LOSSES) == len(RANGES["loss"].values)
