"""Tables for people: what is printed is what was computed, and n/a says why."""

import numpy as np

from common import evaluation, intervals, metrics, tables
from common.calibration import Calibration
from common.data import Source


def test_rows_carry_the_numbers_and_line_up():
    labels, probabilities = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9])
    summary = intervals.summary(labels, probabilities, resamples=200)
    header, row, below = tables.metrics_table({"test": summary}).split("\n")
    assert row.split() == ["test", "4", "0.5000", "0.7500", "0.8333", "0.5000", "0.5000", "0.5000", "0.5000"]
    assert len(header) == len(row) == len(below) and below.startswith("  95 % interval")


def test_undefined_is_na_with_the_reason():
    text = tables.metrics_table({"test": metrics.summary([0, 0], [0.1, 0.2])})
    assert "n/a: AUC is undefined where a class is absent." in text
    assert "n/a: precision is undefined where nothing is called malignant." in text
    assert " 0.0000" not in text.splitlines()[1]


def test_spread_line_gives_mean_and_standard_deviation():
    spread = intervals.spread([dict.fromkeys(tables.COLUMNS, value) for value in (0.8, 0.9)], tables.COLUMNS)
    assert tables.spread_line("mean ± std", spread).count("0.850 ± 0.071") == len(tables.COLUMNS)


def test_report_names_thresholds_and_ends_with_the_whole_split():
    rng = np.random.default_rng(0)
    labels, probabilities, clean = rng.integers(0, 2, 60), rng.random(60), np.arange(60) < 40
    chosen = Calibration(1.5, 0.25, "a rule", "val", 78)
    report = evaluation.report({"test": evaluation.Scored(labels, probabilities, clean)}, chosen, resamples=100)
    assert [s["n"] for s in report["splits"].values()] == [60, 40]
    expected = metrics.summary(labels[:40], probabilities[:40], 0.25)
    assert report["operating_point"]["splits"]["clean_test"]["recall"] == expected["recall"]
    text = evaluation.report_text(report, Source("phantom", 28, None, ""))
    assert "operating point 0.2500: a rule" in text and "temperature 1.500 fitted on val" in text
    assert text.splitlines()[-1].startswith("PHANTOM data 28×28 (generated, not ultrasound): test AUC")
    assert text.splitlines()[-1].endswith("on 60 images")
    assert f"NPV {tables.with_interval(report['operating_point']['splits']['test']['benign'], 'precision')}" in text
