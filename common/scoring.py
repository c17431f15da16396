"""Scoring predictions: whole and clean splits, at the standard threshold and at the operating point."""

from dataclasses import dataclass

import numpy as np

from common import calibration, intervals, twins
from common.data import Split
from common.metrics import STANDARD_THRESHOLD


@dataclass(frozen=True)
class Scored:
    """Predictions of a split: labels [n], 1 for malignant; calibrated probabilities [n]; and, where it matters, `clean`
    [n]: the image has no near-duplicate in another split."""

    labels: np.ndarray
    probabilities: np.ndarray
    clean: np.ndarray | None = None

    def parts(self, name: str) -> dict[str, "Scored"]:
        """{name: all of it, "clean_<name>": the clean images}, the latter where there are such."""
        if self.clean is None or not self.clean.any():
            return {name: self}
        return {name: self, f"clean_{name}": Scored(self.labels[self.clean], self.probabilities[self.clean])}


def clean_mask(split: Split, *others: Split) -> np.ndarray:
    """Which images of a split share no group of near-duplicates with an image of another split: bool [n]."""
    groups = twins.find_groups(np.concatenate([split.images, *(other.images for other in others)]))
    return ~np.isin(groups[: len(split)], groups[len(split) :])


def calibration_summary(labels, probabilities, counts: np.ndarray) -> dict:
    """Brier score and expected calibration error, each with its interval over the resamples of
    `intervals.resample_counts`."""
    drawn = intervals.drawn_cases(counts)
    summary: dict = {}
    for name, measure in (("brier", calibration.brier), ("ece", calibration.expected_calibration_error)):
        value = float(measure(labels, probabilities))
        resampled = measure(labels[drawn], probabilities[drawn])
        summary |= {name: value, f"{name}_ci95": intervals.percentile_interval(value, resampled)}
    return summary


def evaluate_splits(
    scored: dict[str, Scored], chosen: calibration.Calibration, resamples: int = 2000, seed: int = 0
) -> dict:
    """Every metric of the named predictions, with intervals: the "splits", "operating_point" and "calibration" of
    metrics.json.

    "splits" uses the standard threshold, "operating_point" the chosen one, "calibration" none.
    """
    parts = {name: part for split, whole in scored.items() for name, part in whole.parts(split).items()}
    drawn = {name: intervals.resample_counts(part.labels, resamples, seed) for name, part in parts.items()}
    thresholds = STANDARD_THRESHOLD, chosen.threshold
    summaries = {
        name: intervals.summaries(part.labels, part.probabilities, thresholds, drawn[name])
        for name, part in parts.items()
    }
    standard, at_chosen = ({name: pair[i] for name, pair in summaries.items()} for i in (0, 1))
    calibrated = {
        name: calibration_summary(part.labels, part.probabilities, drawn[name]) for name, part in parts.items()
    }
    return {
        "splits": standard,
        "operating_point": {"threshold": chosen.threshold, "rule": chosen.threshold_rule, "splits": at_chosen},
        "calibration": {"temperature": chosen.temperature, "fitted_on": chosen.fitted_on} | calibrated,
    }
