"""Heat maps and the boxes out of them, on boxes and maps that are known."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from common import lesion

BOXES = torch.tensor([[0.2, 0.3, 0.5, 0.25], [0.5, 0.1, 0.3, 0.6], [0.0, 0.0, 1.0, 1.0], [0.85, 0.7, 0.1, 0.2]])
NONE = torch.full((1, 4), math.nan)


def test_the_map_of_a_box_is_its_ellipse_and_without_a_box_nothing_is_hot():
    corners = [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    right = [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    whole, half, none = lesion.ellipses(torch.cat([torch.tensor([[0, 0, 1, 1], [0.5, 0, 0.5, 1.0]]), NONE]), 4)
    assert whole.tolist() == corners and half.tolist() == right and not none.any()
    fine = lesion.ellipses(BOXES, 400)
    torch.testing.assert_close(fine.mean((1, 2)), math.pi / 4 * BOXES[:, 2:].prod(1), rtol=0.01, atol=0)
    x = torch.arange(400) + 0.5
    centre = (fine.sum(1) * x).sum(1) / fine.sum((1, 2)) / 400, (fine.sum(2) * x).sum(1) / fine.sum((1, 2)) / 400
    torch.testing.assert_close(torch.stack(centre, 1), BOXES[:, :2] + BOXES[:, 2:] / 2, atol=0.002, rtol=0)


def test_the_loss_is_cross_entropy_and_dice_of_each_map():
    logits = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    heat = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.5, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    p = 1 / (1 + torch.exp(-logits))
    expected = -(heat * p.log() + (1 - heat) * (1 - p).log()).mean()
    for one, true in zip(p, heat):
        expected = expected + (1 - (2 * (one * true).sum() + 1) / (one.sum() + true.sum() + 1)) / 3
    torch.testing.assert_close(lesion.heat_loss(logits, heat), expected)
    fine = heat.repeat_interleave(4, 1).repeat_interleave(4, 2)
    fine[1, 4:, :4] = torch.tensor([0.0, 1.0]).repeat(4, 2)  # half of the cell
    torch.testing.assert_close(lesion.heat_loss(logits, fine), expected)
    torch.testing.assert_close(lesion.heat_loss(100 * (heat[[0, 2]] - 0.5), heat[[0, 2]]), torch.tensor(0.0))


def test_a_map_of_which_nothing_is_known_does_not_count():
    logits, heat = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.rand(3, 8, 8)
    logits.requires_grad_()
    unknown = heat.clone()
    unknown[1] = math.nan
    loss = lesion.heat_loss(logits, unknown)
    torch.testing.assert_close(loss, lesion.heat_loss(logits[[0, 2]], heat[[0, 2]]))
    loss.backward()
    assert logits.grad.isfinite().all() and logits.grad[1].abs().max() == 0 and logits.grad[[0, 2]].abs().min() > 0
    logits.grad = None
    nothing = lesion.heat_loss(logits, heat * math.nan)
    nothing.backward()
    assert nothing == 0 and torch.equal(logits.grad, torch.zeros(3, 4, 4))


def test_the_hottest_part_is_connected_by_sides_and_corners_and_two_fifths_as_hot():
    heat = torch.tensor([
        [0.9, 0.7, 0.1, 0.6, 0.8],
        [0.2, 0.35, 0.37, 0.3, 0.8],
        [0.1, 0.1, 0.2, 0.5, 0.1],
        [0.6, 0.2, 0.1, 0.1, 0.1],
        [0.7, 0.1, 0.1, 0.2, 0.8],
    ])  # fmt: skip
    wanted = torch.zeros(5, 5)
    for row, column in ((0, 0), (0, 1), (0, 3), (0, 4), (1, 2), (1, 4), (2, 3)):
        wanted[row, column] = heat[row, column]
    cut = heat.clone()
    cut[1, 2] = 0.35  # where the two parts meet
    alone = torch.zeros(5, 5)
    alone[0, :2] = heat[0, :2]
    found = lesion.hottest_part(torch.stack([heat, cut, torch.full((5, 5), 0.3)]))
    assert torch.equal(found, torch.stack([wanted, alone, torch.full((5, 5), 0.3)]))


@pytest.mark.parametrize("side, factor", [(16, 8), (14, 2), (64, 1)])
def test_the_box_of_an_ellipse_s_own_map_is_that_of_the_ellipse(side, factor):
    heat = torch.nn.functional.avg_pool2d(lesion.ellipses(BOXES, side * factor), factor)
    assert (lesion.box_of(heat) - BOXES).abs().max() < 1 / side
    heat[:2, -1, 0] = 0.9  # a second part
    assert (lesion.box_of(heat)[:2] - BOXES[:2]).abs().max() < 1 / side


def test_a_box_lies_around_the_centre_of_heat_and_one_cell_has_about_its_size():
    heat = torch.zeros(2, 16, 16) + 0.01
    heat[0, 4, 7] = heat[1, 8, 2] = 0.8
    heat[1, 8, 3] = 0.4
    (x, y, width, height), (x2, _, width2, height2) = lesion.box_of(heat).tolist()
    assert (x + width / 2, y + height / 2) == pytest.approx((7.5 / 16, 4.5 / 16))
    assert width == height == height2 == pytest.approx(4 / 12**0.5 / 16)
    assert x2 + width2 / 2 == pytest.approx((2.5 * 2 + 3.5) / 3 / 16)
    assert width2 == pytest.approx(4 * (2 / 9 + 1 / 12) ** 0.5 / 16)


def test_boxes_in_pixels_are_whole_and_at_least_one_wide_and_high():
    scale = lesion.scale_of(torch.tensor([[600, 800], [90, 120]]).numpy())
    assert scale.tolist() == [[800, 600, 800, 600], [120, 90, 120, 90]]
    shares = torch.tensor([[0.25, 0.5, 0.1004, 0.25], [-0.01, 0.99, 0.001, 0.004]])
    boxes = lesion.in_pixels(shares, scale)
    assert boxes.tolist() == [[200, 300, 80, 150], [-1, 89, 1, 1]]
    assert lesion.lesion_windows(boxes).tolist() == [[52.5, 187.5, 375, 375], [-1.75, 88.25, 2.5, 2.5]]


def test_extents_are_logarithms_of_shares_of_the_longer_side():
    boxes = torch.tensor([[10.0, 20, 150, 60], [0, 0, 600, 1], [5, 5, 0, 900]])
    found = lesion.extents_of(boxes, torch.tensor([[600.0, 400, 600, 400], [400, 600, 400, 600], [600, 600, 600, 600]]))
    expected = [[0.25, 0.1], [1, 1 / 600], [0.001, 1.5]]  # a box without width counts as a thousandth of the frame
    torch.testing.assert_close(found, torch.tensor(expected).log())


def test_the_layer_of_the_box_is_the_logistic_regression_of_scikit_learn():
    chance = np.random.default_rng(0)
    extents = chance.normal(-1.2, 0.5, (300, 2)).astype(np.float32)
    labels = (chance.random(300) < 1 / (1 + np.exp(-(2 - 3 * extents[:, 0] + 5 * extents[:, 1])))).astype(np.uint8)
    layer = lesion.fit_box(extents, labels)
    expected = LogisticRegression(C=25, tol=1e-8).fit(extents, labels)  # C is the variance of the prior
    np.testing.assert_allclose(layer.weight.detach(), expected.coef_, rtol=2e-3)
    np.testing.assert_allclose(layer.bias.detach(), expected.intercept_, rtol=2e-3)
    assert not any(values.any() for values in lesion.fit_box(extents, np.ones(300, np.uint8)).parameters())
    few = lesion.fit_box(extents[labels.argsort()[[0, -1]]], np.array([0, 1]))  # two boxes separate the classes
    assert few.weight.abs().max() < 10
