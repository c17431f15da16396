"""Net benefit of a model at a threshold probability: the numbers of a decision curve.

A reader who flags images from a probability of t accepts (1 - t) / t images flagged by mistake for each malignant image
found. Net benefit counts both in one unit, malignant images found per image: TP / n - FP / n * t / (1 - t) (Vickers &
Elkin, Medical Decision Making 2006). A model is worth using at t if its net benefit is above 0 and above "treat all".
"Treat all" is the net benefit of flagging every image. Flagging no image ("treat none") has net benefit 0.

Args of most functions: labels: [n], 1 for malignant. probabilities: [n]. weights: [..., n], how often each case counts.
"""

import numpy as np

from common import intervals

THRESHOLDS = np.arange(100) / 100  # of a decision curve


def net_benefit(labels, probabilities, thresholds, weights=None) -> np.ndarray:
    """Return the net benefit of flagging cases from each threshold on, [..., t]; nan without a case.

    Args: thresholds: [t], in [0, 1). Raises: ValueError for other thresholds.
    """
    labels, thresholds = np.asarray(labels, bool), np.asarray(thresholds, float)
    if not ((thresholds >= 0) & (thresholds < 1)).all():
        raise ValueError(f"threshold probabilities must be in [0, 1): {thresholds}")
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)
    flagged = np.asarray(probabilities, float)[:, None] >= thresholds
    worth = np.where(labels[:, None], 1, -thresholds / (1 - thresholds))  # net benefit of flagging a case
    with np.errstate(invalid="ignore"):  # 0 / 0 without a case is nan
        return weights @ (flagged * worth) / weights.sum(-1)[..., None]


def treat_all(labels, thresholds) -> np.ndarray:
    """Return the net benefit of flagging every case, [..., t]. Arguments and errors: as for `net_benefit`."""
    return net_benefit(labels, np.ones(len(labels)), thresholds)


def curve(labels, probabilities, counts, thresholds=THRESHOLDS) -> list[dict]:
    """Return a decision curve with its pointwise 95 % bootstrap band.

    Args: counts: [resamples, n], of `intervals.resample_counts`.
    Returns: {"threshold", "net_benefit", "net_benefit_ci95": [low, high], "treat_all"} at each threshold.
    """
    values = net_benefit(labels, probabilities, thresholds)
    resampled = np.vstack(
        [net_benefit(labels, probabilities, thresholds, weights) for weights in intervals.blocks(counts)]
    )
    columns = (thresholds, values, resampled.T, treat_all(labels, thresholds))
    return [
        {
            "threshold": float(threshold),
            "net_benefit": float(value),
            "net_benefit_ci95": intervals.percentile_interval(value, column),
            "treat_all": float(of_all),
        }
        for threshold, value, column, of_all in zip(*columns)
    ]
