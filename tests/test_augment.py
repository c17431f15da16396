import dataclasses

import pytest
import torch

from common import augment
from common.augment import Strength

NONE = Strength(0, 0, 0, 0, 0, 0, False, 0, 0, 0, 0)
ALL = Strength(scanners=True)
SIDE = 28


def only(**amounts) -> Strength:
    """One kind of change, the rest off."""
    return dataclasses.replace(NONE, **amounts)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return torch.rand(40, 1, SIDE, SIDE, generator=generator(1))


def moved(x: float, y: float, **amounts) -> tuple[torch.Tensor, torch.Tensor]:
    """Where 2000 bright spots, x and y pixels from the centre, come to: (x, y), [2000] each."""
    place = torch.arange(SIDE) - (SIDE - 1) / 2
    spot = torch.exp(-((place[None] - x) ** 2 + (place[:, None] - y) ** 2) / 8)
    images = augment.affine(spot.repeat(2000, 1, 1, 1), only(**amounts), generator())[:, 0]
    total = images.sum((1, 2))
    return (images.sum(1) * place).sum(1) / total, (images.sum(2) * place).sum(1) / total


@pytest.mark.parametrize("n, side", [(1, 28), (3, 33)])
def test_shape_type_and_range_stay(n, side):
    images = torch.rand(n, 2, side, side, generator=generator())
    before = images.clone()
    changed = augment.augment(images, ALL, generator())
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert 0 <= changed.min() and changed.max() <= 1
    assert torch.equal(images, before)  # the original is left alone


def test_the_generator_is_the_only_chance(images):
    torch.manual_seed(0)
    first = augment.augment(images, ALL, generator(5))
    torch.manual_seed(1)
    assert torch.equal(first, augment.augment(images, ALL, generator(5)))
    assert not torch.equal(first, augment.augment(images, ALL, generator(6)))
    of_one = augment.augment(images[:1].repeat(20, 1, 1, 1), ALL, generator()).flatten(1)
    assert (torch.cdist(of_one, of_one) + torch.eye(20)).min() > 0.1  # every image draws for itself


def test_other_planes_move_with_the_image_and_keep_their_values():
    images = torch.rand(30, 1, SIDE, SIDE, generator=generator())
    moves = {"flip": 0.5, "degrees": 10.0, "zoom": 0.15, "shift": 0.1}
    moved = augment.augment(images, only(**moves), generator(7))
    both = augment.augment(images.repeat(1, 2, 1, 1), dataclasses.replace(ALL, **moves), generator(7))
    torch.testing.assert_close(both[:, 1:], moved)
    assert ((both[:, 0] - both[:, 1]).abs().amax((1, 2)) > 0.001).all()  # gain, focus, speckle, erasing


def test_what_differs_between_scanners_varies_only_where_asked(images):
    off = dataclasses.replace(ALL, scanners=False)
    weak = dataclasses.replace(off, gamma=0, sharpness=0, speckle=0)
    assert torch.equal(augment.augment(images, off, generator()), augment.augment(images, weak, generator()))
    assert not torch.equal(augment.augment(images, off, generator()), augment.augment(images, ALL, generator()))


@pytest.mark.parametrize("probability, low, high", [(1.0, 1.0, 1.0), (0.5, 0.42, 0.58)])
def test_mirror_is_an_exact_left_right_flip_and_no_strength_no_change(probability, low, high):
    images = torch.rand(1000, 1, 8, 8, generator=generator())
    changed = augment.augment(images, only(flip=probability), generator(2))
    flipped, same = ((changed - expected).abs().amax((1, 2, 3)) < 1e-5 for expected in (images.flip(3), images))
    assert (flipped ^ same).all() and low <= flipped.float().mean() <= high


def test_never_upside_down():
    ramp = torch.linspace(0.2, 0.8, SIDE)[:, None].expand(2000, 1, SIDE, SIDE)
    changed = augment.augment(ramp, Strength(), generator())[:, 0]
    assert (changed[:, SIDE // 2 :].mean((1, 2)) > changed[:, : SIDE // 2].mean((1, 2)) + 0.05).all()


def test_shift_moves_either_way_along_both_axes_up_to_its_share():
    x, y = moved(0, 0, shift=0.1)
    for by in (x, y):
        assert by.abs().max() == pytest.approx(0.1 * SIDE, rel=0.02)
        assert by.std() == pytest.approx(0.1 * SIDE / 3**0.5, rel=0.05) and by.mean().abs() < 0.1  # uniform
    assert torch.corrcoef(torch.stack([x, y]))[0, 1].abs() < 0.1


def test_rotation_turns_either_way_up_to_its_angle_and_keeps_distances():
    x, y = moved(7, 0, degrees=10)
    angle = torch.atan2(y, x).rad2deg()
    assert angle.abs().max() == pytest.approx(10, rel=0.03) and angle.mean().abs() < 0.5
    torch.testing.assert_close(torch.hypot(x, y), torch.full_like(x, 7), rtol=0.02, atol=0)


@pytest.mark.parametrize("x, y", [(7, 0), (0, 7), (5, -5)])
def test_scale_zooms_both_axes_alike_in_and_out(x, y):
    to_x, to_y = moved(x, y, zoom=0.15)
    zoom = torch.hypot(to_x, to_y) / (x**2 + y**2) ** 0.5
    assert zoom.max() == pytest.approx(1.15, abs=0.02) and zoom.min() == pytest.approx(0.85, abs=0.02)
    torch.testing.assert_close(to_x * y, to_y * x, rtol=0, atol=0.5)  # along the ray from the centre


def test_border_is_mirrored_not_black():
    bright = torch.full((200, 1, SIDE, SIDE), 0.9)
    assert augment.affine(bright, Strength(), generator()).min() > 0.899


def test_brightness_adds_and_contrast_stretches_about_the_mean():
    images = 0.4 + 0.2 * torch.rand(1000, SIDE, SIDE, generator=generator())
    lighter = augment.gain(images, only(brightness=0.1), generator()) - images
    torch.testing.assert_close(lighter.amax((1, 2)), lighter.amin((1, 2)), rtol=0, atol=1e-6)
    assert lighter.max() == pytest.approx(0.1, abs=0.003) and lighter.min() == pytest.approx(-0.1, abs=0.003)
    stretched = augment.gain(images, only(contrast=0.2), generator())
    torch.testing.assert_close(stretched.mean((1, 2)), images.mean((1, 2)), rtol=0, atol=1e-5)
    ratio = stretched.std((1, 2)) / images.std((1, 2))
    assert ratio.max() == pytest.approx(1.2, abs=0.005) and ratio.min() == pytest.approx(0.8, abs=0.005)
    black_and_white = (torch.rand(50, 8, 8, generator=generator()) > 0.5).float()
    changed = augment.gain(black_and_white, only(brightness=0.5, contrast=0.5), generator())
    assert changed.min() == 0 and changed.max() == 1  # clipped


def test_gamma_is_a_power_that_keeps_black_and_white():
    greys = torch.linspace(0, 1, SIDE).expand(1000, SIDE, SIDE)
    changed = augment.change_gamma(greys, only(gamma=0.5), generator())
    assert (changed[..., 0] == 0).all() and (changed[..., -1] == 1).all()
    exponent = changed[:, 0, SIDE // 2].log() / greys[:, 0, SIDE // 2].log()
    assert exponent.log().max() == pytest.approx(0.5, abs=0.01) and exponent.log().min() == pytest.approx(
        -0.5, abs=0.01
    )
    torch.testing.assert_close(changed, greys ** exponent[:, None, None])


def test_focus_takes_away_or_adds_fine_detail_and_nothing_else():
    stripes = 0.5 + 0.25 * (torch.arange(SIDE) % 2 * 2 - 1).float().expand(1000, SIDE, SIDE)
    ramp = torch.linspace(0.2, 0.8, SIDE).expand(1000, SIDE, SIDE)
    changed = augment.sharpen(stripes, only(sharpness=1.0), generator())
    inside = (changed - 0.5)[:, 4:-4, 4:-4] / (stripes - 0.5)[:, 4:-4, 4:-4]  # the filter removes such stripes: 0 to 2
    assert inside.min() == pytest.approx(0, abs=0.01) and inside.max() == pytest.approx(2, abs=0.01)
    assert inside.amin((1, 2)).mean() == pytest.approx(1, abs=0.05)  # either way
    torch.testing.assert_close(augment.sharpen(ramp, only(sharpness=1.0), generator())[..., 2:-2], ramp[..., 2:-2])
    assert augment.sharpen(torch.rand(50, 8, 8).round(), only(sharpness=3.0), generator()).min() == 0  # clipped


def test_speckle_is_noise_in_proportion_to_the_grey_level():
    greys = torch.linspace(0, 0.5, 64)[:, None].expand(500, 64, 64)
    changed = augment.speckle(greys, only(speckle=0.2), generator())
    assert (changed[:, 0] == 0).all()  # black stays black
    share = (changed[:, 1:] / greys[:, 1:] - 1).std((1, 2))
    assert share.max() == pytest.approx(0.2, abs=0.01) and share.min() == pytest.approx(0, abs=0.01)
    assert (changed[:, 1:] / greys[:, 1:]).mean() == pytest.approx(1, abs=0.001)
    assert augment.speckle(torch.ones(9, 8, 8), only(speckle=1.0), generator()).max() == 1  # clipped


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_erasing_fills_one_rectangle_anywhere_with_the_mean_as_often_as_asked(probability):
    n, side = 2000, 20
    images = torch.rand(n, side, side, generator=generator())
    erased = augment.erase(images, only(erasing=probability), generator(3))
    touched = erased != images
    assert touched.any((1, 2)).float().mean() == pytest.approx(probability, abs=0.04)
    assert torch.equal(touched, touched.any(1, keepdim=True) & touched.any(2, keepdim=True))  # a full rectangle
    mean = images.mean((1, 2), keepdim=True).expand_as(images)
    torch.testing.assert_close(erased[touched], mean[touched])
    for axis in (1, 2):
        length = touched.any(axis).sum(1)[touched.any((1, 2))]
        assert ((length >= 0.1 * side - 1) & (length <= 0.4 * side + 1)).all()
        assert not probability or length.float().mean() == pytest.approx(0.25 * side, rel=0.1)
    assert probability < 1 or touched.any(0).all()  # no pixel is out of reach


@pytest.mark.parametrize("alpha", [0.05, 1.0])
def test_mixup_blends_targets_as_it_blends_images(alpha):
    n = 2000
    marks = torch.eye(n)[:, None]  # image i has its one bright pixel at i, so a blend shows its parts
    targets = torch.rand(n, generator=generator())
    blended, blended_targets = augment.mixup((marks, targets), alpha, generator(4))
    shares = blended[:, 0]
    assert blended.shape == marks.shape and shares.diagonal().min() >= 0.5
    torch.testing.assert_close(shares.sum(1), torch.ones(n))
    assert (shares > 0).sum(1).max() <= 2  # itself and one partner
    torch.testing.assert_close(blended_targets, shares @ targets)
    assert alpha != 1 or shares.diagonal().mean() == pytest.approx(0.75, abs=0.01)  # the larger part of U(0, 1)


def test_mixup_of_alpha_zero_and_of_one_image_change_nothing(images):
    targets = torch.rand(40, generator=generator())
    same, same_targets = augment.mixup((images, targets), 0, generator())
    assert same is images and same_targets is targets
    one, _ = augment.mixup((images[:1], targets[:1]), 0.4, generator())
    torch.testing.assert_close(one, images[:1])
