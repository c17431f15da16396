"""Uncertainty of a number: stratified bootstrap intervals and bands, and the spread over seeds or folds.

A test set of 156 images leaves an uncertainty of several percentage points on every metric. Resampling is stratified:
no resample lacks a class, and the intervals hold for the share of malignant images in the data. `counts` are the case
weights of all resamples, [resamples, n], from `resample_counts`. The functions of `metrics` take `counts` as weights.
"""

from collections.abc import Callable, Iterator
from math import exp, lgamma, log, log1p

import numpy as np

from common import metrics

BLOCK = 4_000_000  # weights in memory
LEVELS = (2.5, 97.5)  # percentiles of a 95 % interval
Z95 = 1.959963984540054  # 97.5 % point of the standard normal distribution


def resample_counts(labels, groups=None, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Return how often each case is drawn in each stratified bootstrap resample: int16 [resamples, n].

    A resample draws groups, as many of each class as there are (Davison & Hinkley, Bootstrap Methods and their
    Application, 1997, section 3.8). Thus images of one lesion do not count as independent. A group with a malignant
    case counts as malignant.

    Args: groups: [n], the same value for cases that are drawn together; None: every case alone (ordinary bootstrap).
    """
    groups = np.arange(len(labels)) if groups is None else groups
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    group_of = np.argsort(np.argsort(first))[group_of]  # in order of appearance, so that names change no draw
    names = np.arange(len(first))
    malignant = np.bincount(group_of, np.asarray(labels, float), minlength=len(names)) > 0
    counts, generator = np.zeros((resamples, len(names)), np.int16), np.random.default_rng(seed)
    for members in (np.flatnonzero(malignant == c) for c in (False, True)):
        if len(members):
            share = np.full(len(members), 1 / len(members))
            counts[:, members] = generator.multinomial(len(members), share, resamples)
    return counts[:, group_of]


def blocks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the resamples in blocks of weights, float [some, n], so that memory does not grow with the cases."""
    step = max(1, BLOCK // max(counts.shape[1], 1))
    for start in range(0, len(counts), step):
        yield counts[start : start + step].astype(float)


def percentile_interval(value: float, resampled: np.ndarray) -> list[float]:
    """Return the 95 % percentile interval [low, high]; nan if the value or all of `resampled` [resamples] are nan.

    Values that are nan do not count (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3).
    """
    defined = resampled[~np.isnan(resampled)]
    return [np.nan, np.nan] if np.isnan(value) or not len(defined) else np.percentile(defined, LEVELS).tolist()


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function at x in [0, 1], for a and b above 0.

    The method is the continued fraction (Press et al., Numerical Recipes, section 6.4).
    """
    if x <= 0 or x >= 1:
        return float(x > 0)
    if x > (a + 1) / (a + b + 2):  # the fraction of the mirrored case converges faster
        return 1 - beta_cdf(1 - x, b, a)
    c, d, fraction, tiny = 1.0, 0.0, 1.0, 1e-300
    for i in range(400):
        m = i // 2
        if i == 0:
            step = 1.0
        elif i % 2 == 0:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / max(1 + step * d, tiny, key=abs)
        c = max(1 + step / c, tiny, key=abs)
        fraction *= c * d
        if abs(1 - c * d) < 1e-13:
            break
    front = a * log(x) + b * log1p(-x) - lgamma(a) - lgamma(b) + lgamma(a + b)
    return float(exp(front) * (fraction - 1) / a)


def beta_quantile(share: float, a: float, b: float) -> float:
    """Return the quantile of Beta(a, b) at a share in [0, 1], by bisection; 1 for b = 0, otherwise 0 for a = 0."""
    if a <= 0 or b <= 0:
        return float(b <= 0)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle, a, b) < share else (low, middle)
    return (low + high) / 2


def clopper_pearson(successes: float, n: float) -> tuple[float, float]:
    """Return the exact 95 % interval (low, high) of a proportion (Clopper & Pearson, Biometrika 1934).

    Args: successes: 0 to n; n: above 0. Both may be fractions, for example of an effective number of cases.
    """
    return (
        beta_quantile(LEVELS[0] / 100, successes, n - successes + 1),
        beta_quantile(LEVELS[1] / 100, successes + 1, n - successes),
    )


def order_interval(reached: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of the share of new cases beyond a chosen threshold.

    The threshold was chosen so that `reached` of n cases lie beyond the threshold. For any distribution of the scores,
    the share is then distributed as Beta(reached, n - reached + 1) (Wilks, Annals of Mathematical Statistics 1941).
    """
    return tuple(beta_quantile(level / 100, reached, n - reached + 1) for level in LEVELS)  # type: ignore[return-value]


def class_groups(labels, groups) -> tuple[int, int]:
    """Return how many groups have (a malignant image, a benign or normal image). labels, groups: [n]."""
    malignant, benign = (len(np.unique(groups[labels == label])) for label in (1, 0))
    return malignant, benign


def effective_number(groups) -> float:
    """Return how many independent cases the cases in groups are worth at least; 0 without a case.

    The formula is (sum of group sizes)² / (sum of group sizes²) (Kish, Survey Sampling, 1965). groups: [n].
    """
    sizes = np.unique(groups, return_counts=True)[1]
    return float(sizes.sum() ** 2 / np.sum(sizes**2)) if len(sizes) else 0.0


def with_intervals(measure: Callable, counts: np.ndarray) -> dict:
    """Return the values of a measure, each with its 95 % bootstrap interval `<name>_ci95: [low, high]`.

    `measure(weights)` returns {name: value} at any depth; weights [some, n] give arrays [some]. An int has no interval.
    """

    def beside(values: dict, resampled: list[dict]) -> dict:
        result: dict = {}
        for name, value in values.items():
            parts = [block[name] for block in resampled]
            if isinstance(value, dict):
                result[name] = beside(value, parts)
            elif isinstance(value, int):
                result[name] = value
            else:
                result |= {name: float(value), f"{name}_ci95": percentile_interval(value, np.hstack(parts))}
        return result

    return beside(measure(weights=None), [measure(weights=weights) for weights in blocks(counts)])


def exact_at_the_edge(scores: dict, labels, flagged, groups) -> dict:
    """Return scores of `metrics.summaries` with an exact interval of each rate that is 0 or 1.

    All resamples of such a rate are equal, so its bootstrap interval would be a point. Cases of one group count once.

    Args: scores: with bootstrap intervals; flagged: bool [n]; groups: [n].
    """
    positive = labels == 1
    cases = {"accuracy": np.ones(len(labels), bool), "recall": positive, "specificity": ~positive, "precision": flagged}
    exact = dict(scores)
    for name, of in cases.items():
        if scores.get(name) in (0, 1):
            n = len(np.unique(groups[of]))
            exact[f"{name}_ci95"] = list(clopper_pearson(scores[name] * n, n))
    if "benign" in scores:
        exact["benign"] = exact_at_the_edge(scores["benign"], 1 - labels, ~flagged, groups)
    return exact


def roc_band(labels, scores, counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pointwise 95 % band of the ROC curve, by linear interpolation of each resampled curve.

    Returns: (false positive rates 0, 0.01, ... 1; low and high true positive rates), each [101]; nan without a class.
    """
    grid = np.arange(101) / 100
    pairs = (metrics.roc_curve(labels, scores, weights) for weights in blocks(counts))
    return grid, *np.percentile([np.interp(grid, *curve) for pair in pairs for curve in zip(*pair)], LEVELS, axis=0)


def precision_recall_band(labels, scores, counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pointwise 95 % band of the precision-recall curve, step-wise as in average precision.

    The precision at recall r is the precision at the highest threshold with a recall of at least r, and above 0.
    Returns: (recalls 0, 0.01, ... 1; lowest and highest precisions), each [101]; nan without positives.
    """
    grid = np.arange(101) / 100
    if not np.any(labels):
        return grid, np.full(101, np.nan), np.full(101, np.nan)
    pairs = (metrics.precision_recall_curve(labels, scores, weights) for weights in blocks(counts))
    reached = np.maximum(grid, np.finfo(float).tiny)
    curves = [precision[np.searchsorted(recall, reached)] for pair in pairs for recall, precision in zip(*pair)]
    return grid, *np.percentile(curves, LEVELS, axis=0)


def mean_std(values) -> tuple[float, float]:
    """Return (mean, sample standard deviation with ddof 1) of values [runs]. Values that are nan do not count.

    The mean is nan without a value. The standard deviation is nan with fewer than 2 values.
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    mean = values.mean() if len(values) else np.nan
    return float(mean), float(values.std(ddof=1) if len(values) > 1 else np.nan)
