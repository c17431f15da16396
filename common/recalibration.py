"""Calibrate a model to images of a hospital with known outcome, and measure the calibration there."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from common import calibration, evaluation, intervals
from common.calibration import calibrated, cross_fit, logit, sigmoid
from common.errors import UserError
from common.folds import assign_folds
from common.images import Images
from common.scoring import Scored
from common.thresholds import Rule

LEAST = 10  # groups of each class; with fewer, the interval of the sensitivity is wider than 0.3
FOLDS = 5


@dataclass(frozen=True)
class Unit:
    """The cases that a threshold is chosen on: images, or patients with the highest logit of their images.

    labels, logits: [n]; groups: [n], the same value for cases that belong together.
    """

    labels: np.ndarray
    logits: np.ndarray
    groups: np.ndarray


def units(images: Images, logits: np.ndarray, unit: str) -> Unit:
    """Return the cases of a unit, "image" or "patient". logits: [n]. Raises: UserError if a patient is unknown."""
    groups = images.groups
    if unit == "image":
        return Unit(images.labels, logits, groups)
    whole = evaluation.per_patient(Scored("calibration", images, logits, groups))
    return Unit(whole.labels, whole.probabilities, whole.groups)


def require_enough(unit: Unit, name: str, seen: str) -> None:
    """Raise a `UserError` if a class has fewer than LEAST groups.

    Args: name: of a case in the message; seen: a sentence on the images that the model has seen.
    """
    counts = intervals.class_groups(unit.labels, unit.groups)
    if min(counts) < LEAST:
        raise UserError(
            f"{counts[0]} separate malignant {name}s and {counts[1]} others are too few to calibrate on. Give at least "
            f"{LEAST} of each, or give --prevalence. {seen}"
        )


def rates(unit: Unit, probabilities: np.ndarray, threshold: float, rule: Rule | None) -> dict:
    """Return sensitivity ("recall") and specificity at a threshold, in [0, 1], with exact 95 % intervals.

    Args: probabilities: [n]; rule: the rule that chose the threshold on these cases, or None. The rate that the rule
        fixes becomes the rate to expect on new cases. Cases in groups count as `intervals.effective_number`.
    """
    found: dict = {}
    for name, label in (("recall", 1), ("specificity", 0)):
        of_class = unit.labels == label
        right = (probabilities[of_class] >= threshold) == bool(label)
        n = intervals.effective_number(unit.groups[of_class])
        reached = float(right.mean() * n)
        if rule and (rule.kind, name) in (("sensitivity", "recall"), ("specificity", "specificity")):
            found |= {name: reached / (n + 1), f"{name}_ci95": list(intervals.order_interval(reached, n))}
        else:
            found |= {name: float(right.mean()), f"{name}_ci95": list(intervals.clopper_pearson(reached, n))}
    return found


def measures(unit: Unit, probabilities: np.ndarray) -> dict:
    """Return Brier score, ECE and calibration in the large, with intervals that resample groups. probabilities: [n]."""
    counts = intervals.resample_counts(unit.labels, unit.groups)
    return intervals.with_intervals(partial(calibration.summary, unit.labels, probabilities), counts)


@dataclass(frozen=True)
class Fitted:
    """The calibration of a model file to some images.

    temperature, offset: the new log-odds are old / temperature + offset. threshold: on the new probabilities.
    before, after: {"recall", "specificity", "brier", …, with "_ci95"} of the old file, and expected on new images.
    probabilities: {"before", "after"}: of the images, [n]; "after" are held-out, by cross-validation.
    """

    temperature: float
    offset: float
    threshold: float
    before: dict
    after: dict
    probabilities: dict[str, np.ndarray]


def fit(unit: Unit, by_image: Unit, threshold: float, rule: Rule) -> Fitted:
    """Calibrate on images, and choose the threshold on images or patients.

    Args: unit: the cases that the threshold is for; by_image: the images, with the log-odds of the file; threshold: of
        the file; rule: chooses the new threshold. Raises: UserError if a class has fewer than FOLDS groups.
    """
    temperature, offset = calibration.fit(by_image.labels, by_image.logits)
    probabilities = calibrated(unit.logits, temperature, offset)
    chosen = rule.threshold(unit.labels, probabilities)
    fold = assign_folds(by_image.labels, by_image.groups, FOLDS, 0)
    held_out, _ = cross_fit(by_image.labels, by_image.logits, rule, fold)
    as_it_was = sigmoid(by_image.logits)
    before = rates(unit, sigmoid(unit.logits), threshold, None) | measures(by_image, as_it_was)
    after = rates(unit, probabilities, chosen, rule) | measures(by_image, held_out)
    return Fitted(temperature, offset, chosen, before, after, {"before": as_it_was, "after": held_out})


def prevalence_offset(share: float, trained_share: float) -> float:
    """Return the change of the log-odds if only the share of malignant images changes.

    Args: share: the new share; trained_share: the share in training; both in (0, 1).
    Source: Saerens, Latinne & Decaestecker, Neural Computation 2002.
    """
    return float(logit(share) - logit(trained_share))


def halving(unit: Unit, name: str, fitted: Fitted) -> str:
    """Return a sentence: how wide the interval of the sensitivity is, and how many cases would halve the width."""
    low, high = fitted.after["recall_ci95"]
    n = int(unit.labels.sum())
    return (
        f"The interval of the sensitivity is {high - low:.2f} wide, with {n} malignant {name}s. About {4 * n} would "
        "halve the interval."
    )
