import numpy as np
import pytest
from scipy import optimize, special
from sklearn.metrics import brier_score_loss, log_loss

from common import calibration
from common.thresholds import Rule

RULE = Rule("sensitivity", 0.9)


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


@pytest.mark.parametrize("n", [20, 78, 4000])
@pytest.mark.parametrize("temperature, offset", [(0.5, 0.0), (1.0, 1.0), (2.5, -0.7)])
def test_the_fit_is_the_minimum_of_the_penalised_loss(n, temperature, offset):
    logits, labels = simulated(1, n, temperature)
    logits = logits - temperature * offset

    def loss(parameters):
        slope, shift = parameters
        prior = ((slope - 1) / 0.5) ** 2 / 2 + shift**2 / 2
        return n * calibration.negative_log_likelihood(labels, slope * logits + shift) + prior

    found = calibration.fit(labels, logits)
    expected = optimize.minimize(loss, (1.0, 0.0), method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose((1 / found[0], found[1]), expected, rtol=1e-4, atol=1e-5)
    if n == 4000:
        np.testing.assert_allclose(found, (temperature, offset), rtol=0.15, atol=0.1)
        share = calibration.calibrated(logits, *found)
        assert abs(calibration.in_the_large(labels, share)) < 1e-3  # a temperature alone cannot do that


LIMITS = {  # logits, labels, temperature
    "separable and huge": ([-2e3, 2e3], [0, 1], 1.0),
    "reversed and huge": ([-2e3, 2e3], [1, 0], 20),
    "all zero": ([0.0, 0], [0, 1], 1),
    "empty": ([], [], 1),
}


@pytest.mark.parametrize("logits, labels, temperature", LIMITS.values(), ids=LIMITS)
def test_the_fit_keeps_the_order_of_images_whatever_they_say(logits, labels, temperature):
    fitted, offset = calibration.fit(labels, logits)
    assert fitted == pytest.approx(temperature) and abs(offset) < 0.5


def test_few_images_change_little():
    logits, labels = simulated(2, 4000, 3.0)
    apart = [abs(1 / calibration.fit(labels[:n], logits[:n] / 10)[0] - 1) for n in (2, 20, 4000)]
    assert apart == sorted(apart) and apart[0] < 0.05


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


@pytest.fixture(scope="module")
def three_hospitals():
    """Labels, logits that mean something else in each hospital, and the hospital of each image."""
    rng = np.random.default_rng(8)
    labels, parts = rng.integers(0, 2, 300), np.repeat(["a", "b", "c"], 100)
    scale = np.select([parts == "a", parts == "b"], [3, 0.5], 1)
    return labels, (2 * labels - 1) * scale + rng.normal(0, 2, 300) - (parts == "b"), parts


def test_one_hospital_or_all_as_one_choose_by_their_own_images(three_hospitals):
    labels, logits, _ = three_hospitals
    *fitted, threshold = calibration.choose(labels, logits, RULE)
    assert tuple(fitted) == calibration.fit(labels, logits)
    assert threshold == RULE.threshold(labels, calibration.calibrated(logits, *fitted))


def test_the_most_cautious_hospital_chooses(three_hospitals):
    labels, logits, parts = three_hospitals
    *fitted, threshold = calibration.choose(labels, logits, RULE, parts)
    probabilities, alone = calibration.calibrated(logits, *fitted), [parts == part for part in "abc"]
    of_each = [RULE.threshold(labels[part], probabilities[part]) for part in alone]
    assert threshold == min(of_each) < max(of_each)
    flagged = probabilities >= threshold
    assert all(flagged[part & (labels == 1)].mean() >= 0.9 for part in alone)  # the sensitivity is kept in each


@pytest.mark.parametrize("left_out", [False, True])
def test_cross_fitted_flags_are_those_of_a_plain_loop(three_hospitals, left_out):
    labels, logits, parts = three_hospitals
    fold = np.searchsorted(["a", "b", "c"], parts) if left_out else np.arange(300) // 3 % 5
    found, flagged = calibration.cross_fit(labels, logits, RULE, fold, parts if left_out else None)
    for i in range(0, 300, 7):
        others = fold != fold[i]
        *fitted, threshold = calibration.choose(
            labels[others], logits[others], RULE, parts[others] if left_out else None
        )
        assert found[i] == calibration.calibrated(logits[i : i + 1], *fitted)[0]
        assert flagged[i] == (found[i] >= threshold)


IMPOSSIBLE = [{"temperature": 0.0}, {"temperature": np.inf}, {"offset": np.nan}]
IMPOSSIBLE += [{"threshold": -0.1}, {"threshold": 1.1}]


@pytest.mark.parametrize("given", IMPOSSIBLE)
def test_a_calibration_that_cannot_be_is_refused(given):
    with pytest.raises(ValueError, match="out of range"):
        calibration.Calibration(**given)
