"""Scoring predictions: whole and clean splits, at the standard threshold and at the operating point."""

from dataclasses import dataclass, replace

import numpy as np

from common import calibration, intervals, twins
from common.data import Source, Split, find_groups, load
from common.errors import UserError
from common.metrics import STANDARD_THRESHOLD


@dataclass(frozen=True)
class Scored:
    """Predictions of a split: calibrated probabilities [n]; groups [n], the same for images that are drawn together in
    an interval; and, where it matters, `clean` [n]: the image shares no group with one that may have been trained on;
    and `typical` [n], where the model tells: it is not marked as unlike the training images."""

    split: Split
    probabilities: np.ndarray
    groups: np.ndarray
    clean: np.ndarray | None = None
    typical: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """[n], 1 for malignant."""
        return self.split.labels

    def resample_counts(self, resamples: int, seed: int) -> np.ndarray:
        """`intervals.resample_counts` of whole groups: float [resamples, n]."""
        return intervals.resample_counts(self.labels, self.groups, resamples, seed)

    def parts(self, name: str) -> dict[str, "Scored"]:
        """{name: all of it, "clean_<name>": the clean images, "typical_<name>" and "unlike_<name>": those that are not
        marked and those that are, as unlike the training images, "<name>_patients": patients}, all but the first where
        there are such."""
        found = {name: self}
        if self.clean is not None and self.clean.any():
            found[f"clean_{name}"] = self.only(self.clean)
        if self.typical is not None and not self.typical.all():
            found |= {f"typical_{name}": self.only(self.typical)} if self.typical.any() else {}
            found[f"unlike_{name}"] = self.only(~self.typical)
        if len(set(self.split.patients)) < len(self.split) and all(self.split.patients):
            found[f"{name}_patients"] = self.per_patient()
        return found

    def only(self, chosen: np.ndarray) -> "Scored":
        """Some of the images. chosen: bool [n]."""
        return Scored(self.split[chosen], self.probabilities[chosen], self.groups[chosen])

    def per_patient(self) -> "Scored":
        """Each patient once: by the image of the highest probability, malignant if any image is."""
        _, patient_of = np.unique(self.split.patients, return_inverse=True)
        malignant = (np.bincount(patient_of, self.labels) > 0).astype(np.uint8)
        by_patient = np.lexsort((-self.probabilities, patient_of))  # and the highest probability first
        first = by_patient[np.searchsorted(patient_of[by_patient], np.arange(len(malignant)))]
        return Scored(replace(self.split[first], labels=malignant), self.probabilities[first], self.groups[first])


def groups_beside(split: Split, *others: Split) -> tuple[np.ndarray, np.ndarray]:
    """(the group of each image of a split, whether it holds no image of another split), both [n]."""
    groups = find_groups(split, *others)
    own, beside = groups[: len(split)], groups[len(split) :]
    return own, ~np.isin(own, beside)


def score(split: Split, probabilities: np.ndarray, *others: Split, apart: bool = True) -> Scored:
    """Predictions of a split beside others that may have been trained on. apart: set apart what shares no group with
    these."""
    groups, clean = groups_beside(split, *others)
    return Scored(split, probabilities, groups, clean if apart and others else None)


def count_seen(split: Split, trained: Split) -> dict[str, int]:
    """How many of the images a model was trained on, how many more are near-duplicates of such, and how many it has not
    seen: judged by the images themselves at 28x28 pixels."""
    highest = twins.highest_correlation(split.images, trained.images)
    same, alike = int(np.sum(highest > twins.SAME)), int(np.sum(highest > twins.THRESHOLD))
    return {"trained_on": same, "near_duplicates": alike - same, "unseen": len(split) - alike}


def require_unseen(source: Source, way_out: str, *names: str) -> None:
    """Raises: UserError, before any training, when images of the named splits are among those of other hospitals."""
    if not source.also:
        return
    (also,) = load(source, "also")
    for name, split in zip(names, load(source, *names)):
        if same := count_seen(split, also)["trained_on"]:
            raise UserError(f"--also: holds {same} of the {len(split)} images of {name}; {way_out}")


def calibration_summary(labels, probabilities, counts: np.ndarray) -> dict:
    """Brier score and expected calibration error, each with its interval over the resamples of
    `intervals.resample_counts`."""
    summary: dict = {}
    for name, measure in (("brier", calibration.brier), ("ece", calibration.expected_calibration_error)):
        value = float(measure(labels, probabilities))
        resampled = np.hstack([measure(labels, probabilities, weights) for weights in intervals.blocks(counts)])
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
    thresholds = STANDARD_THRESHOLD, chosen.threshold
    standard, at_chosen, calibrated = {}, {}, {}
    for name, part in parts.items():
        counts = part.resample_counts(resamples, seed)
        standard[name], at_chosen[name] = intervals.summaries(part.labels, part.probabilities, thresholds, counts)
        calibrated[name] = calibration_summary(part.labels, part.probabilities, counts)
    return {
        "splits": standard,
        "operating_point": {"threshold": chosen.threshold, "rule": chosen.threshold_rule, "splits": at_chosen},
        "calibration": {"temperature": chosen.temperature, "fitted_on": chosen.fitted_on} | calibrated,
    }
