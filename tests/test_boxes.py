import numpy as np
import pytest

from common import boxes

TRUE = np.array([[0.0, 0, 2, 2]])
NONE = np.full((1, 4), np.nan)


def test_shares_are_of_each_frame_s_own_sides():
    found = boxes.in_shares(np.array([[80, 300, 160, 30], [20, 45, 60, 9]]), np.array([[600, 800], [90, 120]]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.1, 0.5, 0.2, 0.05], [1 / 6, 0.5, 0.5, 0.1]], rtol=1e-6)
    assert np.isnan(boxes.in_shares(NONE, np.array([[600, 800]]))).all()


@pytest.mark.parametrize(
    "box, share",
    [
        ([0, 0, 2, 2], 1),
        ([1, 1, 2, 2], 1 / 7),
        ([-1, 0.5, 4, 1], 1 / 3),
        ([0.5, 0.5, 1, 1], 1 / 4),
        ([2, 0, 2, 2], 0),
        ([5, 5, 1, 1], 0),
    ],
)
def test_overlap_is_intersection_over_union(box, share):
    found = np.array([box], float)
    assert boxes.overlap(found, TRUE) == pytest.approx(share) == boxes.overlap(TRUE, found)
    assert np.isnan(boxes.overlap(found, NONE)).all() and np.isnan(boxes.overlap(NONE, found)).all()


def test_the_centre_of_what_was_found_must_lie_in_the_true_box():
    true = np.array([[10.0, 20, 30, 10]])
    found = {(0, 0, 50, 50): True, (0, 0, 82, 50): False, (9, 15, 2, 12): True, (8, 15, 2, 12): False}
    found |= {(30, 29, 6, 4): False, (30, 28, 6, 4): True}
    for box, inside in found.items():
        assert boxes.holds_centre(np.array([box], float), true).tolist() == [inside], box
    assert not boxes.holds_centre(true, NONE).any()


@pytest.mark.parametrize(
    "box, wrong",
    [
        ([100, 50, 80, 60], False),
        ([-4, -4, 408, 308], False),  # 1 % of the side outside
        ([0.2, 0.3, 0.4, 0.4], True),  # shares
        ([300, 50, 380, 110], True),  # corners
        ([100, 50, 80, 300], True),
        ([-20, 50, 80, 60], True),
        ([np.nan] * 4, False),
    ],
)
def test_a_box_in_pixels_lies_in_its_frame(box, wrong):
    assert boxes.misplaced(np.array([box], float), np.array([[300, 400]])).tolist() == [wrong]
