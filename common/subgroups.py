"""Compare a model between subgroups of images: metrics for each value of a column, and a test of equal AUC.

A subgroup is the images with one value of a column, such as one device: bool [n]. `labels`: [n], 1 for malignant.
`groups`: [n], the same value for images of one patient and for near-duplicates. Images of one group count once.
"""

from math import nan

import numpy as np

from common import intervals, metrics
from common.comparison import SIGNIFICANCE, p_text
from common.intervals import class_groups
from common.scoring import ALL, Scored

ENOUGH = 10  # groups of each class; a subgroup with fewer is not compared
UNKNOWN = "unknown"  # the value of images without a value; not compared
MEASURES = ("auc", "recall", "specificity", "calibration_in_the_large")  # metrics of a forest plot


def rows(results: list[dict], scored: Scored, column: str) -> list[dict]:
    """Return the rows of a forest plot at the operating point: all images first, then each value of a column.

    Args: results: from `scoring.score_parts`, with "by".
    Returns: rows of "value", "n", "malignant", "unit", "threshold", "too_few" (see ENOUGH) and the `MEASURES` with
        intervals.
    """
    first = {name: results[0].get(name) for name in ("on", "hospital", "unit", "boxes")}
    found = []
    for entry in results:
        by = entry.get("by", {})
        alike = all(entry.get(name) == value for name, value in first.items())
        if not alike or entry["threshold_name"] != "operating point" or not (entry["subset"] == ALL or column in by):
            continue
        of = scored.subsets[entry["subset"]] if column in by else np.ones(len(scored.labels), bool)
        labels, groups = scored.labels[of], scored.groups[of]
        about = {"value": by.get(column, "all images"), "n": len(labels), "malignant": int(labels.sum())}
        about |= {"unit": entry["unit"], "threshold": entry["threshold"]}
        about |= {"too_few": min(class_groups(labels, groups)) < ENOUGH}
        shown = {key: entry[key] for name in MEASURES for key in (name, f"{name}_ci95")}
        found.append(about | shown)
    return found


def of_values(results: list[dict], scored: Scored, column: str) -> dict[str, np.ndarray]:
    """Return the subgroups of a column, {value: bool [n]}. results: from `scoring.score_parts`, with "by"."""
    entries = (entry for entry in results if column in entry.get("by", {}))
    return {entry["by"][column]: scored.subsets[entry["subset"]] for entry in entries}


def auc_variance(area, malignant, benign):
    """Return the variance of an AUC from the class sizes (Hanley & McNeil, Radiology 1982). Arguments broadcast."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (malignant - 1) * (one - area**2) + (benign - 1) * (two - area**2)
    return spread / (malignant * benign)


def heterogeneity(areas, variances, sizes) -> tuple[float, float]:
    """Test whether independent subgroups have the same AUC: return (chi-square statistic, p).

    The statistic sums the weighted squares of the distances from the mean AUC (Cochran, Biometrics 1954).

    The bootstrap variance of a small subgroup is near 0 if its AUC is near 1. The test would then find false
    differences. Therefore every subgroup gets the variance of Hanley & McNeil at the common AUC, times one factor that
    fits the variances to the bootstrap variances.

    Args: areas: [k], the AUC of each subgroup; variances: [k], their bootstrap variances; sizes: [k, 2], the number of
        groups with a malignant image, and with a benign or normal image.
    """
    from scipy.stats import chi2  # calibrate.py imports this module, and must not need scipy

    areas, variances, sizes = (np.asarray(values, float) for values in (areas, variances, sizes))
    if np.ptp(areas) == 0:
        return 0.0, 1.0
    weights = sizes.prod(1) / sizes.sum(1)  # roughly the information in a subgroup
    common = np.clip(np.average(areas, weights=weights), 0.5, 1 - 1 / (2 * weights.sum()))
    expected = auc_variance(common, *sizes.T)
    shared = expected * (weights**2 @ variances) / (weights**2 @ expected)
    with np.errstate(divide="ignore"):  # the shared variance is 0 if every AUC is 0 or 1
        statistic = float(((areas - np.average(areas, weights=1 / expected)) ** 2 / shared).sum())
    return statistic, float(chi2.sf(statistic, len(areas) - 1))


def _area(labels, probabilities, groups, resamples: int) -> tuple[float, float]:
    """Return the AUC of a subgroup and the bootstrap variance of the AUC."""
    counts = intervals.resample_counts(labels, groups, resamples)
    drawn = np.hstack([metrics.auc(labels, probabilities, weights) for weights in intervals.blocks(counts)])
    return float(metrics.auc(labels, probabilities)), float(np.nanvar(drawn))


def compare(labels, probabilities, groups, values: dict[str, np.ndarray], column: str, resamples: int = 2000) -> dict:
    """Test whether the AUC differs between the values of a column that have `ENOUGH` groups of each class.

    Args: labels, probabilities, groups: [n]; values: {value: bool [n]}, the subgroups of the column.
    Returns: {"column", "compared": the values, "statistic", "degrees_of_freedom", "p", "conclusion": a sentence};
        statistic and p are nan if the values cannot be compared.
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
    """Return the number of groups with images in more than one subgroup."""
    _, times = np.unique(np.concatenate([np.unique(groups[of]) for of in values.values()]), return_counts=True)
    return int((times > 1).sum())
