import json

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.metrics import brier_score_loss, log_loss

from common import calibration, metrics


def simulated(seed: int, n: int, temperature: float):
    """Logits that are `temperature` times too large, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-0.7, 1.5, n)
    return temperature * true, (rng.random(n) < special.expit(true)).astype(int)


def test_sigmoid_and_logit_are_scipys():
    logits = np.r_[np.linspace(-25, 25, 101), 0.0]
    np.testing.assert_allclose(calibration.sigmoid(logits), special.expit(logits), rtol=1e-14)
    probabilities = special.expit(logits)
    np.testing.assert_allclose(calibration.logit(probabilities), special.logit(probabilities), atol=1e-9)
    np.testing.assert_array_equal(calibration.sigmoid([-1e4, 1e4, -np.inf, np.inf]), [0, 1, 0, 1])
    limit = np.log((1 - calibration.EPSILON) / calibration.EPSILON)
    np.testing.assert_allclose(calibration.logit([0, 1]), [-limit, limit], rtol=1e-5)


def test_negative_log_likelihood_is_scikit_learns():
    logits, labels = simulated(0, 200, 2)
    expected = log_loss(labels, calibration.sigmoid(logits))
    assert calibration.negative_log_likelihood(labels, logits) == pytest.approx(expected, abs=1e-12)
    assert calibration.negative_log_likelihood([1, 0], [-800.0, 800.0]) == 800


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 8.0])
def test_temperature_is_the_minimum_and_near_the_truth(true):
    logits, labels = simulated(1, 4000, true)
    fitted = calibration.fit_temperature(logits, labels)
    loss = lambda inverse: calibration.negative_log_likelihood(labels, logits * inverse)  # noqa: E731
    expected = optimize.minimize_scalar(loss, bounds=(1 / 20, 20), method="bounded", options={"xatol": 1e-10})
    assert fitted == pytest.approx(1 / expected.x, rel=1e-5) and fitted == pytest.approx(true, rel=0.1)
    assert loss(1 / fitted) <= expected.fun + 1e-14


LIMITS = {  # logits, labels, temperature
    "separable": ([-2.0, -1, 1, 2], [0, 0, 1, 1], 0.05),
    "separable and huge": ([-2e3, 2e3], [0, 1], 0.05),
    "reversed": ([-2.0, -1, 1, 2], [1, 1, 0, 0], 20),
    "uninformative": ([-5.0, 5, -5, 5], [0, 0, 1, 1], 20),
    "all zero": ([0.0, 0, 0], [0, 1, 1], 1),
    "empty": ([], [], 1),
}


@pytest.mark.parametrize("logits, labels, temperature", LIMITS.values(), ids=LIMITS)
def test_temperature_limits(logits, labels, temperature):
    assert calibration.fit_temperature(logits, labels) == temperature


def test_brier_is_scikit_learns_and_measures_of_no_case_are_undefined():
    rng = np.random.default_rng(3)
    labels, probabilities = rng.integers(0, 2, 50), rng.random(50)
    assert calibration.brier(labels, probabilities) == pytest.approx(brier_score_loss(labels, probabilities), abs=1e-15)
    weights = rng.integers(0, 3, (2, 3, 50))
    expected = [brier_score_loss(labels, probabilities, sample_weight=row) for row in weights.reshape(6, 50)]
    np.testing.assert_allclose(calibration.brier(labels, probabilities, weights).ravel(), expected, atol=1e-12)
    for measure in (calibration.brier, calibration.expected_calibration_error, calibration.negative_log_likelihood):
        assert np.isnan(measure([], []))


def brute_force_ece(labels, probabilities, bins):
    """Each distinct probability goes whole to the last bin of the equal split that it reaches into."""
    edges = [part[0] for part in np.array_split(np.sort(probabilities), bins) if len(part)]
    bin_of = np.searchsorted(edges, probabilities, side="right")
    gaps = [abs(np.sum(probabilities[bin_of == b] - labels[bin_of == b])) for b in set(bin_of)]
    return sum(gaps) / len(labels)


def test_ece_is_the_brute_force_one():
    rng = np.random.default_rng(4)
    for n in rng.integers(1, 60, 300):
        labels, probabilities = rng.integers(0, 2, n), np.round(rng.random(n), rng.integers(1, 4))
        bins = rng.integers(1, 12)
        ece = calibration.expected_calibration_error(labels, probabilities, bins=bins)
        assert ece == pytest.approx(brute_force_ece(labels, probabilities, bins), abs=1e-12)
        counts = rng.integers(0, 3, (2, 3, n))  # resamples of any size at once
        counts[..., 0] += 1
        found = calibration.expected_calibration_error(labels, probabilities, counts, bins)
        copies = [(np.repeat(labels, row), np.repeat(probabilities, row)) for row in counts.reshape(6, n)]
        np.testing.assert_allclose(found.ravel(), [brute_force_ece(*copy, bins) for copy in copies], rtol=0, atol=1e-12)


def test_reliability_bins_hold_equal_shares_and_ties_stay_together():
    rng = np.random.default_rng(5)
    probabilities = rng.random(103)
    predicted, observed, counts = calibration.reliability(rng.integers(0, 2, 103), probabilities)
    assert counts.tolist() == [11] * 3 + [10] * 7 and (np.diff(predicted) > 0).all()
    assert (observed * counts).sum() == pytest.approx(round((observed * counts).sum()))
    assert calibration.reliability([0, 0, 1, 0], [0.25] * 4) == (0.25, 0.25, 4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_operating_point_calls_as_the_highest_threshold_and_touches_no_score(dtype):
    rng = np.random.default_rng(7)
    for n in rng.integers(1, 40, 200):
        labels = np.r_[1, rng.integers(0, 2, n)]
        probabilities = np.round(rng.random(n + 1), rng.integers(1, 17)).astype(dtype)
        exact = rng.integers(1, labels.sum() + 1) / labels.sum()
        sensitivity = rng.choice([0.07, 0.5, 0.9, 0.95, 1, exact])
        threshold = json.loads(json.dumps(calibration.operating_point(labels, probabilities, sensitivity)))
        good = [t for t in probabilities if metrics.rates(labels, probabilities >= t)["recall"] >= sensitivity]
        assert np.array_equal(probabilities >= threshold, probabilities >= max(good))
        assert not np.any(probabilities == threshold) or max(good) == 0


def test_the_operating_point_lies_midway_to_the_next_probability():
    labels, probabilities = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.2, 0.4, 0.6, 0.9])
    assert calibration.operating_point(labels, probabilities, 0.6) == pytest.approx(0.5)
    assert calibration.operating_point(labels, probabilities, 0.95) == pytest.approx(0.15)
    assert calibration.threshold_rule(0.6, "val").startswith(
        "largest threshold with a sensitivity of at least 0.6 on val, "
    )


@pytest.mark.parametrize("labels, sensitivity", [([0, 0], 0.9), ([], 0.9), ([0, 1], 0), ([0, 1], 1.01)])
def test_operating_point_refuses(labels, sensitivity):
    with pytest.raises(ValueError):
        calibration.operating_point(labels, [0.5] * len(labels), sensitivity)


@pytest.fixture(scope="module")
def three_hospitals():
    """Labels, logits that mean something else in each hospital, and the hospital of each image."""
    rng = np.random.default_rng(8)
    labels, parts = rng.integers(0, 2, 300), np.repeat(["a", "b", "c"], 100)
    scale = np.select([parts == "a", parts == "b"], [3, 0.5], 1)
    return labels, (2 * labels - 1) * scale + rng.normal(0, 2, 300) - (parts == "b"), parts


def test_one_hospital_or_all_as_one_choose_by_their_own_images(three_hospitals):
    labels, logits, _ = three_hospitals
    temperature, threshold = calibration.choose(labels, logits, 0.9)
    assert temperature == calibration.fit_temperature(logits, labels)
    probabilities = calibration.sigmoid(logits / temperature)
    assert threshold == calibration.operating_point(labels, probabilities, 0.9)


def test_the_most_cautious_hospital_chooses(three_hospitals):
    labels, logits, parts = three_hospitals
    temperature, threshold = calibration.choose(labels, logits, 0.9, parts)
    alone = [parts == part for part in "abc"]
    assert temperature == max(calibration.fit_temperature(logits[part], labels[part]) for part in alone)
    probabilities = calibration.sigmoid(logits / temperature)
    of_each = [calibration.operating_point(labels[part], probabilities[part], 0.9) for part in alone]
    assert threshold == min(of_each) < max(of_each)
    flagged = probabilities >= threshold
    assert all(flagged[part & (labels == 1)].mean() >= 0.9 for part in alone)  # the sensitivity is kept in each


@pytest.mark.parametrize("left_out", [False, True])
def test_cross_fitted_flags_are_those_of_a_plain_loop(three_hospitals, left_out):
    labels, logits, parts = three_hospitals
    fold = np.searchsorted(["a", "b", "c"], parts) if left_out else np.arange(300) // 3 % 5
    found = calibration.cross_fit(labels, logits, 0.9, fold, parts if left_out else None)
    for i in range(300):
        others = [p for p in "abc" if p != parts[i]] if left_out else ["abc"]
        chose = [(fold != fold[i]) & np.isin(parts, list(names)) for names in others]
        temperature = max(calibration.fit_temperature(logits[part], labels[part]) for part in chose)
        probabilities = calibration.sigmoid(logits / temperature)
        thresholds = [calibration.operating_point(labels[part], probabilities[part], 0.9) for part in chose]
        assert found[i] == (probabilities[i] >= min(thresholds))


IMPOSSIBLE = [{"temperature": 0.0}, {"temperature": np.inf}, {"threshold": -0.1}, {"threshold": 1.1}]


@pytest.mark.parametrize("given", IMPOSSIBLE)
def test_a_calibration_that_cannot_be_is_refused(given):
    with pytest.raises(ValueError, match="out of range"):
        calibration.Calibration(**given)
