"""Binary classification metrics in plain numpy. Malignant is the positive class.

Args of most functions: labels: [n], 1 for malignant, 0 for normal or benign. scores: [n], on any scale; malignant
images should score higher. predictions: [n] of 0 or 1. weights: [..., n], how often each case counts (default: once).

A metric is computed over all pooled predictions of a split, never averaged over batches. An undefined metric is nan,
never 0, for example if a class is absent. Resampling counts of the bootstrap are weights [B, n]: one call returns the
B resampled values of a metric.
"""

import numpy as np

STANDARD_THRESHOLD = 0.5  # threshold of a probability if no operating point is named
NAMES = {  # {metric: its name in tables and comparisons}
    "accuracy": "accuracy",
    "auc": "AUC",
    "aupr": "AUPR",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
}


def _ratio(numerator, denominator):
    """Return numerator / denominator, nan where the denominator is 0; a float for 0-d input."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)[()]


def confusion(labels, predictions, weights=None):
    """Return the counts of the four outcomes, (tp, fp, fn, tn), each float [...]."""
    labels, predictions = np.asarray(labels, bool), np.asarray(predictions, bool)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)
    outcomes = (labels & predictions, ~labels & predictions, labels & ~predictions, ~labels & ~predictions)
    return tuple(weights @ outcome.astype(float) for outcome in outcomes)


def rates(labels, predictions, weights=None) -> dict:
    """Return accuracy, precision, recall, specificity and F1 as {name: [...]}, in [0, 1] or nan."""
    tp, fp, fn, tn = confusion(labels, predictions, weights)
    return {
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "precision": _ratio(tp, tp + fp),  # positive predictive value; nan if no case is predicted positive
        "recall": _ratio(tp, tp + fn),  # sensitivity; nan without positives
        "specificity": _ratio(tn, tn + fp),  # recall of the negative class; nan without negatives
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),  # harmonic mean of precision and recall; nan if both are nan
    }


def _at_every_threshold(labels, scores, weights):
    """Return the counts (tp, fp) at each threshold, each float [..., u + 1], for u distinct scores.

    The first threshold lies above all scores. The other thresholds are the distinct scores, descending.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    labels, scores = np.asarray(labels, bool)[order], np.asarray(scores)[order]
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)[..., order]
    first_of_ties = np.flatnonzero(np.append(True, np.diff(scores) != 0)[: len(scores)])
    tp, fp = np.zeros((2, *weights.shape[:-1], len(first_of_ties) + 1))
    np.cumsum(np.add.reduceat(weights * labels, first_of_ties, axis=-1), axis=-1, out=tp[..., 1:])
    np.cumsum(np.add.reduceat(weights * ~labels, first_of_ties, axis=-1), axis=-1, out=fp[..., 1:])
    return tp, fp


def roc_curve(labels, scores, weights=None):
    """Return the ROC curve: (false positive rate, true positive rate), each [..., u + 1], for u distinct scores.

    The curve runs from (0, 0) to (1, 1). The rate of an absent class is nan.
    """
    tp, fp = _at_every_threshold(labels, scores, weights)
    return _ratio(fp, fp[..., -1:]), _ratio(tp, tp[..., -1:])


def auc(labels, scores, weights=None):
    """Return the area under the ROC curve, [...] in [0, 1]; nan if a class is absent.

    The area by trapezoids is the Mann-Whitney statistic: the probability that a positive case scores above a negative
    case. Ties count one half (Hanley & McNeil, Radiology 1982).
    """
    tp, fp = _at_every_threshold(labels, scores, weights)
    wins = (np.diff(fp) * (tp[..., 1:] + tp[..., :-1]) / 2).sum(-1)
    return _ratio(wins, tp[..., -1] * fp[..., -1])


def precision_recall_curve(labels, scores, weights=None):
    """Return the precision-recall curve: (recall, precision), each [..., u], for u distinct scores.

    The thresholds descend. The step-wise area under the curve is `average_precision`. Recall is nan without positives.
    Precision is nan at thresholds that no case of nonzero weight reaches.
    """
    tp, fp = (counts[..., 1:] for counts in _at_every_threshold(labels, scores, weights))
    return _ratio(tp, tp[..., -1:]), _ratio(tp, tp + fp)


def average_precision(labels, scores, weights=None):
    """Return the AUPR as average precision, [...] in [0, 1]; nan without positives.

    Average precision is the step-wise sum over thresholds k of (recall_k - recall_{k-1}) precision_k, without
    interpolation, as in scikit-learn's `average_precision_score`.
    """
    tp, fp = _at_every_threshold(labels, scores, weights)
    precision_at = np.nan_to_num(_ratio(tp, tp + fp))[..., 1:]  # a resample may have no case above a threshold
    return _ratio((np.diff(tp) * precision_at).sum(-1), tp[..., -1])


def summaries(labels, probabilities, thresholds, weights=None) -> dict[float, dict]:
    """Return every metric at each threshold: {threshold: {name: value}}.

    Args: probabilities: [n], P(malignant) in [0, 1]; thresholds: a case with at least this probability is flagged.
    Returns: floats, or [...] with `weights`; "n" is an int, and "benign" is the dict of the negative class.
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
    """Return every metric at one threshold. Arguments and result: as for `summaries`."""
    return summaries(labels, probabilities, [threshold], weights)[threshold]


def flatten(summary: dict) -> dict:
    """Return a summary without nesting, for a CSV row: "benign": {"f1": …} becomes "benign_f1"."""
    benign = {f"benign_{name}": value for name, value in summary["benign"].items()}
    return {name: value for name, value in summary.items() if name != "benign"} | benign
