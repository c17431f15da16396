"""The corruptions of results/robustness.py, and the committed numbers about the shipped files."""

import numpy as np
import pytest
from conftest import REPO

from common import phantom
from results import log, robustness

IMAGES = phantom.generate(6, robustness.SIZE, seed=0)[0]


@pytest.mark.parametrize("corruption", robustness.CORRUPTIONS)
def test_a_corruption_keeps_the_shape_and_grows_with_its_severity(corruption):
    made = [robustness.corrupted(IMAGES, corruption, severity) for severity in range(6)]
    assert all(images.shape == IMAGES.shape and images.dtype == np.uint8 for images in made)
    assert np.array_equal(made[0], IMAGES)
    distances = [np.abs(images.astype(float) - IMAGES).mean() for images in made]
    assert (np.diff(distances) > 0).all()
    assert np.array_equal(made[3][4], robustness.corrupt(IMAGES[4], corruption, 3, number=4))


@pytest.mark.parametrize("corruption", robustness.CORRUPTIONS)
def test_a_corruption_takes_a_frame_that_is_no_square(corruption):
    frame = IMAGES[0][:120, :200].copy()
    made = robustness.corrupt(frame, corruption, 5)
    assert (
        made.shape == frame.shape
        and not np.array_equal(frame, IMAGES[0])
        and np.array_equal(frame, IMAGES[0][:120, :200])
    )


def test_simple_corruptions_have_the_values_of_a_calculation_by_hand():
    image = np.array([[0, 100], [200, 60]], np.uint8)
    assert robustness.corrupt(image, "brighter", 5).tolist() == [[0, 200], [255, 120]]
    assert robustness.corrupt(image, "less contrast", 5).tolist() == [[54, 94], [134, 78]]  # the mean is 90
    assert robustness.corrupt(image, "more gain", 4).tolist() == [[0, 151], [251, 111]]  # 12 dB of 60 are 51 of 255
    assert robustness.corrupt(image, "less gain", 5).tolist() == [[0, 24], [124, 0]]


def test_motion_blur_smears_a_point_one_way_and_keeps_its_light():
    image = np.zeros((61, 61), np.uint8)
    image[30, 30] = 255
    made = robustness.motion_blur(image, (5, 5), np.random.default_rng(0))
    assert made.sum() == pytest.approx(255) and made.argmax() == 30 * 61 + 30
    rows, columns = np.nonzero(made)
    assert columns.min() in (20, 30) and set(columns - 30) & {-1, 1} and np.ptp(rows) <= np.ptp(columns) + 1


def test_depth_shows_less_of_the_frame_or_makes_it_smaller():
    image = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 200, axis=1)  # every row has its own grey
    nearer, farther = (robustness.corrupt(image, f"{way} depth", 5) for way in ("less", "more"))
    assert nearer[0].mean() < 1 and nearer[-1].mean() == pytest.approx(99, abs=1)
    assert (farther[:, :50] == 0).all() and (farther[100:] == 0).all() and farther[99, 100] > 190


def test_the_rows_are_those_of_the_shipped_files():
    rows = log.read("robustness.csv")
    shipped = sorted(path.name for path in log.MODELS.glob("*.onnx"))
    expected = [(file, *condition) for file in shipped for condition in robustness.conditions()]
    assert [(row["model"], row["corruption"], int(row["severity"])) for row in rows] == expected
    assert {row["n"] for row in rows} == {"156"}
    assert {row["auc_change"] for row in rows if row["corruption"] == robustness.CLEAN} == {"0.0000"}


@pytest.mark.parametrize("file", robustness.SHOWN)
def test_the_tables_are_made_from_the_rows(file):
    pages = "".join(page.read_text(encoding="utf-8") for page in (REPO / "results").glob("*.md"))
    assert robustness.table(file) in pages
