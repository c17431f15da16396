"""Compare two models on the same images: paired tests, and a sentence with the conclusion.

Errors of two models on the same images are correlated. Two separate intervals would miss differences that a paired test
finds.
"""

from math import comb, erfc, sqrt

import numpy as np

from common import intervals, metrics
from common.intervals import Z95
from common.metrics import STANDARD_THRESHOLD

SIGNIFICANCE = 0.05
POWER = (1.96 + 0.84) / 1.96  # half an interval times POWER: the difference found with a power of 80 %


def _wins(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return 1 where a positive case scores above a negative case, 1/2 for a tie, otherwise 0: [positives, negatives].

    The means over one class are the structural components of the other class, V10 and V01.
    """
    return np.heaviside(scores[labels][:, np.newaxis] - scores[~labels], 0.5)


def delong(labels, scores_a, scores_b) -> dict:
    """Test whether two models have equal AUC on the same cases, with the normal distribution.

    Source: DeLong, DeLong & Clarke-Pearson, Biometrics 1988. The variance is S10 / m + S01 / n of the differences of
    the components: L S L' of the paper, with L = (1, -1).

    Args: labels: [n] of 0 or 1; scores_a, scores_b: [n], each on any monotone scale.
    Returns: {"auc_a", "auc_b", "difference": a minus b, "ci95": [low, high], "p": two-sided}. p is 1 if the models
        order every pair alike. ci95 and p are nan if a class has fewer than 2 members, or if the AUCs differ without
        any variance.
    """
    labels = np.asarray(labels, bool)
    auc_a, auc_b = (float(metrics.auc(labels, scores)) for scores in (scores_a, scores_b))
    difference, m, n = auc_a - auc_b, int(labels.sum()), int((~labels).sum())
    result = {"auc_a": auc_a, "auc_b": auc_b, "difference": difference, "ci95": [np.nan, np.nan], "p": np.nan}
    if min(m, n) < 2:
        return result
    gained = _wins(labels, np.asarray(scores_a)) - _wins(labels, np.asarray(scores_b))
    error = sqrt(gained.sum(1).var(ddof=1) / n**2 / m + gained.sum(0).var(ddof=1) / m**2 / n)
    if error == 0 and difference != 0:
        return result
    p = erfc(abs(difference) / error / sqrt(2)) if error else 1.0
    return result | {"ci95": [difference - Z95 * error, difference + Z95 * error], "p": p}


def mcnemar(labels, called_a, called_b) -> dict:
    """Test whether two models have equal accuracy on the same cases (McNemar, Psychometrika 1947), in exact form.

    The cases that only one model gets right are coin flips. Args: labels, called_a, called_b: [n] of 0 or 1.
    Returns: {"only_a_correct", "only_b_correct", "p"}; p is two-sided, and 1 if the models never differ.
    """
    labels = np.asarray(labels, bool)
    right_a, right_b = np.asarray(called_a, bool) == labels, np.asarray(called_b, bool) == labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant = only_a + only_b
    tail = sum(comb(discordant, k) for k in range(min(only_a, only_b) + 1)) / 2**discordant
    return {"only_a_correct": only_a, "only_b_correct": only_b, "p": min(1.0, 2 * tail)}


def paired_bootstrap(labels, a, b, counts) -> dict:
    """Return bootstrap intervals of the differences a minus b at the standard threshold, on the same resamples.

    Args: labels: [n], 1 for malignant; a, b: [n], P(malignant); counts: [resamples, n], of `intervals.resample_counts`.
    Returns: {metric: {"difference", "ci95": [low, high]}} for `metrics.NAMES`; nan if a metric is undefined.
    """

    def differences(weights) -> dict:
        ours, theirs = (metrics.summary(labels, probabilities, weights=weights) for probabilities in (a, b))
        return {name: ours[name] - theirs[name] for name in metrics.NAMES}

    found = intervals.with_intervals(differences, counts)
    return {name: {"difference": found[name], "ci95": found[f"{name}_ci95"]} for name in metrics.NAMES}


def p_text(p: float) -> str:
    """Return p as text, such as "p = 0.46", with enough digits to show on which side of SIGNIFICANCE p lies."""
    if p < 0.001 or np.isnan(p):
        return "n/a" if np.isnan(p) else "p < 0.001"
    texts = (f"{p:.{digits}g}" for digits in range(2, 18))
    return "p = " + next(text for text in texts if (float(text) < SIGNIFICANCE) == (p < SIGNIFICANCE))


def _compared(difference: float) -> str:
    """Return a difference in words, such as "higher by 0.012", with more digits if three digits would show 0."""
    if difference == 0:
        return "the same"
    size = f"{abs(difference):.3f}" if abs(difference) >= 0.0005 else f"{abs(difference):.1g}"
    return f"{'higher' if difference > 0 else 'lower'} by {size}"


def conclusion(names: tuple[str, str], differences: dict, delong_p: float, right: dict, n: int) -> str:
    """Return a sentence on what a comparison of n images shows, at the 5 % level.

    A difference in AUC is shown if 0 lies outside its interval, and a difference in accuracy by McNemar's test.
    Args: names: of models a and b; differences: of `paired_bootstrap`; delong_p: of `delong`; right: of `mcnemar`.
    """
    auc, (low, high) = differences["auc"]["difference"], differences["auc"]["ci95"]
    accuracy = (right["only_a_correct"] - right["only_b_correct"]) / n
    found_auc = "undefined, because a class is absent"
    if not np.isnan(auc):
        interval = f"{round(low, 3) + 0.0:.3f} to {round(high, 3) + 0.0:.3f}"  # + 0.0 turns -0.0 into 0.0
        by_delong = f"DeLong {p_text(delong_p)}, which takes images as independent"
        found_auc = f"{_compared(auc)} (95 % interval {interval}; {by_delong})"
    found_accuracy = f"{_compared(accuracy)} (McNemar {p_text(right['p'])})"

    shown, missing = [], []
    for metric, difference, significant in (
        ("AUC", auc, low > 0 or high < 0),
        ("accuracy", accuracy, right["p"] < SIGNIFICANCE),
    ):
        if significant:
            shown.append(f"{names[0] if difference > 0 else names[1]}'s higher {metric}")
        else:
            missing.append(metric)
    verdict = f"{' and '.join(shown) or 'No difference'} can be concluded"
    if shown and missing:
        verdict += f", a difference in {missing[0]} cannot"
    if "AUC" in missing and high > low:
        found = POWER * (high - low) / 2
        verdict += f". With {n} images, four of five comparisons show a true difference in AUC of about {found:.2g}"
    return (
        f"On these {n} images, {names[0]} has an AUC that is {found_auc}, and an accuracy that is {found_accuracy}, "
        f"compared with {names[1]}. {verdict}."
    )


def compare(labels, a, b, counts, names: tuple[str, str]) -> dict:
    """Return all tests at the standard threshold, and the conclusion, as evaluate.py stores them.

    Args: as for `paired_bootstrap`; names: of models a and b.
    """
    differences, delonged = paired_bootstrap(labels, a, b, counts), delong(labels, a, b)
    right = mcnemar(labels, a >= STANDARD_THRESHOLD, b >= STANDARD_THRESHOLD)
    said = conclusion(names, differences, delonged["p"], right, len(labels))
    return {"differences": differences, "delong": delonged, "mcnemar": right, "conclusion": said}
