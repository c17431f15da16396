"""Binary classification metrics, by hand, in numpy.

Malignant is the positive class: `labels`, [n], are 1 for malignant and 0 for normal or benign; `scores`, [n], grow with
malignancy on any scale; `predictions`, [n], are 0 or 1. All metrics are computed over the pooled predictions of a
split, never averaged over batches.

Every function takes `weights`, an array [..., n] of how often each case counts (default: once). Bootstrap resampling
counts go in there: one call with weights [B, n] gives the B resampled values of a metric, by the very code that gives
the metric itself. A metric that is undefined (a class is absent, nothing is predicted positive) is nan, never 0.
"""

import numpy as np

STANDARD_THRESHOLD = 0.5  # of a probability, where no operating point is named
NAMES = {  # of the metrics that tables and comparisons show, and what they are called there
    "accuracy": "accuracy",
    "auc": "AUC",
    "aupr": "AUPR",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
}


def _ratio(numerator, denominator):
    """numerator / denominator, nan where the denominator is 0; a float for 0-d input."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)[()]


def confusion(labels, predictions, weights=None):
    """Counts of the four outcomes, (tp, fp, fn, tn), each [...]."""
    labels, predictions = np.asarray(labels, bool), np.asarray(predictions, bool)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)
    outcomes = (labels & predictions, ~labels & predictions, labels & ~predictions, ~labels & ~predictions)
    return tuple(weights @ outcome.astype(float) for outcome in outcomes)


def rates(labels, predictions, weights=None) -> dict:
    """What the four outcomes come to, {name: [...]}, in [0, 1]."""
    tp, fp, fn, tn = confusion(labels, predictions, weights)
    return {
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "precision": _ratio(tp, tp + fp),  # positive predictive value; nan when nothing is predicted positive
        "recall": _ratio(tp, tp + fn),  # sensitivity; nan without positives
        "specificity": _ratio(tn, tn + fp),  # recall of the negative class; nan without negatives
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),  # harmonic mean of precision and recall; nan where both are
    }


def _at_every_threshold(labels, scores, weights):
    """Counts (tp, fp), each [..., u + 1]: with the threshold above all of the u distinct scores, then at each of them,
    descending."""
    order = np.argsort(scores, kind="stable")[::-1]
    labels, scores = np.asarray(labels, bool)[order], np.asarray(scores)[order]
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)[..., order]
    first_of_ties = np.flatnonzero(np.append(True, np.diff(scores) != 0)[: len(scores)])
    tp, fp = np.zeros((2, *weights.shape[:-1], len(first_of_ties) + 1))
    np.cumsum(np.add.reduceat(weights * labels, first_of_ties, axis=-1), axis=-1, out=tp[..., 1:])
    np.cumsum(np.add.reduceat(weights * ~labels, first_of_ties, axis=-1), axis=-1, out=fp[..., 1:])
    return tp, fp


def roc_curve(labels, scores, weights=None):
    """The ROC curve: (false positive rate, true positive rate), each [..., u + 1] for u distinct scores, from (0, 0) to
    (1, 1); the rate of an absent class is nan."""
    tp, fp = _at_every_threshold(labels, scores, weights)
    return _ratio(fp, fp[..., -1:]), _ratio(tp, tp[..., -1:])


def auc(labels, scores, weights=None):
    """Area under the ROC curve, by trapezoids: the Mann-Whitney statistic, the probability that a positive case scores
    above a negative one, ties counting one half (Hanley & McNeil, Radiology 1982); nan when a class is absent."""
    tp, fp = _at_every_threshold(labels, scores, weights)
    wins = (np.diff(fp) * (tp[..., 1:] + tp[..., :-1]) / 2).sum(-1)
    return _ratio(wins, tp[..., -1] * fp[..., -1])


def precision_recall_curve(labels, scores, weights=None):
    """The precision-recall curve: (recall, precision), each [..., u] for u distinct scores, thresholds descending; the
    step-wise area under it is `average_precision`. Recall without positives is nan, as is precision above all cases."""
    tp, fp = (counts[..., 1:] for counts in _at_every_threshold(labels, scores, weights))
    return _ratio(tp, tp[..., -1:]), _ratio(tp, tp + fp)


def average_precision(labels, scores, weights=None):
    """AUPR as average precision: the step-wise sum over thresholds of (R_k - R_{k-1}) P_k, no interpolation
    (as scikit-learn's `average_precision_score`); nan without positives."""
    tp, fp = _at_every_threshold(labels, scores, weights)
    precision_at = np.nan_to_num(_ratio(tp, tp + fp))[..., 1:]  # a resample may hold nothing above a threshold
    return _ratio((np.diff(tp) * precision_at).sum(-1), tp[..., -1])


def summaries(labels, probabilities, thresholds, weights=None) -> dict[float, dict]:
    """Every metric of a set of predictions at each threshold, {threshold: {name: a float, or [...] as `weights` have
    it}}; what no threshold changes is computed once.

    Args: probabilities: [n], P(malignant) in [0, 1]; thresholds: a case counts as positive when its probability is at
        least this.
    """
    labels, probabilities = np.asarray(labels, int), np.asarray(probabilities)
    area, aupr = auc(labels, probabilities, weights), average_precision(labels, probabilities, weights)
    benign_aupr = average_precision(1 - labels, -probabilities, weights)
    found = {}
    for threshold in thresholds:
        malignant = rates(labels, probabilities >= threshold, weights)
        benign = rates(1 - labels, probabilities < threshold, weights)
        found[threshold] = {
            "n": len(labels),
            "accuracy": malignant["accuracy"],
            "auc": area,
            "aupr": aupr,
            "f1": malignant["f1"],
            "precision": malignant["precision"],
            "recall": malignant["recall"],
            "specificity": malignant["specificity"],
            "macro_f1": (malignant["f1"] + benign["f1"]) / 2,
            "macro_precision": (malignant["precision"] + benign["precision"]) / 2,
            "macro_recall": (malignant["recall"] + benign["recall"]) / 2,
            "benign": {
                "f1": benign["f1"],
                "aupr": benign_aupr,
                "precision": benign["precision"],
                "recall": benign["recall"],
            },
        }
    return found


def summary(labels, probabilities, threshold: float = STANDARD_THRESHOLD, weights=None) -> dict:
    """The one of `summaries` at a threshold."""
    return summaries(labels, probabilities, [threshold], weights)[threshold]


def flatten(summary: dict) -> dict:
    """A summary as one level, for a CSV row: "benign": {"f1": …} becomes "benign_f1"."""
    benign = {f"benign_{name}": value for name, value in summary["benign"].items()}
    return {name: value for name, value in summary.items() if name != "benign"} | benign
