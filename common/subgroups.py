"""For whom does a model work: the values of a column side by side, and a test of whether their AUCs differ.

A subgroup is the images of one value of a column, such as a device: bool [n]. `labels`, [n], are 1 for malignant;
`groups`, [n], are the same for images that belong together (one patient, or near-duplicates), which count once.
"""

from math import erfc, exp, isinf, lgamma, log, nan, sqrt

import numpy as np

from common import intervals, metrics
from common.comparison import SIGNIFICANCE, p_text
from common.intervals import class_groups
from common.scoring import ALL, Scored

ENOUGH = 10  # groups of each class; with fewer, a subgroup is not compared
UNKNOWN = "unknown"  # the value of images that have none; not compared
MEASURES = ("auc", "recall", "specificity", "calibration_in_the_large")  # that a forest plot shows


def rows(results: list[dict], scored: Scored, column: str) -> list[dict]:
    """What a forest plot shows: all images first, then each value of a column, at the operating point, with "value",
    "n", "malignant", "too_few" and the `MEASURES` with intervals. results: of `scoring.evaluate`, with "by"."""
    alike = {name: results[0][name] for name in ("on", "hospital", "unit")} | {"threshold_name": "operating point"}
    found = []
    for entry in results:
        by = entry.get("by", {})
        if not alike.items() <= entry.items() or not (entry["subset"] == ALL or column in by):
            continue
        of = scored.subsets[entry["subset"]] if column in by else np.ones(len(scored.labels), bool)
        labels, groups = scored.labels[of], scored.groups[of]
        about = {"value": by.get(column, "all images"), "n": len(labels), "malignant": int(labels.sum())}
        about |= {"threshold": entry["threshold"], "too_few": min(class_groups(labels, groups)) < ENOUGH}
        shown = {key: entry[key] for name in MEASURES for key in (name, f"{name}_ci95")}
        found.append(about | shown | _exact_at_the_edge(entry, labels, groups))
    return found


def _exact_at_the_edge(entry: dict, labels, groups) -> dict:
    """The exact interval of a rate that is 0 or 1: no resample differs from it, so that its bootstrap interval would
    be a point. Images of one group count once."""
    found = {}
    for name, label in (("recall", 1), ("specificity", 0)):
        n = len(np.unique(groups[labels == label]))
        if entry[name] in (0, 1):
            found[f"{name}_ci95"] = list(intervals.clopper_pearson(entry[name] * n, n))
    return found


def of_values(results: list[dict], scored: Scored, column: str) -> dict[str, np.ndarray]:
    """{value: bool [n]}: the subgroups of a column. results: of `scoring.evaluate`, with "by"."""
    entries = (entry for entry in results if column in entry.get("by", {}))
    return {entry["by"][column]: scored.subsets[entry["subset"]] for entry in entries}


def chi_square_tail(x: float, degrees: int) -> float:
    """P(X >= x) of a chi-square variable: the regularised upper gamma function Q(degrees / 2, x / 2), by its recurrence
    Q(a + 1, y) = Q(a, y) + y^a e^-y / Gamma(a + 1) (Abramowitz & Stegun, 6.5.21). x: 0 or above; degrees: 1 or above.
    """
    if x <= 0 or isinf(x):
        return float(x <= 0)
    y, a = x / 2, 0.5 if degrees % 2 else 1.0
    tail = erfc(sqrt(y)) if degrees % 2 else exp(-y)
    while a < degrees / 2:
        tail += exp(a * log(y) - y - lgamma(a + 1))
        a += 1
    return min(tail, 1.0)


def auc_variance(area, malignant, benign):
    """Variance of an AUC by the sizes of the classes, all broadcast (Hanley & McNeil, Radiology 1982)."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (malignant - 1) * (one - area**2) + (benign - 1) * (two - area**2)
    return spread / (malignant * benign)


def heterogeneity(areas, variances, sizes) -> tuple[float, float]:
    """(chi-square statistic, p) of the hypothesis that independent subgroups have one AUC: the weighted squares of
    their distances from the mean (Cochran, Biometrics 1954).

    The bootstrap variance of a small subgroup is useless where its AUC is near 1: there it is near 0, and the test
    would find differences that are not there. So the subgroups share what the bootstrap tells: all get the variance of
    Hanley & McNeil at their common AUC, times one factor that fits it to the bootstrap variances.

    Args: areas, variances: [k], the AUC of each subgroup and its bootstrap variance; sizes: [k, 2], its groups with a
        malignant and with a benign image.
    """
    areas, variances, sizes = (np.asarray(values, float) for values in (areas, variances, sizes))
    if np.ptp(areas) == 0:
        return 0.0, 1.0
    weights = sizes.prod(1) / sizes.sum(1)  # about what a subgroup knows
    common = np.clip(np.average(areas, weights=weights), 0.5, 1 - 1 / (2 * weights.sum()))
    expected = auc_variance(common, *sizes.T)
    shared = expected * (weights**2 @ variances) / (weights**2 @ expected)
    with np.errstate(divide="ignore"):  # every subgroup is separated, in different directions
        statistic = float(((areas - np.average(areas, weights=1 / expected)) ** 2 / shared).sum())
    return statistic, chi_square_tail(statistic, len(areas) - 1)


def _area(labels, probabilities, groups, resamples: int) -> tuple[float, float]:
    """The AUC of a subgroup and its bootstrap variance."""
    counts = intervals.resample_counts(labels, groups, resamples)
    drawn = np.hstack([metrics.auc(labels, probabilities, weights) for weights in intervals.blocks(counts)])
    return float(metrics.auc(labels, probabilities)), float(np.nanvar(drawn))


def compare(labels, probabilities, groups, values: dict[str, np.ndarray], column: str, resamples: int = 2000) -> dict:
    """Whether the AUC differs between the values of a column that have `ENOUGH` groups of each class.

    Args: values: {value: bool [n]}, the subgroups of the column.
    Returns: {"column", "compared": the values, "statistic", "degrees_of_freedom", "p", "conclusion": a sentence};
        statistic and p are nan where the values cannot be compared.
    """
    known = {value: of for value, of in values.items() if value != UNKNOWN}
    sizes = {value: class_groups(labels[of], groups[of]) for value, of in known.items()}
    compared = {value: of for value, of in known.items() if min(sizes[value]) >= ENOUGH}
    found = {"column": column, "compared": list(compared), "statistic": nan, "p": nan}
    found["degrees_of_freedom"] = max(len(compared) - 1, 0)
    between = f"the {len(known)}" if len(compared) == len(known) else f"{len(compared)} of the {len(known)}"
    between = f"between {between} values of {column}"
    if len(compared) < 2:
        why = f"fewer than two values have {ENOUGH} images of each class (images of one patient count once)"
        return found | {"conclusion": f"The values of {column} cannot be compared, because {why}."}
    if crossing := _crossing(groups, compared):
        why = f"patients or near-duplicates have images of more than one value ({crossing} in all)"
        return found | {"conclusion": f"AUC cannot be compared {between}, because {why}."}
    tried = [_area(labels[of], probabilities[of], groups[of], resamples) for of in compared.values()]
    areas, variances = zip(*tried)
    statistic, p = heterogeneity(areas, variances, [sizes[value] for value in compared])
    said = "AUC differs" if p < SIGNIFICANCE else "No difference in AUC can be shown"
    return found | {"statistic": statistic, "p": p, "conclusion": f"{said} {between} ({p_text(p)})."}


def _crossing(groups, values: dict[str, np.ndarray]) -> int:
    """How many groups have images in more than one subgroup."""
    _, times = np.unique(np.concatenate([np.unique(groups[of]) for of in values.values()]), return_counts=True)
    return int((times > 1).sum())
