"""Which of two models is better, judged on the same images: paired tests, and what they allow to be said.

The two models see the same cases, so their errors are correlated; comparing two separate intervals would ignore that
and miss differences that a paired test finds.
"""

from math import comb, erfc, sqrt

import numpy as np

from common import intervals, metrics
from common.intervals import Z95
from common.metrics import STANDARD_THRESHOLD

SIGNIFICANCE = 0.05


def _midranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 1 to n, tied scores sharing their mean rank."""
    _, member_of, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[member_of]


def _wins(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive the number of negatives it beats, for each negative the number of positives that beat it; a
    tie is half a win. Divided by the other class's size these are the structural components V10 and V01."""
    positives, negatives = scores[labels], scores[~labels]
    ranks = _midranks(scores)
    return ranks[labels] - _midranks(positives), len(positives) - (ranks[~labels] - _midranks(negatives))


def delong(labels, scores_a, scores_b) -> dict:
    """Test of equal AUC for two models on the same cases (DeLong, DeLong & Clarke-Pearson, Biometrics 1988).

    The variance is S10 / m + S01 / n of the components' differences, which is the paper's L S L' with L = (1, -1); the
    test and the interval are normal.

    Args: labels: [n] of 0 or 1; scores_a, scores_b: [n], each on any monotone scale.
    Returns: {"auc_a", "auc_b", "difference", "ci95": [low, high], "p"}; difference is a minus b, p two-sided. Models
        that order every malignant-benign pair alike get p = 1 and an interval of no width. ci95 and p are nan when a
        class has fewer than 2 members, or when the AUCs differ by as much for every case: no variance to judge by.
    """
    labels, scores_a, scores_b = np.asarray(labels, bool), np.asarray(scores_a), np.asarray(scores_b)
    auc_a, auc_b = (float(metrics.auc(labels, scores)) for scores in (scores_a, scores_b))
    difference, m, n = auc_a - auc_b, int(labels.sum()), int((~labels).sum())
    result = {"auc_a": auc_a, "auc_b": auc_b, "difference": difference, "ci95": [np.nan, np.nan], "p": np.nan}
    if min(m, n) < 2:
        return result
    by_positive, by_negative = (a - b for a, b in zip(_wins(labels, scores_a), _wins(labels, scores_b)))
    error = sqrt(by_positive.var(ddof=1) / n**2 / m + by_negative.var(ddof=1) / m**2 / n)
    if error == 0 and difference != 0:
        return result
    p = erfc(abs(difference) / error / sqrt(2)) if error else 1.0
    return result | {"ci95": [difference - Z95 * error, difference + Z95 * error], "p": p}


def mcnemar(labels, called_a, called_b) -> dict:
    """Test of equal accuracy for two models on the same cases (McNemar, Psychometrika 1947), in its exact form: the
    cases that only one model gets right are coin flips, two-sided binomial.

    Args: labels, called_a, called_b: [n] of 0 or 1.
    Returns: {"only_a_correct", "only_b_correct", "p"}; p is 1 when the models never differ.
    """
    labels = np.asarray(labels, bool)
    right_a, right_b = np.asarray(called_a, bool) == labels, np.asarray(called_b, bool) == labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant = only_a + only_b
    tail = sum(comb(discordant, k) for k in range(min(only_a, only_b) + 1)) / 2**discordant
    return {"only_a_correct": only_a, "only_b_correct": only_b, "p": min(1.0, 2 * tail)}


def paired_bootstrap(labels, a, b, groups=None, resamples: int = 2000, seed: int = 0) -> dict:
    """Bootstrap intervals of the differences a minus b at the standard threshold, on the same resamples for both.

    Args: labels: [n], 1 for malignant; a, b: [n], P(malignant); groups: [n], as in `intervals.resample_counts`.
    Returns: {metric: {"difference", "ci95": [low, high]}} for `metrics.NAMES`, nan where one is undefined.
    """
    counts = intervals.resample_counts(labels, groups, resamples, seed)
    summary_a, summary_b = (metrics.summary(labels, probabilities) for probabilities in (a, b))
    resampled = [
        [metrics.summary(labels, probabilities, weights=weights) for probabilities in (a, b)]
        for weights in intervals.blocks(counts)
    ]

    def compare(name: str) -> dict:
        difference = float(summary_a[name] - summary_b[name])
        differences = np.hstack([one[name] - other[name] for one, other in resampled])
        return {"difference": difference, "ci95": intervals.percentile_interval(difference, differences)}

    return {name: compare(name) for name in metrics.NAMES}


def _p(p: float) -> str:
    """ "p = 0.46", with as many digits as show on which side of SIGNIFICANCE it lies."""
    if p < 0.001:
        return "p < 0.001"
    texts = (f"{p:.{digits}g}" for digits in range(2, 18))
    return "p = " + next(text for text in texts if (float(text) < SIGNIFICANCE) == (p < SIGNIFICANCE))


def _compared(difference: float) -> str:
    """ "higher by 0.012", with more digits where three would show nothing."""
    if difference == 0:
        return "the same"
    size = f"{abs(difference):.3f}" if abs(difference) >= 0.0005 else f"{abs(difference):.1g}"
    return f"{'higher' if difference > 0 else 'lower'} by {size}"


def _auc_finding(result: dict, p: float) -> str:
    if np.isnan(result["difference"]):
        return "undefined, as a class is absent,"
    low, high = (round(limit, 3) + 0.0 for limit in result["ci95"])  # + 0.0 turns -0.0 into 0.0
    delong_p = "n/a" if np.isnan(p) else _p(p)
    interval = f"95 % interval {low:.3f} to {high:.3f}; DeLong {delong_p}, images taken as independent"
    return f"{_compared(result['difference'])} ({interval})"


def conclusion(names: tuple[str, str], auc: dict, delong_result: dict, mcnemar_result: dict, n: int) -> str:
    """One sentence on what the comparison does and does not show, at the 5 % level.

    A difference in AUC is concluded when 0 lies outside its interval, which draws whole groups; the smallest that could
    be seen is half the width of that interval. A difference in accuracy is concluded by McNemar's test.

    Args: names: of the two models; auc: {"difference", "ci95"} from `paired_bootstrap`; delong_result, mcnemar_result:
        from `delong` and `mcnemar`; n: number of images, 1 or above.
    """
    accuracy = (mcnemar_result["only_a_correct"] - mcnemar_result["only_b_correct"]) / n
    low, high = auc["ci95"]
    tests = (
        ("AUC", auc["difference"], low > 0 or high < 0),
        ("accuracy", accuracy, mcnemar_result["p"] < SIGNIFICANCE),
    )
    found = [f"{names[0] if gap > 0 else names[1]}'s higher {name}" for name, gap, shown in tests if shown]
    missing = [name for name, _, shown in tests if not shown]
    verdict = f"{' and '.join(found)} can be concluded" if found else "no difference can be concluded"
    if found and missing:
        verdict += f", a difference in {missing[0]} cannot"
    if "AUC" in missing and high > low:
        verdict += f"; one smaller than about {(high - low) / 2:.2g} in AUC could not be seen with this many images"
    auc_finding = f"{names[0]}'s AUC is {_auc_finding(auc, delong_result['p'])}"
    accuracy_finding = f"its accuracy {_compared(accuracy)} (McNemar {_p(mcnemar_result['p'])})"
    return f"On these {n} images, compared with {names[1]}, {auc_finding} and {accuracy_finding}: {verdict}."


def compare(labels, a, b, groups, names: tuple[str, str], resamples: int, seed: int) -> dict:
    """All of the above at the standard threshold, as evaluate.py stores it.

    Args: a, b: [n], P(malignant); groups: [n], as in `intervals.resample_counts`.
    """
    differences, delong_result = paired_bootstrap(labels, a, b, groups, resamples, seed), delong(labels, a, b)
    mcnemar_result = mcnemar(labels, a >= STANDARD_THRESHOLD, b >= STANDARD_THRESHOLD)
    return {
        "against": names[1],
        "differences": differences,
        "delong": delong_result,
        "mcnemar": mcnemar_result,
        "conclusion": conclusion(names, differences["auc"], delong_result, mcnemar_result, len(labels)),
    }
