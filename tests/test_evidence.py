import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from common import evidence


@pytest.mark.parametrize("rows, columns", [(4, 4), (2, 2), (7, 7), (3, 5)])
def test_cells_tile_the_centre_crop(rows, columns):
    """Bilinear between the centres of cells, held beyond them."""
    values = np.random.default_rng(0).normal(0, 3, (rows, columns)).astype(np.float32)
    placed = evidence.place(values, 61, 40)
    assert placed.shape == (61, 40) and placed.dtype == np.float32
    assert not placed[:10].any() and not placed[50:].any()  # 21 pixels more than the square: 10 above, 11 below
    y, x = np.mgrid[:40, :40] + 0.5
    cells = y * rows / 40 - 0.5, x * columns / 40 - 0.5
    expected = map_coordinates(values, cells, order=1, mode="nearest")
    np.testing.assert_allclose(placed[10:50], expected, atol=1e-5)
    np.testing.assert_allclose(evidence.place(values.T, 40, 61), placed.T, atol=1e-5)


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


@pytest.mark.parametrize("window", [(12, 7, 20, 20), (-9.6, 5.4, 30, 30), (45, 25.3, 31, 31), (-5, -8, 80, 80)])
def test_cells_tile_a_window_also_where_it_leaves_the_frame(window):
    values = np.random.default_rng(1).normal(0, 3, (7, 7)).astype(np.float32)
    placed = evidence.place(values, 40, 60, window)
    left, top = round(window[0]), round(window[1])
    side = round(window[0] + window[2]) - left
    y, x = np.mgrid[:40, :60] + 0.5
    cells = (y - top) * 7 / side - 0.5, (x - left) * 7 / side - 0.5
    inside = (y > top) & (y < top + side) & (x > left) & (x < left + side)
    expected = np.where(inside, map_coordinates(values, cells, order=1, mode="nearest"), 0)
    np.testing.assert_allclose(placed, expected, atol=1e-4)


def test_a_line_is_around_a_window_and_only_there():
    image, values = np.full((40, 60), 120, np.uint8), np.zeros((7, 7))
    drawn = np.asarray(evidence.overlay(image, values, (12, 7, 20, 18)))
    white = (drawn == 255).all(2)
    line = np.zeros((40, 60), bool)
    line[7:25, [12, 31]] = line[[7, 24], 12:32] = True
    assert np.array_equal(white, line) and (drawn[~white] == 120).all()
    assert (np.asarray(evidence.overlay(image, values)) == 120).all()
    assert (np.asarray(evidence.overlay(image, values, (0, 0, 60, 40))) == 120).all()  # the whole picture
