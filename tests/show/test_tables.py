"""Tables for people: what is printed is what was computed, and n/a says why."""

from math import nan

import numpy as np
import pytest

from common import data, intervals, metrics, scoring
from common.calibration import Calibration
from common.show import tables


@pytest.fixture
def scored() -> scoring.Scored:
    """Predictions of four images."""
    split = data.Split.of("train", np.zeros((4, 28, 28), np.uint8), np.array([0, 0, 1, 1], np.uint8))
    return scoring.Scored(split, np.array([0.1, 0.6, 0.4, 0.9]), np.arange(4))


def test_rows_carry_the_numbers_and_line_up(scored):
    summary = intervals.summary(scored.labels, scored.probabilities, scored.resample_counts(200, 0))
    header, row, below = tables.metrics_table({"test": summary}).split("\n")
    assert row.split() == ["test", "4", "0.5000", "0.7500", "0.8333", "0.5000", "0.5000", "0.5000", "0.5000"]
    assert len(header) == len(row) == len(below) and below.startswith("  95 % interval")


def test_one_hospital_widens_the_first_column_and_is_not_in_the_last_line(scored):
    hospital = scored.only(np.array([True, False, True, True]))
    scores = scoring.evaluate_splits({"out_of_fold": scored, "out_of_fold, A/images.csv": hospital}, Calibration(), 100)
    header, *rows = tables.metrics_table(scores["splits"]).split("\n")
    assert {len(row) for row in rows} == {len(header)} and "A/images.csv     3 " in rows[2]
    text = tables.scores_text(scores, "data")
    for table in text.split("\n\n"):
        assert len({len(row) for row in table.split("\n") if row.startswith(("out_of_fold ", "out_of_fold, "))}) <= 1
    assert text.splitlines()[-1].startswith("data: out_of_fold AUC") and text.endswith("on 4 images")


def test_undefined_is_na_with_the_reason():
    text = tables.metrics_table({"test": metrics.summary([0, 0], [0.1, 0.2])})
    assert "n/a: AUC is undefined where a class is absent." in text
    assert "n/a: precision is undefined where no image reaches the threshold." in text
    assert " 0.0000" not in text.splitlines()[1]


@pytest.mark.parametrize(
    "value, limits, said",
    [(0.9012, [0.8523, 1], "0.901 (0.852 to 1.000)"), (-0.01, [-0.05, 0], "-0.010 (-0.050 to 0.000)")],
)
def test_a_value_with_its_interval(value, limits, said):
    assert tables.with_limits(value, limits) == said
    assert tables.with_limits(value, limits, "+.1f") == f"{value:+.1f} ({limits[0]:+.1f} to {limits[1]:+.1f})"
    assert tables.with_limits(nan, [nan, nan]) == "n/a"


def test_mean_and_standard_deviation():
    assert tables.plus_minus(0.9, 0.0123) == "0.900 ± 0.012"
    assert (tables.plus_minus(0.9, nan), tables.plus_minus(nan, nan)) == ("0.900", "n/a")  # of one run, and of none
    assert tables.plus_minus(0.9, 0.0123, "+.2f") == "+0.90 ± 0.012"
    folds = [{"fold": i, "n": 4} | dict.fromkeys(metrics.NAMES, value) for i, value in ((1, 0.8), (2, 0.9))]
    *_, first, second, means = tables.spread_table("fold", folds).splitlines()
    assert first.startswith("fold 1") and second.count("0.9000") == len(metrics.NAMES)
    assert means.startswith("mean ± std over folds") and means.count("0.850 ± 0.071") == len(metrics.NAMES)
