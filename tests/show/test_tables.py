"""Tables for people: what is printed is what was computed, and n/a says why."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest
from common_fixtures import summary_with_intervals

from common import data, metrics, scoring
from common.calibration import Calibration
from common.show import tables

HOSPITALS = ["a", "b", "a", "a very long name of a hospital"]


@pytest.fixture
def scored() -> scoring.Scored:
    """Predictions of four images."""
    images = data.of_arrays(np.zeros((4, 28, 28), np.uint8), np.array([0, 0, 1, 1], np.uint8), "train", "a")
    return scoring.Scored("out_of_fold", images, np.array([0.1, 0.6, 0.4, 0.9]), np.arange(4))


def evaluated(scored, hospitals=None, patients="", **more) -> list[dict]:
    table = scored.images.table.assign(hospital=hospitals or "a", patient=patients)
    images = replace(scored.images, table=table)
    return scoring.score_parts([replace(scored, images=images, **more)], Calibration(), 100)


def test_rows_carry_the_numbers_and_line_up(scored):
    summary = summary_with_intervals(scored.labels, scored.probabilities, scored.resample_counts(200))
    header, row, below = tables.metrics_table({"test": summary}).split("\n")
    assert row.split() == ["test", "4", "0.5000", "0.7500", "0.8333", "0.5000", "0.5000", "0.5000", "0.5000"]
    assert len(header) == len(row) == len(below) and below.startswith("  95 % interval")


def test_phantoms_and_patients_are_said(scored):
    results = evaluated(replace(scored, unit="patient"))
    text = tables.results_text(results, Calibration(), "PHANTOM_LAB", False)
    assert "PHANTOM data" not in text and text.endswith("on 4 patients")
    assert "PHANTOM data, threshold 0.5" in tables.results_text(results, Calibration(), "data", True)


def test_each_hospital_widens_the_first_column_and_none_is_in_the_last_line(scored):
    results = evaluated(scored, HOSPITALS, ["", "", "p", "p"])
    text = tables.results_text(results, Calibration(), "data", False, ["A note."])
    for table in text.split("\n\n")[1:3]:
        rows = [line for line in table.split("\n") if line.startswith("out-of-fold")]
        names = ["out-of-fold", "out-of-fold, a", "out-of-fold, b", f"out-of-fold, {HOSPITALS[3]}"]
        assert [row[: 6 + len(names[-1])].split("  ")[0].strip() for row in rows] == names
        assert len({len(row) for row in rows}) == 1
    assert text.splitlines()[-1].startswith("data: out-of-fold AUC") and text.endswith("on 4 images")
    assert text.splitlines()[-3:-1] == ["A note.", ""]


def test_patients_and_subsets_have_names(scored):
    results = evaluated(scored, patients=["p", "p", "q", "q"], subsets={"clean": np.arange(4) < 3})
    names = ["out-of-fold", "out-of-fold, per patient", "clean out-of-fold"]
    assert list(tables.named(results, "standard")) == names
    several = evaluated(scored, ["a", "a", "b", "b"], ["p", "p", "q", "q"], subsets={"clean": np.arange(4) < 3})
    shown = [*names, *(f"out-of-fold, {name}{unit}" for name in "ab" for unit in ("", ", per patient"))]
    assert list(tables.named(several, "operating point")) == shown
    assert tables.main_entry(several) is several[0]


def test_clean_images_of_a_test_of_one_hospital_are_shown_beside_several_hospitals(scored):
    several = evaluated(scored, ["a", "a", "b", "b"])
    of_a = [entry | {"on": "test", "hospital": "a"} for entry in evaluated(scored, subsets={"clean": np.arange(4) < 3})]
    assert [name for name in tables.named(several + of_a, "standard") if "test" in name] == ["test, a", "clean test, a"]


def test_what_is_expected_of_a_threshold_stands_beside_what_is_measured(scored):
    results = evaluated(scored, subsets={"clean": np.arange(4) < 3})
    (measured, clean) = tables.at_operating_point(results, Calibration())
    assert measured.startswith("Measured on out-of-fold: sensitivity 0.5000 [") and "NPV 0.5000 [" in measured
    assert clean.startswith("Measured on clean out-of-fold: sensitivity 0.0000 [")
    rates = {"recall": 0.95, "recall_ci95": [0.9, 1.0], "specificity": nan, "specificity_ci95": [nan, nan]}
    for by_hospital, how in ((True, "each hospital with the threshold"), (False, "cross-validation within the images")):
        chosen = Calibration(chosen_on={"hospital_left_out": by_hospital}, achieved=[rates])
        expected = tables.at_operating_point(results, chosen)[0]
        assert expected.startswith("Expected at this threshold: sensitivity 0.9500 [.900 1.000] and specificity n/a (")
        assert how in expected


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
