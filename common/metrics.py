"""Binary classification metrics, by hand, in numpy.

Malignant is the positive class: `labels`, [n], are 1 for malignant and 0 for normal or benign; `scores`, [n], grow with
malignancy on any scale. All metrics are computed over the pooled predictions of a split, never averaged over batches.

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


def _weights(labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=float)


def _ratio(numerator, denominator):
    """numerator / denominator, nan where the denominator is 0; a float for 0-d input."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)[()]


def confusion(labels, predictions, weights=None):
    """Counts of the four outcomes, (tp, fp, fn, tn), each [...]. predictions: [n] of 0 or 1."""
    labels, predictions = np.asarray(labels, bool), np.asarray(predictions, bool)
    weights = _weights(labels, weights)
    outcomes = (labels & predictions, ~labels & predictions, labels & ~predictions, ~labels & ~predictions)
    return tuple(weights @ outcome.astype(float) for outcome in outcomes)


def accuracy(labels, predictions, weights=None):
    """Share of correct predictions, in [0, 1]."""
    tp, fp, fn, tn = confusion(labels, predictions, weights)
    return _ratio(tp + tn, tp + fp + fn + tn)


def precision(labels, predictions, weights=None):
    """TP / (TP + FP), the positive predictive value; nan when nothing is predicted positive."""
    tp, fp, _, _ = confusion(labels, predictions, weights)
    return _ratio(tp, tp + fp)


def recall(labels, predictions, weights=None):
    """TP / (TP + FN), the sensitivity; nan without positives."""
    tp, _, fn, _ = confusion(labels, predictions, weights)
    return _ratio(tp, tp + fn)


def specificity(labels, predictions, weights=None):
    """TN / (TN + FP), the recall of the negative class; nan without negatives."""
    _, fp, _, tn = confusion(labels, predictions, weights)
    return _ratio(tn, tn + fp)


def f1(labels, predictions, weights=None):
    """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall; nan when there is neither a positive
    label nor a positive prediction."""
    tp, fp, fn, _ = confusion(labels, predictions, weights)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _class_weights_by_score(labels, scores, weights):
    """Weights of each class at each distinct score, ascending: (positives, negatives), each [..., u] for u scores."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0][: len(scores)])
    weights = _weights(labels, weights)[..., order]
    return tuple(np.add.reduceat(weights * is_class, starts, axis=-1) for is_class in (labels[order], ~labels[order]))


def auc(labels, scores, weights=None):
    """Area under the ROC curve as the Mann-Whitney statistic: the probability that a positive case scores above a
    negative one, ties counting one half (Hanley & McNeil, Radiology 1982); nan when a class is absent."""
    positives, negatives = _class_weights_by_score(labels, scores, weights)
    negatives_below = np.cumsum(negatives, axis=-1) - negatives
    wins = (positives * (negatives_below + negatives / 2)).sum(-1)
    return _ratio(wins, positives.sum(-1) * negatives.sum(-1))


def average_precision(labels, scores, weights=None):
    """AUPR as average precision: the step-wise sum over thresholds of (R_k - R_{k-1}) P_k, no interpolation
    (as scikit-learn's `average_precision_score`); nan without positives."""
    positives, negatives = (counts[..., ::-1] for counts in _class_weights_by_score(labels, scores, weights))
    true, false = np.cumsum(positives, axis=-1), np.cumsum(negatives, axis=-1)
    precision_at = np.nan_to_num(_ratio(true, true + false))  # a resample may hold nothing above a threshold
    return _ratio((positives * precision_at).sum(-1), positives.sum(-1))


def roc_curve(labels, scores, weights=None):
    """The ROC curve: (false positive rate, true positive rate), each [..., u + 1] for u distinct scores, from (0, 0) to
    (1, 1); the rate of an absent class is nan."""

    def rate(counts):
        cumulated = np.cumsum(np.insert(counts[..., ::-1], 0, 0, axis=-1), axis=-1)
        return _ratio(cumulated, cumulated[..., -1:])

    positives, negatives = _class_weights_by_score(labels, scores, weights)
    return rate(negatives), rate(positives)


def precision_recall_curve(labels, scores, weights=None):
    """The precision-recall curve: (recall, precision), each [..., u] for u distinct scores, thresholds descending; the
    step-wise area under it is `average_precision`. Recall without positives is nan, as is precision above all cases."""
    by_score = _class_weights_by_score(labels, scores, weights)
    true, false = (np.cumsum(counts[..., ::-1], axis=-1) for counts in by_score)
    return _ratio(true, true[..., -1:]), _ratio(true, true + false)


def summaries(labels, probabilities, thresholds, weights=None) -> list[dict]:
    """Every metric of a set of predictions at each of several thresholds; AUC and AUPR, which no threshold changes, are
    computed once.

    Args: probabilities: [n], P(malignant) in [0, 1]; thresholds: a case counts as positive when its probability is at
        least this. Returns: of each threshold a dict as below, each metric a float, or [...] as `weights` have it.
    """
    labels, probabilities = np.asarray(labels, int), np.asarray(probabilities)
    auc_value = auc(labels, probabilities, weights)
    aupr = average_precision(labels, probabilities, weights)
    benign_aupr = average_precision(1 - labels, -probabilities, weights)

    def at(threshold: float) -> dict:
        malignant = labels, probabilities >= threshold, weights
        benign = 1 - labels, probabilities < threshold, weights
        f1s, precisions, recalls = ((metric(*malignant), metric(*benign)) for metric in (f1, precision, recall))
        return {
            "n": len(labels),
            "accuracy": accuracy(*malignant),
            "auc": auc_value,
            "aupr": aupr,
            "f1": f1s[0],
            "precision": precisions[0],
            "recall": recalls[0],
            "specificity": specificity(*malignant),
            "macro_f1": sum(f1s) / 2,
            "macro_precision": sum(precisions) / 2,
            "macro_recall": sum(recalls) / 2,
            "benign": {"f1": f1s[1], "aupr": benign_aupr, "precision": precisions[1], "recall": recalls[1]},
        }

    return [at(threshold) for threshold in thresholds]


def summary(labels, probabilities, threshold: float = STANDARD_THRESHOLD, weights=None) -> dict:
    """The one of `summaries` at a threshold."""
    return summaries(labels, probabilities, [threshold], weights)[0]


def flatten(summary: dict) -> dict:
    """A summary as one level, for a CSV row: "benign": {"f1": …} becomes "benign_f1"."""
    flat: dict = {}
    for key, value in summary.items():
        flat |= {f"{key}_{inner}": x for inner, x in value.items()} if isinstance(value, dict) else {key: value}
    return flat
