import numpy as np
import pytest

from common import intervals, netbenefit

LABELS = np.array([1, 1, 1, 0, 0, 0, 0, 0])
PROBABILITIES = np.array([0.9, 0.6, 0.2, 0.7, 0.5, 0.3, 0.1, 0.05])


def by_loop(labels, probabilities, threshold: float, weights=None) -> float:
    """TP / n - FP / n * t / (1 - t), image by image."""
    weights = [1] * len(labels) if weights is None else weights
    tp = sum(w for y, p, w in zip(labels, probabilities, weights) if p >= threshold and y == 1)
    fp = sum(w for y, p, w in zip(labels, probabilities, weights) if p >= threshold and y == 0)
    return tp / sum(weights) - fp / sum(weights) * threshold / (1 - threshold)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.5, (2 - 2) / 8), (0.2, (3 - 3 / 4) / 8), (0.0, 3 / 8), (0.95, 0), (0.6, (2 - 1.5) / 8)],
)
def test_net_benefit_by_hand(threshold, expected):
    """A probability equal to the threshold is flagged."""
    assert netbenefit.net_benefit(LABELS, PROBABILITIES, [threshold]) == pytest.approx([expected])


def test_net_benefit_of_weights_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    labels, probabilities, weights = rng.integers(0, 2, 30), rng.random(30).round(1), rng.integers(0, 3, (4, 30))
    thresholds = [0.0, 0.1, 0.3, 0.5, 0.9]
    found = netbenefit.net_benefit(labels, probabilities, thresholds, weights)
    expected = [[by_loop(labels, probabilities, t, row) for t in thresholds] for row in weights]
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_treat_all_falls_to_zero_where_the_threshold_is_the_share_of_malignant():
    found = netbenefit.treat_all(LABELS, [0, 3 / 8, 0.5])
    np.testing.assert_allclose(found, [3 / 8, 0, 3 / 8 - 5 / 8], atol=1e-15)


def test_no_image_has_no_net_benefit():
    assert np.isnan(netbenefit.net_benefit([], [], [0.2])).all()


@pytest.mark.parametrize("threshold", [-0.1, 1.0, np.nan])
def test_a_threshold_that_is_no_probability_below_one_is_refused(threshold):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        netbenefit.net_benefit(LABELS, PROBABILITIES, [threshold])


def test_curve_has_a_row_for_each_threshold_with_the_percentiles_of_a_loop():
    groups = np.array([0, 0, 1, 2, 3, 3, 4, 5])
    counts = intervals.resample_counts(LABELS, groups, resamples=40)
    rows = netbenefit.curve(LABELS, PROBABILITIES, counts, [0.1, 0.4])
    assert [row["threshold"] for row in rows] == [0.1, 0.4]
    for row in rows:
        resampled = [by_loop(LABELS, PROBABILITIES, row["threshold"], weights) for weights in counts]
        assert row["net_benefit"] == pytest.approx(by_loop(LABELS, PROBABILITIES, row["threshold"]))
        assert row["net_benefit_ci95"] == pytest.approx(np.percentile(resampled, [2.5, 97.5]))
        assert row["treat_all"] == pytest.approx(by_loop(LABELS, np.ones(8), row["threshold"]))


def test_curve_goes_through_0_to_99_percent():
    rows = netbenefit.curve(LABELS, PROBABILITIES, intervals.resample_counts(LABELS, resamples=5))
    assert [row["threshold"] for row in rows] == [k / 100 for k in range(100)]
    assert rows[0]["net_benefit"] == rows[0]["treat_all"] == 3 / 8
