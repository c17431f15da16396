"""Calibrated probabilities: Platt scaling, measures of calibration, and operating points.

A network that separates the classes is usually overconfident, and its mean probability misses the share of malignant
images. A temperature and an offset, fitted on held-out images, correct both errors: P(malignant) is
sigmoid(logit / temperature + offset). The order of the images, and thus the AUC, stays the same.

Args of most functions: labels: [n], 1 for malignant. logits, probabilities: [n]. weights: [..., n], how often each
case counts (default: once).
"""

from dataclasses import dataclass, field

import numpy as np

from common.intervals import clopper_pearson
from common.metrics import STANDARD_THRESHOLD
from common.thresholds import Rule

EPSILON = 1e-12  # probabilities stay this far from 0 and 1, so that logits stay within +-27.6
PRIOR_MEANS, PRIOR_DEVIATIONS = (1.0, 0.0), (0.5, 1.0)  # of the slope (1 / temperature) and of the offset
SLOPES = (0.05, 20.0)  # lowest and highest fitted slope
CHOSEN = ("calibration", "threshold")  # what `Calibration.chosen_on` chose, unless a file says more


def sigmoid(logits) -> np.ndarray:
    """Return 1 / (1 + exp(-logit)), without overflow for any logit."""
    logits = np.asarray(logits, float)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, small) / (1 + small)


def logit(probabilities) -> np.ndarray:
    """Return log(p / (1 - p)), the inverse of `sigmoid`. Probabilities are first clipped to [EPSILON, 1 - EPSILON]."""
    probabilities = np.clip(np.asarray(probabilities, float), EPSILON, 1 - EPSILON)
    return np.log(probabilities) - np.log1p(-probabilities)


def _mean(values: np.ndarray) -> float:
    """Return the mean of values; nan without a value."""
    return values.mean() if len(values) else np.nan


def _margins(logits, labels) -> np.ndarray:
    """Return each logit with a sign that is positive if the logit votes for the true class."""
    return np.where(np.asarray(labels, bool), 1, -1) * np.asarray(logits, float)


def calibrated(logits, temperature: float, offset: float) -> np.ndarray:
    """Return calibrated P(malignant), [n] in [0, 1], of a network's logits [n]. temperature: above 0."""
    return sigmoid(np.asarray(logits, float) / temperature + offset)


def negative_log_likelihood(labels, logits) -> float:
    """Return the mean of -log P(true class), in nats; nan without a case."""
    return float(_mean(np.logaddexp(0, -_margins(logits, labels))))


def fit(labels, logits, deviations=PRIOR_DEVIATIONS) -> tuple[float, float]:
    """Return (temperature, offset) that calibrate logits, by Platt scaling with a prior.

    The prior is 1 / temperature ~ N(1, 0.5²), offset ~ N(0, 1), so that few images change little. results/README.md
    compares fits of no, one and both parameters. Source: Platt, Advances in Large Margin Classifiers, 1999.

    The slope stays within SLOPES, so that the order of images stays.

    Args: deviations: standard deviations of the prior of slope and offset.
    """
    logits = np.asarray(logits, float)
    design = np.stack([logits, np.ones_like(logits)], 1)
    slope, offset = logistic_regression(design, labels, np.array(PRIOR_MEANS), np.array(deviations))
    return float(1 / np.clip(slope, *SLOPES)), float(offset)


def logistic_regression(design: np.ndarray, labels, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Return the parameters [d] that fit P(malignant) = sigmoid(design @ parameters), with a normal prior.

    The penalised negative log-likelihood is strictly convex. Newton's method finds the minimum; a step is halved while
    the loss rises.

    Args: design: [n, d]; labels: [n]; means, deviations: [d], mean and standard deviation of the prior.
    """
    labels, design, precision = np.asarray(labels, float), np.asarray(design, float), 1 / np.square(deviations)

    def loss(parameters) -> float:
        margins = np.where(labels > 0, 1, -1) * (design @ parameters)
        return np.logaddexp(0, -margins).sum() + (precision * (parameters - means) ** 2).sum() / 2

    found = means.astype(float)
    for _ in range(100):
        p = sigmoid(design @ found)
        gradient = design.T @ (p - labels) + precision * (found - means)
        step = np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design + np.diag(precision), gradient)
        while loss(found - step) > loss(found) and np.abs(step).max() > 1e-12:
            step = step / 2
        found = found - step
        if np.abs(step).max() < 1e-10:
            break
    return found


def brier(labels, probabilities, weights=None):
    """Return the mean squared distance of probability and label, in [0, 1], 0 best (Brier, Mon. Weather Rev. 1950)."""
    squares = (np.asarray(probabilities, float) - np.asarray(labels, float)) ** 2
    return _mean(squares) if weights is None else weights @ squares / weights.sum(-1)


def _bins(labels, probabilities, bins: int, weights=None) -> tuple[np.ndarray, ...]:
    """Return the sums of weights, probabilities and labels over the bins of `reliability`, each [..., bins].

    A bin that ties leave empty has sums of 0.
    """
    order = np.argsort(probabilities, kind="stable")
    labels, probabilities = np.asarray(labels, float)[order], np.asarray(probabilities, float)[order]
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)[..., order]
    parts = (weights, weights * probabilities, weights * labels)
    before, *others = (np.insert(np.cumsum(part, -1), 0, 0, axis=-1) for part in parts)  # sums of the first k cases
    size, larger = np.divmod(before[..., -1], bins)
    first_of_ties = np.append(np.searchsorted(probabilities, probabilities), len(labels))
    begins = [k * size + np.minimum(k, larger) for k in range(bins)]  # np.array_split divides like this
    cases = [np.sum(before[..., 1:] <= begin[..., None], -1) for begin in begins]
    edges = np.stack([*(first_of_ties[case] for case in cases), np.full(size.shape, len(labels))], -1)
    return tuple(np.diff(np.take_along_axis(sums, edges, -1)) for sums in (before, *others))


def reliability(labels, probabilities, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the predicted and the observed share of malignant images, in bins of equal size.

    The bins are np.array_split of the sorted probabilities. Tied probabilities stay together: an edge inside a run of
    ties moves to the start of the run. The order of the cases thus never matters, and ties may leave fewer bins.

    Returns: (mean probability, share of malignant, count), each [bins or fewer], probabilities ascending.
    """
    counts, predicted, observed = _bins(labels, probabilities, bins)
    there = counts > 0
    return predicted[there] / counts[there], observed[there] / counts[there], counts[there]


def reliability_rows(labels, probabilities, bins: int = 10) -> list[dict]:
    """Return each bin of `reliability` as {"predicted", "observed", "observed_ci95", "n"}, with an exact interval."""
    rows = zip(*(values.tolist() for values in reliability(labels, probabilities, bins)))
    return [
        {"predicted": p, "observed": share, "observed_ci95": list(clopper_pearson(share * n, n)), "n": int(n)}
        for p, share, n in rows
    ]


def expected_calibration_error(labels, probabilities, weights=None, bins: int = 10):
    """Return the expected calibration error (ECE), [...] in [0, 1], 0 best; nan without a case.

    The ECE is the mean over cases of |mean probability - observed share| of the bin (Naeini et al., AAAI 2015). The
    bins are those of `reliability`. Most bins of equal width, as in the paper, would be nearly empty here.
    """
    counts, predicted, observed = _bins(labels, probabilities, bins, weights)
    with np.errstate(invalid="ignore"):  # 0 / 0 without a case is nan
        return np.abs(predicted - observed).sum(-1) / counts.sum(-1)


def in_the_large(labels, probabilities, weights=None):
    """Return the mean probability minus the share of malignant cases (calibration in the large), [...] in [-1, 1].

    0 is best. Below 0, the probabilities are too low (Steyerberg et al., Epidemiology 2010).
    """
    apart = np.asarray(probabilities, float) - np.asarray(labels, float)
    return _mean(apart) if weights is None else weights @ apart / weights.sum(-1)


def summary(labels, probabilities, weights=None) -> dict:
    """Return all measures of calibration: {"brier", "ece", "calibration_in_the_large"}, each [...]."""
    given = labels, probabilities, weights
    found = {"brier": brier(*given), "ece": expected_calibration_error(*given)}
    return found | {"calibration_in_the_large": in_the_large(*given)}


@dataclass(frozen=True)
class Calibration:
    """A calibration and an operating point, chosen on held-out predictions. The run and the ONNX file store both.

    threshold: on calibrated probabilities. threshold_rule: the rule of the threshold, in words.
    chosen_on: the images that chose both: {"on": "val", "out_of_fold" or, from calibrate.py, "calibration",
    "hospitals": names, "hospital_left_out": whether the model of each image had seen no image of the hospital, "n",
    "malignant", "chose": what these images chose}. calibrate.py adds "unit" and "prevalence", the share of malignant
    images that the probabilities are for.
    achieved: the rates that the same procedure achieves on held-out images (`cross_fit`): an entry for all hospitals,
    and an entry for each hospital if there are several.
    found_threshold: the finder finds no lesion if it is less sure than this number; 0 in views without a finder.
    """

    temperature: float = 1.0
    offset: float = 0.0
    threshold: float = STANDARD_THRESHOLD
    threshold_rule: str = f"{STANDARD_THRESHOLD}, nothing chosen"
    chosen_on: dict = field(default_factory=dict)
    achieved: list[dict] = field(default_factory=list)
    found_threshold: float = 0.0

    def __post_init__(self):
        """Check the numbers. Raises: ValueError on a temperature, an offset or a threshold out of range."""
        if not (0 < self.temperature < np.inf and np.isfinite(self.offset) and 0 <= self.threshold <= 1):
            raise ValueError(f"{self.temperature}, {self.offset} or {self.threshold} is out of range")

    @classmethod
    def read(cls, stored: dict) -> "Calibration":
        """Return the calibration that a file stores. Undefined rates (null) become nan.

        Raises: ValueError, KeyError or TypeError on content that no run writes.
        """
        if not isinstance(stored["chosen_on"], dict) or not isinstance(stored["achieved"], list):
            raise ValueError("chosen_on or achieved")
        rates = ("recall", "recall_ci95", "specificity", "specificity_ci95")
        achieved = [one | {name: np.array(one[name], float).tolist() for name in rates} for one in stored["achieved"]]
        numbers = float(stored["temperature"]), float(stored["offset"]), float(stored["threshold"])
        found = float(stored["found_threshold"])
        return cls(*numbers, str(stored["threshold_rule"]), stored["chosen_on"], achieved, found)

    def probabilities(self, logits) -> np.ndarray:
        """Return calibrated P(malignant), [n], of a network's logits [n]."""
        return calibrated(logits, self.temperature, self.offset)

    @property
    def chose(self) -> tuple[str, ...]:
        """What the images in `chosen_on` chose, such as "epoch"."""
        return tuple(self.chosen_on.get("chose", CHOSEN))

    @property
    def achieved_together(self) -> dict:
        """The entry of `achieved` for all hospitals together; {} if `achieved` is empty."""
        return self.achieved[0] if self.achieved else {}


def choose(labels, logits, rule: Rule, parts=None) -> tuple[float, float, float]:
    """Return (temperature, offset, threshold), chosen on held-out predictions.

    Args: logits: not calibrated; parts: [n], the hospital of each image; None: all images are one part. With several
        parts, the threshold is the lowest threshold that the rule chooses in a part.
    Raises: ValueError, as `Rule.threshold`.
    """
    within = [np.ones(len(labels), bool)] if parts is None else [parts == part for part in np.unique(parts)]
    fitted = fit(labels, logits)
    probabilities = calibrated(logits, *fitted)
    return *fitted, min(rule.threshold(labels[part], probabilities[part]) for part in within)


def cross_fit(labels, logits, rule: Rule, fold, parts=None) -> tuple[np.ndarray, np.ndarray]:
    """Calibrate and flag each fold as the other folds choose: return (probabilities [n], flagged bool [n]).

    Measures of the result are held-out. Measures on the images that made the choice are not.

    Args: fold: [n]; images that share a group must share a fold. Other arguments: as for `choose`.
    """
    probabilities, flagged = np.zeros(len(labels)), np.zeros(len(labels), bool)
    for own in (fold == f for f in np.unique(fold)):
        others = None if parts is None else parts[~own]
        *fitted, threshold = choose(labels[~own], logits[~own], rule, others)
        probabilities[own] = calibrated(logits[own], *fitted)
        flagged[own] = probabilities[own] >= threshold
    return probabilities, flagged
