import json

import numpy as np
import pytest
from common_fixtures import summary_with_intervals
from scipy.stats import beta, binomtest

from common import intervals, metrics

NAN = np.nan
RNG = np.random.default_rng(0)
LABELS = (RNG.random(80) < 0.3).astype(int)
PROBABILITIES = np.round(1 / (1 + np.exp(-1.5 * LABELS + 0.7 - RNG.normal(size=80))), 2)


@pytest.mark.parametrize("labels", [LABELS, [0, 1, 0], [1, 1], [0], []])
def test_each_class_keeps_its_count(labels):
    labels = np.array(labels, int)
    counts = intervals.resample_counts(labels, resamples=50)
    assert counts.shape == (50, len(labels)) and (counts == counts.round()).all()
    for c in (0, 1):
        assert (counts[:, labels == c].sum(1) == (labels == c).sum()).all()
    assert (counts == intervals.resample_counts(labels, resamples=50)).all()  # the seed's
    assert len(labels) < 80 or (counts != intervals.resample_counts(labels, None, 50, seed=1)).any()


GROUPS = RNG.integers(0, 30, len(LABELS))  # of 80 cases; most hold both classes


def test_groups_are_drawn_whole_and_each_class_keeps_its_number_of_them():
    counts = intervals.resample_counts(LABELS, GROUPS, 500)
    names, first = np.unique(GROUPS, return_index=True)
    assert all((counts[:, GROUPS == g] == counts[:, [i]]).all() for g, i in zip(names, first))
    malignant = np.array([LABELS[GROUPS == g].any() for g in names])
    for members in (first[malignant], first[~malignant]):
        assert (counts[:, members].sum(1) == len(members)).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.2)


def test_the_names_of_groups_decide_nothing():
    counts = intervals.resample_counts(LABELS, GROUPS, 100)
    assert np.array_equal(counts, intervals.resample_counts(LABELS, 99 - GROUPS, 100))


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["cases", "groups"])
def test_every_metric_has_the_percentiles_of_a_plain_loop_beside_it(groups):
    counts = intervals.resample_counts(LABELS, groups, 200, 3)
    summary = summary_with_intervals(LABELS, PROBABILITIES, counts, 0.4)
    values = metrics.flatten(metrics.summary(LABELS, PROBABILITIES, 0.4))
    copies = [(np.repeat(LABELS, row), np.repeat(PROBABILITIES, row)) for row in counts]
    resampled = [metrics.flatten(metrics.summary(*copy, 0.4)) for copy in copies]
    found = metrics.flatten(summary)
    assert found.keys() == {*values, *(f"{name}_ci95" for name in values if name != "n")}
    for name, value in values.items():
        assert found[name] == value
        if name != "n":
            expected = np.nanpercentile([one[name] for one in resampled], [2.5, 97.5])
            np.testing.assert_allclose(found[f"{name}_ci95"], expected, atol=1e-12)
    assert json.loads(json.dumps(summary)) == summary


def test_undefined_resamples_are_left_out_and_an_undefined_value_has_no_interval():
    assert intervals.percentile_interval(0.5, np.array([NAN, 0.5, 0.5])) == [0.5, 0.5]
    for value, resampled in ((0.5, [NAN]), (NAN, [0.5]), (NAN, [])):
        assert np.isnan(intervals.percentile_interval(value, np.array(resampled))).all()


def test_beta_quantiles_are_scipys():
    rng = np.random.default_rng(0)
    for a, b in [(16, 1), (0.5, 20), (95.3, 5.7), (3, 3), *rng.uniform(0.2, 300, (20, 2))]:
        for share in (0.025, 0.5, 0.975):
            assert intervals.beta_quantile(share, a, b) == pytest.approx(beta.ppf(share, a, b), abs=1e-9)


def test_clopper_pearson_is_scipys():
    for successes, n in ((0, 10), (10, 10), (1, 3), (37, 120)):
        expected = binomtest(successes, n).proportion_ci(method="exact")
        assert intervals.clopper_pearson(successes, n) == pytest.approx(tuple(expected), abs=1e-9)


def test_new_cases_beyond_a_placed_threshold_are_in_the_interval_as_often_as_it_says():
    rng = np.random.default_rng(1)
    scores = np.sort(rng.random((2000, 30)))[:, 1]  # 29 of 30 lie beyond it
    low, high = intervals.order_interval(29, 30)
    assert np.mean((low <= 1 - scores) & (1 - scores <= high)) == pytest.approx(0.95, abs=0.015)


def test_cases_in_groups_are_worth_fewer():
    assert intervals.effective_number([1, 2, 3, 4]) == 4
    assert intervals.effective_number([1, 1, 2, 2]) == 2
    assert intervals.effective_number([1, 1, 1, 2]) == pytest.approx(1.6)


def test_bands_are_the_percentiles_of_the_curves_of_a_plain_loop():
    counts, grid, roc, precision_recall = intervals.resample_counts(LABELS, resamples=50), np.arange(101) / 100, [], []
    for row in counts:
        copy = np.repeat(LABELS, row), np.repeat(PROBABILITIES, row)
        roc.append(np.interp(grid, *metrics.roc_curve(*copy)))
        recall, precision = metrics.precision_recall_curve(*copy)
        precision_recall.append([precision[(recall >= r) & (recall > 0)][0] for r in grid])
    for band, curves in ((intervals.roc_band, roc), (intervals.precision_recall_band, precision_recall)):
        found, *limits = band(LABELS, PROBABILITIES, counts)
        np.testing.assert_array_equal(found, grid)
        np.testing.assert_allclose(limits, np.percentile(curves, [2.5, 97.5], axis=0), atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_bands_of_an_absent_class(labels):
    counts = intervals.resample_counts(labels, resamples=5)
    assert np.isnan(intervals.roc_band(labels, [0.1, 0.2, 0.2], counts)[1]).all()
    low = intervals.precision_recall_band(labels, [0.1, 0.2, 0.2], counts)[1]
    assert np.isnan(low).all() if not any(labels) else (low == 1).all()


@pytest.mark.parametrize("values, expected", [([1, NAN, 3], (2, 2**0.5)), ([0.7, NAN], (0.7, NAN)), ([], (NAN, NAN))])
def test_mean_std(values, expected):
    np.testing.assert_allclose(intervals.mean_std(values), expected, atol=1e-12)


def test_a_rate_of_0_or_1_has_an_exact_interval_over_groups():
    labels, flagged = np.array([1] * 10 + [0] * 20), np.array([True] * 10 + [False] * 15 + [True] * 5)
    groups = np.array([*np.arange(10) // 2, *range(10, 30)])
    scores = summary_with_intervals(labels, flagged * 1.0, intervals.resample_counts(labels, groups, 50))
    assert scores["recall_ci95"] == scores["benign"]["precision_ci95"] == [1, 1]
    exact = intervals.exact_at_the_edge(scores, labels, flagged, groups)
    assert exact["recall_ci95"] == pytest.approx([binomtest(5, 5).proportion_ci(0.95, "exact").low, 1])
    assert exact["benign"]["precision_ci95"] == pytest.approx([binomtest(15, 15).proportion_ci(0.95, "exact").low, 1])
    assert exact["benign"]["recall_ci95"] == scores["benign"]["recall_ci95"]  # 15 of 20
    assert {name for name in scores if exact[name] != scores[name]} == {"recall_ci95", "benign"}
