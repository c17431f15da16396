import numpy as np
import pytest

from common import evidence


def by_hand(values: np.ndarray, side: int, y: int, x: int) -> float:
    """What `place` says of a pixel of a square image: bilinear between the centres of cells, held beyond them."""
    for axis, (length, pixel) in enumerate(zip(values.shape, (y, x))):
        at = min(max((pixel + 0.5) * length / side - 0.5, 0), length - 1)
        low, high = (np.take(values, min(int(at) + step, length - 1), 0) for step in (0, 1))
        values = low + (at % 1) * (high - low)
        assert values.ndim == 1 - axis
    return float(values)


@pytest.mark.parametrize("shape", [(4, 4), (2, 2), (7, 7), (3, 5)])
def test_cells_tile_the_centre_crop(shape):
    values = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    placed = evidence.place(values, 61, 40)
    assert placed.shape == (61, 40) and placed.dtype == np.float32
    assert not placed[:10].any() and not placed[50:].any()  # 21 pixels more than the square: 10 above, 11 below
    for y, x in [(0, 0), (39, 39), (0, 39), (7, 21), (20, 20), (13, 2)]:
        assert placed[10 + y, x] == pytest.approx(by_hand(values, 40, y, x), abs=1e-5)
    np.testing.assert_allclose(evidence.place(values.T, 40, 61), placed.T, atol=1e-5)


def test_the_mean_over_the_crop_is_the_mean_of_the_map():
    values = np.arange(16.0).reshape(4, 4)  # odd about its middle, so that what the edges hold evens out
    assert evidence.place(values, 56, 90)[:, 17:73].mean() == pytest.approx(7.5)


def test_colour_says_the_sign_and_its_depth_how_much():
    image = np.full((40, 60), 120, np.uint8)
    values = np.array([[evidence.FULL, -evidence.FULL], [evidence.FULL / 2, 0]])
    drawn = np.asarray(evidence.overlay(image, values)).astype(int)
    red, _, blue = np.moveaxis(drawn, -1, 0)
    assert drawn.shape == (40, 60, 3) and (drawn[:, :10] == 120).all() and (drawn[:, 50:] == 120).all()
    malignant, benign, half = (drawn[y, x] - 120 for y, x in ((0, 10), (0, 49), (39, 10)))
    assert malignant[0] > 0 > malignant[2] and benign[2] > 0 > benign[0]  # vermillion and blue
    np.testing.assert_allclose(half, malignant / 2, atol=1)
    assert (drawn[39, 49] == 120).all()
    deepest, beyond = (np.asarray(evidence.overlay(image, np.full((2, 2), n * evidence.FULL))) for n in (1, 5))
    assert np.array_equal(deepest, beyond)
