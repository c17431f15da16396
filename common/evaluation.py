"""Metrics of the splits of a run, whole and clean, at the standard and at the chosen threshold."""

import numpy as np

from common import intervals, twins
from common.data import Split

STANDARD_THRESHOLD = 0.5


def clean_mask(test: Split, *others: Split) -> np.ndarray:
    """Which test images share no group of near-duplicates with an image of another split: bool [n]."""
    groups = twins.find_groups(np.concatenate([test.images, *(split.images for split in others)]))
    return ~np.isin(groups[: len(test)], groups[len(test) :])


def summaries(labels, probabilities, clean=None, name="test", threshold=STANDARD_THRESHOLD, resamples=2000, seed=0) -> dict:
    """Metrics with intervals of a split, and of its clean part where `clean` (bool [n]) is given.

    Returns: {name: summary, "clean_<name>": summary}, each as `intervals.summary` and with its "threshold".
    """
    parts = {name: np.ones(len(labels), bool)} | ({} if clean is None else {f"clean_{name}": clean})
    return {
        part: {"threshold": threshold}
        | intervals.summary(labels[chosen], probabilities[chosen], threshold, resamples, seed)
        for part, chosen in parts.items()
    }
