from math import erfc, sqrt

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from common import comparison, intervals, metrics

NAN = np.nan


def two_models(rng, n: int, tied: int = 1):
    """Labels with at least two of each class, and two models' correlated scores, rounded to `tied` decimals."""
    labels = np.r_[0, 0, 1, 1, rng.random(n - 4) < 0.4].astype(int)
    shared = rng.normal(size=n)
    return labels, *(np.round(labels + shared + rng.normal(size=n), tied) for _ in "ab")


def paper_s_delong(labels, *models):
    """The paper's equations 3 to 6, with every pair of cases: AUCs and their 2 x 2 covariance."""
    positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    pairs = [(scores[positives][:, np.newaxis], scores[negatives]) for scores in models]
    psi = np.array([(x > y) + 0.5 * (x == y) for x, y in pairs])  # [models, positives, negatives]
    by_positive, by_negative = psi.mean(2), psi.mean(1)
    return by_positive.mean(1), np.cov(by_positive) / len(positives) + np.cov(by_negative) / len(negatives)


def test_delong_is_the_paper_s():
    rng = np.random.default_rng(0)
    for n in rng.integers(6, 40, 60):
        labels, a, b = two_models(rng, n)
        (auc_a, auc_b), covariance = paper_s_delong(labels, a, b)
        error = sqrt(max(0.0, np.array([1, -1]) @ covariance @ np.array([1, -1])))
        result = comparison.delong(labels, a, b)
        assert [result["auc_a"], result["auc_b"]] == pytest.approx([auc_a, auc_b], abs=1e-12)
        assert result["auc_a"] == metrics.auc(labels, a)
        if error > 1e-9:
            difference = auc_a - auc_b
            assert result["p"] == pytest.approx(erfc(abs(difference) / error / sqrt(2)), abs=1e-12)
            assert result["ci95"] == pytest.approx([difference - 1.96 * error, difference + 1.96 * error], abs=1e-4)


DEGENERATE = {
    "same ranks": ([0, 1, 0, 1], [1, 2, 3, 4], [10, 20, 30, 40], [0, 1, 0]),
    "nothing ranked": ([0, 1, 0, 1], [0.5] * 4, [0.1] * 4, [0, 1, 0]),
    "one positive": ([0, 0, 0, 1], [1, 2, 3, 4], [4, 3, 2, 1], [1, NAN, NAN]),
    "no variance": ([0, 0, 1, 1], [1, 2, 3, 4], [1, 1, 1, 1], [0.5, NAN, NAN]),
    "no positive": ([0, 0, 0], [1, 2, 3], [3, 2, 1], [NAN, NAN, NAN]),
    "empty": ([], [], [], [NAN, NAN, NAN]),
}


@pytest.mark.parametrize("labels, a, b, expected", DEGENERATE.values(), ids=DEGENERATE)
def test_delong_degenerate(labels, a, b, expected):
    result = comparison.delong(labels, a, b)
    np.testing.assert_equal([result["difference"], result["p"], result["ci95"][0]], expected)


def test_mcnemar_is_scipys_binomial_test():
    rng = np.random.default_rng(3)
    for n in rng.integers(1, 80, 150):
        labels, a, b = rng.integers(0, 2, (3, n))
        result = comparison.mcnemar(labels, a, b)
        only_a, only_b = ((a == labels) & (b != labels)).sum(), ((b == labels) & (a != labels)).sum()
        assert (result["only_a_correct"], result["only_b_correct"]) == (only_a, only_b)
        expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1
        assert result["p"] == pytest.approx(expected, abs=1e-12)


def test_paired_bootstrap():
    labels, a, b = two_models(np.random.default_rng(4), 120)
    a, b = (1 / (1 + np.exp(-scores)) for scores in (a, b))
    counts = intervals.resample_counts(labels)
    paired = comparison.paired_bootstrap(labels, a, b, counts)
    assert tuple(paired) == ("accuracy", "auc", "aupr", "f1", "precision", "recall", "specificity")
    summaries = metrics.summary(labels, a), metrics.summary(labels, b)
    for name, result in paired.items():
        assert result["difference"] == summaries[0][name] - summaries[1][name]
        assert result["ci95"][0] <= result["difference"] <= result["ci95"][1]
    np.testing.assert_allclose(paired["auc"]["ci95"], comparison.delong(labels, a, b)["ci95"], atol=0.015)
    for result in comparison.paired_bootstrap(labels, a, a, counts[:20]).values():
        assert result == {"difference": 0, "ci95": [0, 0]}
    undefined = comparison.paired_bootstrap([0, 0], [0.1, 0.9], [0.2, 0.3], np.ones((20, 2)))["auc"]
    assert np.isnan([undefined["difference"], *undefined["ci95"]]).all()


FOUND = "With 200 images, four of five comparisons show a true difference in AUC of about {}."
BOTH = "which takes images as independent), and an accuracy that is"
CONCLUSIONS = [  # of AUC difference, half its interval, p; cases that only A gets right, only B, p; what is said
    (0.012, 0.032, 0.462, 6, 8, 0.79, "AUC that is higher by 0.012 (95 % interval -0.020 to 0.044; DeLong p = 0.46, "),
    (0.012, 0.032, 0.462, 6, 8, 0.79, f"{BOTH} lower by 0.010 (McNemar p = 0.79), compared with B. No difference "),
    (
        0.012,
        0.032,
        0.462,
        6,
        8,
        0.79,
        f"concluded. {FOUND.format(0.046)}",
    ),
    (0.05, 0.03, 0.001, 20, 5, 0.004, "B. A's higher AUC and A's higher accuracy can be concluded."),
    (-0.05, 0.03, 0.001, 9, 9, 1, "B. B's higher AUC can be concluded, a difference in accuracy cannot."),
    # of AUC the interval decides, not DeLong's test
    (0.02, 0.03, 0.01, 2, 16, 0.0013, "B. B's higher accuracy can be concluded, a difference in AUC cannot. With"),
    (
        0.02,
        0.03,
        0.01,
        2,
        16,
        0.0013,
        f" cannot. {FOUND.format(0.043)}",
    ),
    (0.03, 0.029, 0.04997, 1, 1, 1, "DeLong p = 0.04997, "),
    (0.03, 0.03, 0.05, 1, 1, 0.05002, "(McNemar p = 0.05), compared with B. No difference can be concluded"),
    (1e-4, 0.0004, 0.6, 0, 0, 1, "higher by 0.0001 (95 % interval 0.000 to 0.001"),
    (-0.05, 0.03, 1e-9, 9, 9, 1, "DeLong p < 0.001"),
    (0, 0, 1, 0, 0, 1, f"that is the same (95 % interval 0.000 to 0.000; DeLong p = 1, {BOTH} the same "),
    (0, 0, 1, 0, 0, 1, " the same (McNemar p = 1), compared with B. No difference can be concluded."),
    (0.5, 0.2, NAN, 2, 1, 1, "higher by 0.500 (95 % interval 0.300 to 0.700; DeLong n/a, "),
    (NAN, NAN, NAN, 2, 1, 1, "is undefined, because a class is absent, and an accuracy that is higher by 0.005"),
]


@pytest.mark.parametrize("difference, half, p, only_a, only_b, mcnemar_p, said", CONCLUSIONS)
def test_conclusion(difference, half, p, only_a, only_b, mcnemar_p, said):
    auc = {"difference": difference, "ci95": [difference - half, difference + half]}
    mcnemar = {"only_a_correct": only_a, "only_b_correct": only_b, "p": mcnemar_p}
    sentence = comparison.conclusion(("A", "B"), {"auc": auc}, p, mcnemar, 200)
    assert said in sentence and sentence.startswith("On these 200 images, A has an AUC that is ")
    assert sentence.endswith(".") and "nan" not in sentence


def test_a_difference_as_large_as_is_said_is_found_in_four_of_five_comparisons():
    errors = comparison.POWER * norm.ppf(0.975)  # the difference, in standard errors
    assert norm.sf(norm.ppf(0.975) - errors) == pytest.approx(0.8, abs=0.001)
