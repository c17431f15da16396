"""Do the probabilities mean what they say: temperature scaling, its measures, and operating points.

A network trained to separate the classes is usually too sure of itself. One temperature, fitted on validation or
out-of-fold predictions, mends that without changing the order of the images, and so no AUC. Everywhere here, `labels`,
[n], are 1 for malignant, `logits` and `probabilities` are [n], and `weights`, [..., n], are how often each case counts.
"""

from dataclasses import dataclass, field

import numpy as np

from common.metrics import STANDARD_THRESHOLD

EPSILON = 1e-12  # probabilities closer than this to 0 or 1 count as this close: logits stay within +-27.6
TEMPERATURES = (0.05, 20.0)  # the range that a fitted temperature is limited to


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


def negative_log_likelihood(labels, logits) -> float:
    """Mean of -log of the probability given to the true class, in nats."""
    return float(_mean(np.logaddexp(0, -_margins(logits, labels))))


def fit_temperature(logits, labels) -> float:
    """The temperature T that minimises the negative log-likelihood of sigmoid(logits / T) (Guo et al., ICML 2017,
    section 4.2).

    The likelihood is convex in 1 / T, so bisection on its gradient finds the one minimum. Logits that separate the
    classes want T = 0 and get the lower of TEMPERATURES; logits that vote against the labels, or carry too little
    information, want T = infinity and get the upper one. Where every T is as good (all logits 0, or no case), T = 1.
    """
    margins = _margins(logits, labels)
    if not margins.any():
        return 1.0

    def gradient(inverse: float) -> float:
        return -(margins * sigmoid(-inverse * margins)).sum()

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if gradient(high) <= 0:
        return TEMPERATURES[0]
    if gradient(low) >= 0:
        return TEMPERATURES[1]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if gradient(middle) > 0 else (middle, high)
    return 2 / (low + high)


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


def expected_calibration_error(labels, probabilities, weights=None, bins: int = 10):
    """Mean over cases of |mean probability - observed share| of their bin in `reliability`, in [0, 1], 0 best (Naeini
    et al., AAAI 2015, with bins of equal mass: of equal width, most would be nearly empty here)."""
    counts, predicted, observed = _bins(labels, probabilities, bins, weights)
    with np.errstate(invalid="ignore"):  # 0 / 0 without a case is nan
        return np.abs(predicted - observed).sum(-1) / counts.sum(-1)


def summary(labels, probabilities, weights=None) -> dict:
    """Both measures of calibration."""
    given = labels, probabilities, weights
    return {"brier": brier(*given), "ece": expected_calibration_error(*given)}


def operating_point(labels, probabilities, sensitivity: float) -> float:
    """The largest threshold at which recall of malignant (probability >= threshold) is at least `sensitivity`, moved
    midway to the next probability below (or 0): that calls the same images, and none sits on the threshold, where the
    last digits of another runtime would decide.

    Raises: ValueError without positives, or for a sensitivity outside (0, 1].
    """
    probabilities = np.asarray(probabilities, float)
    positives = np.sort(probabilities[np.asarray(labels, bool)])[::-1]
    if not len(positives) or not 0 < sensitivity <= 1:
        raise ValueError(f"no operating point of sensitivity {sensitivity} on {len(positives)} malignant cases")
    recall = np.arange(1, len(positives) + 1) / len(positives)
    lowest = positives[np.argmax(recall >= sensitivity)]
    below = probabilities[probabilities < lowest]
    return float((lowest + below.max(initial=0)) / 2)


@dataclass(frozen=True)
class Calibration:
    """What held-out predictions chose: stored with the run, later inside the ONNX file.

    threshold: on calibrated probabilities; threshold_rule: what it is, in words; chosen_on: the images that chose both,
    {"on": "val" or "out_of_fold", "hospitals": names, "hospital_left_out": whether the model of each image had seen no
    image of its hospital, "n", "malignant"}; achieved: what such a choice achieves on images that do not take part in
    the choice, one entry for all hospitals and one for each of several (`cross_fit`).
    """

    temperature: float = 1.0
    threshold: float = STANDARD_THRESHOLD
    threshold_rule: str = f"{STANDARD_THRESHOLD}, nothing chosen"
    chosen_on: dict = field(default_factory=dict)
    achieved: list[dict] = field(default_factory=list)

    def __post_init__(self):
        """Raises: ValueError on a temperature or a threshold that no run can have."""
        if not (0 < self.temperature < np.inf and 0 <= self.threshold <= 1):
            raise ValueError(f"temperature {self.temperature} or threshold {self.threshold} is out of range")

    @classmethod
    def read(cls, stored: dict) -> "Calibration":
        """A calibration out of a file; rates that are undefined become nan. Raises: ValueError, KeyError or TypeError
        on what no run writes."""
        if not isinstance(stored["chosen_on"], dict) or not isinstance(stored["achieved"], list):
            raise ValueError("chosen_on or achieved")
        rates = ("recall", "recall_ci95", "specificity", "specificity_ci95")
        achieved = [one | {name: np.array(one[name], float).tolist() for name in rates} for one in stored["achieved"]]
        numbers = float(stored["temperature"]), float(stored["threshold"])
        return cls(*numbers, str(stored["threshold_rule"]), stored["chosen_on"], achieved)

    def probabilities(self, logits) -> np.ndarray:
        """Calibrated P(malignant) of logits [n]."""
        return sigmoid(np.asarray(logits) / self.temperature)

    @property
    def promise(self) -> dict:
        """The entry of `achieved` for all hospitals together; {} where there is none."""
        return self.achieved[0] if self.achieved else {}


def choose(labels, logits, sensitivity: float, parts=None) -> tuple[float, float]:
    """(temperature, threshold) by predictions of images not trained on. Where hospitals are left out in turn, the most
    cautious one decides: the highest temperature, and the lowest operating point, which keeps the sensitivity in each.

    Args: logits: not calibrated; sensitivity: in (0, 1]; parts: [n], the hospital of each image, or None for one part.
    """
    within = [np.ones(len(labels), bool)] if parts is None else [parts == part for part in np.unique(parts)]
    temperature = max(fit_temperature(logits[part], labels[part]) for part in within)
    probabilities = sigmoid(logits / temperature)
    return temperature, min(operating_point(labels[part], probabilities[part], sensitivity) for part in within)


def cross_fit(labels, logits, sensitivity: float, fold, parts=None) -> np.ndarray:
    """Which images are flagged when each fold gets the temperature and threshold that the other folds choose: bool [n].
    The rates of these flags are held-out, those of a threshold on the images that chose it are not.

    Args: fold: [n], images that share a group share a fold; every other argument as of `choose`.
    """
    flagged = np.zeros(len(labels), bool)
    for own in (fold == f for f in np.unique(fold)):
        others = None if parts is None else parts[~own]
        temperature, threshold = choose(labels[~own], logits[~own], sensitivity, others)
        flagged[own] = sigmoid(logits[own] / temperature) >= threshold
    return flagged


def threshold_rule(sensitivity: float | str, chosen_on: str) -> str:
    """What an `operating_point` is, in the words that files, tables and --help share."""
    return (
        f"largest threshold with a sensitivity of at least {sensitivity} on {chosen_on}, "
        "midway to the next probability below"
    )
