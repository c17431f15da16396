import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from common import metrics

NAN = np.nan


def random_case(rng, most: int = 60):
    """Labels and tied scores of 1 to `most` cases: useless to separating scores, rare to common classes."""
    n = rng.integers(1, most + 1)
    labels = (rng.random(n) < rng.choice([0.05, 0.27, 0.5, 0.95])).astype(int)
    signal = rng.random()
    return labels, np.round(signal * labels + (1 - signal) * rng.random(n), rng.integers(1, 4))


def expected_summary(labels, probabilities, threshold) -> dict:
    """`metrics.summary`, flat, by scikit-learn; nan where scikit-learn would warn and answer something else."""
    called = (probabilities >= threshold).astype(int)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        labels, called, labels=[0, 1], zero_division=NAN
    )
    average_precision = sklearn_metrics.average_precision_score
    return {
        "n": len(labels),
        "accuracy": sklearn_metrics.accuracy_score(labels, called),
        "auc": sklearn_metrics.roc_auc_score(labels, probabilities) if support.all() else NAN,
        "aupr": average_precision(labels, probabilities) if support[1] else NAN,
        "f1": f1[1],
        "precision": precision[1],
        "recall": recall[1],
        "specificity": recall[0],
        "macro_f1": f1.mean(),
        "macro_precision": precision.mean(),
        "macro_recall": recall.mean(),
        "benign_f1": f1[0],
        "benign_aupr": average_precision(1 - labels, -probabilities) if support[0] else NAN,
        "benign_precision": precision[0],
        "benign_recall": recall[0],
    }


def assert_equal(actual: dict, expected: dict):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=1e-12, err_msg=name)


def test_summary_is_scikit_learns():
    rng = np.random.default_rng(0)
    for threshold in rng.choice([0.2, 0.5, 0.75], 120):
        case = *random_case(rng), threshold
        assert_equal(metrics.flatten(metrics.summary(*case)), expected_summary(*case))


UNDEFINED = {  # labels, probabilities; accuracy, AUC, AUPR; F1, precision, recall, specificity
    "empty": ([], [], [NAN, NAN, NAN], [NAN, NAN, NAN, NAN]),
    "no positive": ([0, 0, 0], [0.1, 0.2, 0.9], [2 / 3, NAN, NAN], [0, 0, NAN, 2 / 3]),
    "no negative": ([1, 1, 1], [0.1, 0.6, 0.9], [2 / 3, NAN, 1], [0.8, 1, 2 / 3, NAN]),
    "nothing called positive": ([1, 0, 0], [0.4, 0.2, 0.1], [2 / 3, 1, 1], [0, NAN, 0, 1]),
    "no positive, none called": ([0, 0], [0.1, 0.2], [1, NAN, NAN], [NAN, NAN, NAN, 1]),
    "all tied": ([1, 0, 0, 0], [0.5] * 4, [0.25, 0.5, 0.25], [0.4, 0.25, 1, 0]),
}


@pytest.mark.parametrize("labels, probabilities, of_ranks, of_calls", UNDEFINED.values(), ids=UNDEFINED)
def test_degenerate_cases_are_nan_only_where_undefined(labels, probabilities, of_ranks, of_calls):
    summary = metrics.summary(labels, probabilities)
    stacked = metrics.summary(labels, probabilities, weights=np.ones((2, 3, len(labels))))
    names = "accuracy auc aupr f1 precision recall specificity".split()
    for name, expected in zip(names, of_ranks + of_calls, strict=True):
        np.testing.assert_allclose(summary[name], expected, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(stacked[name], np.full((2, 3), expected), atol=1e-12, err_msg=name)


def test_weights_are_repeats():
    rng = np.random.default_rng(1)
    for _ in range(40):
        labels, scores = random_case(rng, 20)
        weights = rng.integers(0, 4, (5, len(labels)))
        weights[0] = 0
        stacked = metrics.flatten(metrics.summary(labels, scores, weights=weights))
        n = stacked.pop("n")
        for b, row in enumerate(weights):
            repeated = metrics.summary(np.repeat(labels, row), np.repeat(scores, row))
            one = {name: values[b] for name, values in stacked.items()}
            assert_equal({"n": n} | one, metrics.flatten(repeated) | {"n": len(labels)})


def test_curves_are_scikit_learns():
    rng = np.random.default_rng(4)
    for _ in range(80):
        labels, scores = (np.r_[some, both] for some, both in zip(random_case(rng), ([0, 1], [0.5, 0.5])))
        weights = rng.integers(1, 4, len(labels))
        fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
        precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores, sample_weight=weights)
        roc, pr = metrics.roc_curve(labels, scores, weights), metrics.precision_recall_curve(labels, scores, weights)
        np.testing.assert_allclose(roc, [fpr, tpr], rtol=0, atol=1e-12)
        np.testing.assert_allclose(pr, [recall[-2::-1], precision[-2::-1]], rtol=0, atol=1e-12)


def test_curves_of_an_absent_class():
    fpr, tpr = metrics.roc_curve([1, 1], [0.2, 0.7])
    recall, _ = metrics.precision_recall_curve([0, 0], [0.2, 0.7])
    assert np.isnan(fpr).all() and np.isnan(recall).all()
    np.testing.assert_array_equal(tpr, [0, 0.5, 1])
    assert np.isnan(metrics.roc_curve([], [])).all() and len(metrics.precision_recall_curve([], [])[0]) == 0
