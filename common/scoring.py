"""Scoring predictions: whole and clean splits, at the standard threshold and at the operating point."""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from common import calibration, duplicates, intervals, metrics
from common.data import Source, Split, find_groups, load
from common.errors import UserError


@dataclass(frozen=True)
class Scored:
    """Predictions of a split: calibrated probabilities [n]; groups [n], the same for images that are drawn together in
    an interval; subsets, to be scored by themselves too: {name: bool [n]}."""

    split: Split
    probabilities: np.ndarray
    groups: np.ndarray
    subsets: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        """[n], 1 for malignant."""
        return self.split.labels

    def resample_counts(self, resamples: int, seed: int) -> np.ndarray:
        """`intervals.resample_counts` of whole groups: [resamples, n]."""
        return intervals.resample_counts(self.labels, self.groups, resamples, seed)

    def parts(self, name: str) -> dict[str, "Scored"]:
        """{name: all of it, "<subset>_<name>": a subset, "<name>_patients": patients}, where there are such."""
        found = {name: self}
        for subset, chosen in self.subsets.items():
            if chosen.any():
                found[f"{subset}_{name}"] = self.only(chosen)
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
    """Predictions of a split beside others that may have been trained on. apart: what shares no group with these is the
    subset "clean"."""
    groups, clean = groups_beside(split, *others)
    return Scored(split, probabilities, groups, {"clean": clean} if apart and others else {})


def none_clean(scored: dict[str, Scored]) -> list[str]:
    """A sentence for each of the named predictions whose subset "clean" is empty, and so in no table."""
    return [
        f"There is no clean_{name}: each image of {name} shares a group with one of training or validation."
        for name, whole in scored.items()
        if "clean" in whole.subsets and not whole.subsets["clean"].any()
    ]


def count_seen(split: Split, trained: Split) -> dict[str, int]:
    """How many of the images a model was trained on, how many more are near-duplicates of such, and how many it has not
    seen: judged by the images themselves at 28x28 pixels."""
    highest = duplicates.highest_correlation(split.images, trained.images)
    same, alike = int(np.sum(highest > duplicates.SAME)), int(np.sum(highest > duplicates.THRESHOLD))
    return {"trained_on": same, "near_duplicates": alike - same, "unseen": len(split) - alike}


def require_unseen(source: Source, way_out: str, *names: str) -> None:
    """Raises: UserError, before any training, when images of the named splits are among those of other hospitals."""
    if not source.also:
        return
    (also,) = load(source, "also")
    for name, split in zip(names, load(source, *names)):
        if same := count_seen(split, also)["trained_on"]:
            raise UserError(f"--also: holds {same} of the {len(split)} images of {name}; {way_out}")


def evaluate_splits(
    scored: dict[str, Scored], chosen: calibration.Calibration, resamples: int = 2000, seed: int = 0
) -> dict:
    """Every metric of the named predictions, and of their parts, with intervals: the "splits", at the standard
    threshold, "operating_point" and "calibration" of metrics.json."""
    parts: dict[str, Scored] = {}
    for name, whole in scored.items():
        parts |= whole.parts(name)
    standard, at_chosen, calibrated = {}, {}, {}
    thresholds = metrics.STANDARD_THRESHOLD, chosen.threshold
    for name, part in parts.items():
        shown, counts = (part.labels, part.probabilities), part.resample_counts(resamples, seed)
        at = intervals.with_intervals(partial(metrics.summaries, *shown, thresholds), counts)
        standard[name], at_chosen[name] = (at[threshold] for threshold in thresholds)
        calibrated[name] = intervals.with_intervals(partial(calibration.summary, *shown), counts)
    return {
        "splits": standard,
        "operating_point": {"threshold": chosen.threshold, "rule": chosen.threshold_rule, "splits": at_chosen},
        "calibration": {"temperature": chosen.temperature, "fitted_on": chosen.fitted_on} | calibrated,
    }
