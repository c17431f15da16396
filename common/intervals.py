"""How far a number could be off: stratified bootstrap intervals and bands, and the spread over seeds or folds.

A test set of 156 images leaves several points of uncertainty on every metric. Resampling is stratified: no resample
lacks a class, and the intervals are for this share of malignant images. All resamples are scored at once, as case
weights [resamples, n] of the functions in `metrics`: `counts` below, which `resample_counts` gives.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import exp, lgamma, log, log1p

import numpy as np

from common import metrics
from common.metrics import STANDARD_THRESHOLD

BLOCK = 4_000_000  # weights at a time
LEVELS = (2.5, 97.5)  # percentiles of a 95 % interval
Z95 = 1.959963984540054  # 97.5 % point of the standard normal distribution


def resample_counts(labels, groups=None, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """How often each case is drawn in each stratified bootstrap resample of whole groups (Davison & Hinkley, Bootstrap
    Methods and their Application, 1997, section 3.8), so that images of one lesion do not count as independent.

    Args: groups: [n], the same value for cases that are drawn together; by default each by itself, which is the
        ordinary bootstrap. A group with a malignant case belongs to the malignant ones.
    Returns: int16 [resamples, n]; as many groups of each class are drawn as there are.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    group_of = np.argsort(np.argsort(first))[group_of]  # numbered as they appear, whatever they are called
    names = np.arange(len(first))
    malignant = np.bincount(group_of, np.asarray(labels, float), minlength=len(names)) > 0
    counts, generator = np.zeros((resamples, len(names)), np.int16), np.random.default_rng(seed)
    for members in (np.flatnonzero(malignant == c) for c in (False, True)):
        if len(members):
            share = np.full(len(members), 1 / len(members))
            counts[:, members] = generator.multinomial(len(members), share, resamples)
    return counts[:, group_of]


def blocks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Some resamples at a time, as weights: float [some, n], so that memory does not grow with the number of cases."""
    step = max(1, BLOCK // max(counts.shape[1], 1))
    for start in range(0, len(counts), step):
        yield counts[start : start + step].astype(float)


def percentile_interval(value: float, resampled: np.ndarray) -> list[float]:
    """The 95 % percentile interval (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3), [low,
    high]: nan when the value itself is. resampled: [resamples]; those that are nan, as undefined, are left out."""
    defined = resampled[~np.isnan(resampled)]
    return [np.nan, np.nan] if np.isnan(value) or not len(defined) else np.percentile(defined, LEVELS).tolist()


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Press et al., Numerical Recipes, section
    6.4). x in [0, 1]; a, b above 0."""
    if x <= 0 or x >= 1:
        return float(x > 0)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges fast for the mirrored case
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
    """The quantile of the beta distribution, by bisection; 0 for a = 0, 1 for b = 0."""
    if a <= 0 or b <= 0:
        return float(b <= 0)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle, a, b) < share else (low, middle)
    return (low + high) / 2


def clopper_pearson(successes: float, n: float) -> tuple[float, float]:
    """Exact 95 % interval (low, high) of a proportion (Clopper & Pearson, Biometrika 1934); n above 0. Both may be
    fractions, as of an effective number of cases."""
    return (
        beta_quantile(LEVELS[0] / 100, successes, n - successes + 1),
        beta_quantile(LEVELS[1] / 100, successes + 1, n - successes),
    )


def order_interval(reached: float, n: float) -> tuple[float, float]:
    """95 % interval (low, high) of the share of new cases beyond a threshold that was placed so that `reached` of n
    cases lie beyond it: whatever the distribution of the scores, the share has the distribution Beta(reached,
    n - reached + 1) (Wilks, Annals of Mathematical Statistics 1941)."""
    return tuple(beta_quantile(level / 100, reached, n - reached + 1) for level in LEVELS)  # type: ignore[return-value]


def class_groups(labels, groups) -> tuple[int, int]:
    """How many groups have (a malignant, a benign) image. labels, groups: [n]."""
    malignant, benign = (len(np.unique(groups[labels == label])) for label in (1, 0))
    return malignant, benign


def effective_number(groups) -> float:
    """The number of independent cases that cases [n] in groups are worth at least, (sum of sizes)² / (sum of sizes²)
    (Kish, Survey Sampling, 1965)."""
    sizes = np.unique(groups, return_counts=True)[1]
    return float(sizes.sum() ** 2 / np.sum(sizes**2)) if len(sizes) else 0.0


def with_intervals(measure: Callable, counts: np.ndarray) -> dict:
    """What `measure(weights=None)` gives, {name: value} in any depth, and `<name>_ci95: [low, high]` beside each value,
    from what it gives of the resamples as weights; whole numbers stay alone."""

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


def summary(labels, probabilities, counts, threshold: float = STANDARD_THRESHOLD) -> dict:
    """`metrics.summary` with `<metric>_ci95: [low, high]` beside every metric, also those of "benign"."""
    return with_intervals(partial(metrics.summary, labels, probabilities, threshold), counts)


def roc_band(labels, scores, counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pointwise 95 % band of the ROC curve, each resampled curve read off by linear interpolation: (false positive
    rates 0, 0.01, ... 1; lowest and highest true positive rate there), each [101]; nan when a class is absent."""
    grid = np.arange(101) / 100
    pairs = (metrics.roc_curve(labels, scores, weights) for weights in blocks(counts))
    return grid, *np.percentile([np.interp(grid, *curve) for pair in pairs for curve in zip(*pair)], LEVELS, axis=0)


def precision_recall_band(labels, scores, counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pointwise 95 % band of the precision-recall curve, step-wise as in average precision: precision at recall r is
    that of the highest threshold that reaches r (and at 0, that reaches any positive).
    Returns: (recalls 0, 0.01, ... 1; lowest and highest precision there), each [101]; nan without positives."""
    grid = np.arange(101) / 100
    if not np.any(labels):
        return grid, np.full(101, np.nan), np.full(101, np.nan)
    pairs = (metrics.precision_recall_curve(labels, scores, weights) for weights in blocks(counts))
    reached = np.maximum(grid, np.finfo(float).tiny)
    curves = [precision[np.searchsorted(recall, reached)] for pair in pairs for recall, precision in zip(*pair)]
    return grid, *np.percentile(curves, LEVELS, axis=0)


def mean_std(values) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof 1) over runs, nan values left out: (mean, std); mean is nan without a
    value, std with fewer than 2. values: [runs]."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    mean = values.mean() if len(values) else np.nan
    return float(mean), float(values.std(ddof=1) if len(values) > 1 else np.nan)
