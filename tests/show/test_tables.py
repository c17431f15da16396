"""Tables for people: what is printed is what was computed, and n/a says why."""

import numpy as np

from common import intervals, metrics
from common.show import tables


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
