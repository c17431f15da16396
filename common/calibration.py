"""Do the probabilities mean what they say: Platt scaling, its measures, and operating points.

A network trained to separate the classes is usually too sure of itself, and its mean probability misses the share of
malignant images. A temperature and an offset, fitted on images not trained on, mend both: P(malignant) is
sigmoid(logit / temperature + offset). The order of the images, and so the AUC, stays. Everywhere here, `labels`, [n],
are 1 for malignant, `logits` and `probabilities` are [n], and `weights`, [..., n], are how often each case counts.
"""

from dataclasses import dataclass, field

import numpy as np

from common.intervals import clopper_pearson
from common.metrics import STANDARD_THRESHOLD
from common.thresholds import Rule

EPSILON = 1e-12  # probabilities closer than this to 0 or 1 count as this close: logits stay within +-27.6
PRIOR_MEANS, PRIOR_DEVIATIONS = (1.0, 0.0), (0.5, 1.0)  # of the slope, 1 / temperature, and the offset
SLOPES = (0.05, 20.0)  # the range that a fitted slope is limited to


def sigmoid(logits) -> np.ndarray:
    """1 / (1 + exp(-logit)), without overflow for any logit."""
    logits = np.asarray(logits, float)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, small) / (1 + small)


def logit(probabilities) -> np.ndarray:
    """log(p / (1 - p)), the inverse of `sigmoid`; probabilities are first clipped to [EPSILON, 1 - EPSILON]."""
    probabilities = np.clip(np.asarray(probabilities, float), EPSILON, 1 - EPSILON)
    return np.log(probabilities) - np.log1p(-probabilities)


def _mean(values: np.ndarray) -> float:
    """nan of nothing."""
    return values.mean() if len(values) else np.nan


def _margins(logits, labels) -> np.ndarray:
    """Each logit signed so that it is positive when it votes for the true class."""
    return np.where(np.asarray(labels, bool), 1, -1) * np.asarray(logits, float)


def calibrated(logits, temperature: float, offset: float) -> np.ndarray:
    """P(malignant) of a network's logits [n]."""
    return sigmoid(np.asarray(logits, float) / temperature + offset)


def negative_log_likelihood(labels, logits) -> float:
    """Mean of -log of the probability given to the true class, in nats."""
    return float(_mean(np.logaddexp(0, -_margins(logits, labels))))


def fit(labels, logits, deviations=PRIOR_DEVIATIONS) -> tuple[float, float]:
    """(temperature, offset) that calibrate logits: Platt scaling (Platt, Advances in Large Margin Classifiers, 1999)
    with a prior, so that few images change little: 1 / temperature ~ N(1, 0.5²), offset ~ N(0, 1). results/README.md
    compares it with fits of none, one and both parameters, at 20 to 1,000 images.

    The penalised negative log-likelihood of sigmoid(slope logit + offset) is strictly convex: Newton's steps, halved
    while they do not descend, find its minimum. The slope stays within SLOPES, so that the order of images stays.

    Args: deviations: of the prior of slope and offset.
    """
    labels, logits = np.asarray(labels, float), np.asarray(logits, float)
    design = np.stack([logits, np.ones_like(logits)], 1)
    precision = 1 / np.square(deviations)

    def loss(parameters) -> float:
        margins = np.where(labels > 0, 1, -1) * (design @ parameters)
        return np.logaddexp(0, -margins).sum() + (precision * (parameters - PRIOR_MEANS) ** 2).sum() / 2

    found = np.array(PRIOR_MEANS)
    for _ in range(100):
        p = sigmoid(design @ found)
        gradient = design.T @ (p - labels) + precision * (found - PRIOR_MEANS)
        step = np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design + np.diag(precision), gradient)
        while loss(found - step) > loss(found) and np.abs(step).max() > 1e-12:
            step = step / 2
        found = found - step
        if np.abs(step).max() < 1e-10:
            break
    return float(1 / np.clip(found[0], *SLOPES)), float(found[1])


def brier(labels, probabilities, weights=None):
    """Mean squared distance of probability and label (Brier, Monthly Weather Review 1950), in [0, 1], 0 best."""
    squares = (np.asarray(probabilities, float) - np.asarray(labels, float)) ** 2
    return _mean(squares) if weights is None else weights @ squares / weights.sum(-1)


def _bins(labels, probabilities, bins: int, weights=None) -> tuple[np.ndarray, ...]:
    """Sums over the bins of `reliability`: of weights, of probabilities and of labels, each [..., bins]; 0 where ties
    leave no bin."""
    order = np.argsort(probabilities, kind="stable")
    labels, probabilities = np.asarray(labels, float)[order], np.asarray(probabilities, float)[order]
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)[..., order]
    parts = (weights, weights * probabilities, weights * labels)
    before, *others = (np.insert(np.cumsum(part, -1), 0, 0, axis=-1) for part in parts)  # sums of what lies before
    size, larger = np.divmod(before[..., -1], bins)
    first_of_ties = np.append(np.searchsorted(probabilities, probabilities), len(labels))
    begins = [k * size + np.minimum(k, larger) for k in range(bins)]  # as np.array_split divides
    cases = [np.sum(before[..., 1:] <= begin[..., None], -1) for begin in begins]
    edges = np.stack([*(first_of_ties[case] for case in cases), np.full(size.shape, len(labels))], -1)
    return tuple(np.diff(np.take_along_axis(sums, edges, -1)) for sums in (before, *others))


def reliability(labels, probabilities, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted against observed share of malignant images, in bins of equal mass: (mean probability, share of
    malignant, count), each [bins or fewer], probabilities ascending.

    The bins are np.array_split of the sorted probabilities, with tied probabilities kept together: an edge inside a run
    of ties moves to the start of the run. The order of the cases thus never matters, and ties may leave fewer bins.
    """
    counts, predicted, observed = _bins(labels, probabilities, bins)
    there = counts > 0
    return predicted[there] / counts[there], observed[there] / counts[there], counts[there]


def reliability_rows(labels, probabilities, bins: int = 10) -> list[dict]:
    """The bins of `reliability` with exact intervals of the observed share: {"predicted", "observed", "observed_ci95",
    "n"} each."""
    rows = zip(*(values.tolist() for values in reliability(labels, probabilities, bins)))
    return [
        {"predicted": p, "observed": share, "observed_ci95": list(clopper_pearson(share * n, n)), "n": int(n)}
        for p, share, n in rows
    ]


def expected_calibration_error(labels, probabilities, weights=None, bins: int = 10):
    """Mean over cases of |mean probability - observed share| of their bin in `reliability`, in [0, 1], 0 best (Naeini
    et al., AAAI 2015, with bins of equal mass: of equal width, most would be nearly empty here)."""
    counts, predicted, observed = _bins(labels, probabilities, bins, weights)
    with np.errstate(invalid="ignore"):  # 0 / 0 without a case is nan
        return np.abs(predicted - observed).sum(-1) / counts.sum(-1)


def in_the_large(labels, probabilities, weights=None):
    """Calibration in the large: the mean probability minus the share of malignant cases, in [-1, 1], 0 best (Steyerberg
    et al., Epidemiology 2010). Below 0 the probabilities are too low."""
    apart = np.asarray(probabilities, float) - np.asarray(labels, float)
    return _mean(apart) if weights is None else weights @ apart / weights.sum(-1)


def summary(labels, probabilities, weights=None) -> dict:
    """All measures of calibration."""
    given = labels, probabilities, weights
    found = {"brier": brier(*given), "ece": expected_calibration_error(*given)}
    return found | {"calibration_in_the_large": in_the_large(*given)}


@dataclass(frozen=True)
class Calibration:
    """What held-out predictions chose: stored with the run, later inside the ONNX file.

    threshold: on calibrated probabilities; threshold_rule: what it is, in words; chosen_on: the images that chose both,
    {"on": "val" or "out_of_fold", "hospitals": names, "hospital_left_out": whether the model of each image had seen no
    image of its hospital, "n", "malignant"}; achieved: what such a choice achieves on images that do not take part in
    the choice, one entry for all hospitals and one for each of several (`cross_fit`); found_threshold: the finder finds
    nothing where it is less sure; 0 in views without a finder.
    """

    temperature: float = 1.0
    offset: float = 0.0
    threshold: float = STANDARD_THRESHOLD
    threshold_rule: str = f"{STANDARD_THRESHOLD}, nothing chosen"
    chosen_on: dict = field(default_factory=dict)
    achieved: list[dict] = field(default_factory=list)
    found_threshold: float = 0.0

    def __post_init__(self):
        """Raises: ValueError on a temperature, an offset or a threshold that no run can have."""
        if not (0 < self.temperature < np.inf and np.isfinite(self.offset) and 0 <= self.threshold <= 1):
            raise ValueError(f"{self.temperature}, {self.offset} or {self.threshold} is out of range")

    @classmethod
    def read(cls, stored: dict) -> "Calibration":
        """A calibration out of a file; rates that are undefined become nan. Raises: ValueError, KeyError or TypeError
        on what no run writes."""
        if not isinstance(stored["chosen_on"], dict) or not isinstance(stored["achieved"], list):
            raise ValueError("chosen_on or achieved")
        rates = ("recall", "recall_ci95", "specificity", "specificity_ci95")
        achieved = [one | {name: np.array(one[name], float).tolist() for name in rates} for one in stored["achieved"]]
        numbers = float(stored["temperature"]), float(stored.get("offset", 0)), float(stored["threshold"])
        found = float(stored.get("found_threshold", 0))
        return cls(*numbers, str(stored["threshold_rule"]), stored["chosen_on"], achieved, found)

    def probabilities(self, logits) -> np.ndarray:
        """Calibrated P(malignant) of a network's logits [n]."""
        return calibrated(logits, self.temperature, self.offset)

    @property
    def promise(self) -> dict:
        """The entry of `achieved` for all hospitals together; {} where there is none."""
        return self.achieved[0] if self.achieved else {}


def choose(labels, logits, rule: Rule, parts=None) -> tuple[float, float, float]:
    """(temperature, offset, threshold) by predictions of images not trained on. Where hospitals are left out in turn,
    the threshold is the lowest that the rule gives in a hospital.

    Args: logits: not calibrated; parts: [n], the hospital of each image, or None for one part.
    """
    within = [np.ones(len(labels), bool)] if parts is None else [parts == part for part in np.unique(parts)]
    fitted = fit(labels, logits)
    probabilities = calibrated(logits, *fitted)
    return *fitted, min(rule.threshold(labels[part], probabilities[part]) for part in within)


def cross_fit(labels, logits, rule: Rule, fold, parts=None) -> tuple[np.ndarray, np.ndarray]:
    """What images get when each fold is calibrated, and flagged, as the other folds choose: (probabilities [n], flagged
    bool [n]). Their measures are held-out; those of a choice on the images that made it are not.

    Args: fold: [n], images that share a group share a fold; every other argument as of `choose`.
    """
    probabilities, flagged = np.zeros(len(labels)), np.zeros(len(labels), bool)
    for own in (fold == f for f in np.unique(fold)):
        others = None if parts is None else parts[~own]
        *fitted, threshold = choose(labels[~own], logits[~own], rule, others)
        probabilities[own] = calibrated(logits[own], *fitted)
        flagged[own] = probabilities[own] >= threshold
    return probabilities, flagged
