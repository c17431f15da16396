"""What a hospital's own images, with known outcome, make of a model's probabilities, and what that is worth there."""

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

LEAST = 10  # separate malignant images, and others: with fewer, an interval of the sensitivity is wider than 0.3
FOLDS = 5
HOW = "computed for new images of this kind"


@dataclass(frozen=True)
class Unit:
    """The cases that a threshold is chosen on: images, or patients with the highest logit of their images.
    labels, logits, groups: [n]; groups are the same for cases that belong together."""

    labels: np.ndarray
    logits: np.ndarray
    groups: np.ndarray


def units(images: Images, logits: np.ndarray, unit: str) -> Unit:
    """Images, or patients. Raises: UserError where a patient is unknown."""
    groups = images.groups
    if unit == "image":
        return Unit(images.labels, logits, groups)
    whole = evaluation.per_patient(Scored("calibration", images, logits, groups))
    return Unit(whole.labels, whole.probabilities, whole.groups)


def require_enough(unit: Unit, name: str) -> None:
    """Raises: UserError with too few separate cases of a class."""
    counts = intervals.class_groups(unit.labels, unit.groups)
    if min(counts) < LEAST:
        raise UserError(
            f"{counts[0]} separate malignant {name}s and {counts[1]} others are too few to calibrate on. Give at least "
            f"{LEAST} of each, or give --prevalence."
        )


def rates(unit: Unit, probabilities: np.ndarray, threshold: float, rule: Rule | None) -> dict:
    """Sensitivity ("recall") and specificity at a threshold, with exact intervals. Where the rule placed the threshold
    on these very cases, the rate that it fixed is that to be expected of new cases.
    Cases in groups count as `intervals.effective_number`."""
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
    """Brier score, ECE and calibration in the large, with intervals that resample groups."""
    counts = intervals.resample_counts(unit.labels, unit.groups)
    return intervals.with_intervals(partial(calibration.summary, unit.labels, probabilities), counts)


@dataclass(frozen=True)
class Fitted:
    """A calibration of a file to some images.

    temperature, offset: that the file's log-odds are changed by; threshold: on the new probabilities; before, after:
    {"recall", "specificity", "brier", …, with "_ci95"} of the file as it was, and as it will be on new images;
    probabilities: {"before", "after"}: of the cases, [n], after by cross-validation.
    """

    temperature: float
    offset: float
    threshold: float
    before: dict
    after: dict
    probabilities: dict[str, np.ndarray]


def fit(unit: Unit, by_image: Unit, threshold: float, rule: Rule) -> Fitted:
    """Calibrate on images, and choose the threshold on images or patients.

    Args: unit: what the threshold is for; by_image: the images, with the file's log-odds; threshold: of the file.
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
    """What the log-odds gain when the share of malignant images changes and nothing else does (Saerens, Latinne &
    Decaestecker, Neural Computation 2002)."""
    return float(logit(share) - logit(trained_share))


def halving(unit: Unit, name: str, fitted: Fitted) -> str:
    """How wide the interval of the sensitivity is, and what would halve it, in a sentence."""
    low, high = fitted.after["recall_ci95"]
    n = int(unit.labels.sum())
    return (
        f"The interval of the sensitivity is {high - low:.2f} wide, with {n} malignant {name}s. About {4 * n} would "
        "halve the interval."
    )
