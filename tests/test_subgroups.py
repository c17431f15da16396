from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from scipy import stats

from common import data, metrics, scoring, subgroups
from common.calibration import Calibration
from common.scoring import Scored


def scored(sizes: dict[str, tuple[int, int]], shift: dict[str, float], column: str = "device") -> Scored:
    """Predictions of a subgroup for each (malignant, benign); shift: how far apart its classes are."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat([1, 0], size) for size in sizes.values()])
    values = np.repeat(list(sizes), [sum(size) for size in sizes.values()])
    apart = labels * np.array([shift.get(value, 2.0) for value in values])
    images = data.of_arrays(np.zeros((len(labels), 28, 28), np.uint8), labels, "test", "phantom")
    probabilities = 1 / (1 + np.exp(1 - apart - rng.normal(size=len(labels))))
    subsets = {f"{column} {value}": values == value for value in sizes}
    return Scored("test", images, probabilities, np.arange(len(labels)), subsets)


def evaluated(one: Scored, column: str = "device", threshold: float = 0.3) -> list[dict]:
    """The "results", as evaluate.py has them with --by."""
    results = scoring.score_parts([one], Calibration(threshold=threshold), 100)
    start = f"{column} "
    return [
        entry | ({"by": {column: entry["subset"].removeprefix(start)}} if entry["subset"].startswith(start) else {})
        for entry in results
    ]


def compared(one: Scored, column: str = "device") -> dict:
    values = {name.removeprefix(f"{column} "): of for name, of in one.subsets.items()}
    return subgroups.compare(one.labels, one.probabilities, one.groups, values, column, 200)


def test_auc_variance_is_that_of_hanley_and_mcneil_by_hand():
    """At 0.5: Q1 = 1/3 and Q2 = 1/3."""
    expected = (0.25 + 9 * (1 / 3 - 1 / 4) + 19 * (1 / 3 - 1 / 4)) / 200
    assert subgroups.auc_variance(0.5, 10, 20) == pytest.approx(expected)


def test_heterogeneity_is_cochrans_q_where_the_bootstrap_agrees_with_hanley_and_mcneil():
    areas, sizes = np.array([0.8, 0.85, 0.95]), np.array([(30, 60), (40, 40), (50, 90)])
    weights = [a * b / (a + b) for a, b in sizes]
    common = sum(w * area for w, area in zip(weights, areas)) / sum(weights)
    variances = [subgroups.auc_variance(common, a, b) for a, b in sizes]
    mean = sum(area / v for area, v in zip(areas, variances)) / sum(1 / v for v in variances)
    expected = sum((area - mean) ** 2 / v for area, v in zip(areas, variances))
    statistic, p = subgroups.heterogeneity(areas, variances, sizes)
    assert statistic == pytest.approx(expected) and p == pytest.approx(stats.chi2.sf(expected, 2))
    assert subgroups.heterogeneity(areas, 2 * np.array(variances), sizes)[0] == pytest.approx(expected / 2)


def test_a_small_subgroup_without_bootstrap_variance_is_no_alarm():
    """Ten malignant images that score above all benign ones: no resample differs, and 1 / variance is infinite."""
    assert subgroups.heterogeneity([1.0, 0.95], [0, 0.0002], [(10, 20), (100, 300)])[1] > 0.1


def test_heterogeneity_at_its_limits():
    assert subgroups.heterogeneity([1.0, 1.0], [0, 0], [(10, 20), (10, 20)]) == (0, 1)
    assert subgroups.heterogeneity([1.0, 0.0], [0, 0], [(10, 20), (10, 20)]) == (np.inf, 0)


def test_p_values_of_equal_aucs_are_about_uniform():
    """A small and a large subgroup with an AUC of 0.9, 400 times: at 5 %, the test finds a difference in some 5 %."""
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        areas, variances, sizes = [], [], [(10, 20), (60, 150)]
        for malignant, benign in sizes:
            wins = rng.normal(1.81, 1, malignant)[:, None] > rng.normal(0, 1, benign)
            areas.append(wins.mean())
            variances.append(
                wins.mean(1).var() / malignant + wins.mean(0).var() / benign
            )  # DeLong's, as the bootstrap's
        found.append(subgroups.heterogeneity(areas, variances, sizes)[1])
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.08


def test_a_difference_is_found_and_said():
    found = compared(scored({"A": (60, 100), "B": (60, 100)}, {"A": 3.5, "B": 0.5}))
    assert found["conclusion"] == "AUC differs between the 2 values of device (p < 0.001)."
    assert found["compared"] == ["A", "B"] and found["degrees_of_freedom"] == 1
    assert found["p"] == pytest.approx(stats.chi2.sf(found["statistic"], 1), rel=1e-10)


def test_no_difference_between_those_with_enough_images_of_a_known_value():
    found = compared(
        scored({"A": (10, 30), "B": (40, 10), "C": (9, 80), "unknown": (50, 50)}, {"C": -3, "unknown": -3})
    )
    said = "No difference in AUC can be shown between 2 of the 3 values of device (p = "
    assert found["compared"] == ["A", "B"] and found["conclusion"].startswith(said) and found["p"] > 0.05


@pytest.mark.parametrize("sizes", [{"A": (40, 40)}, {"A": (40, 40), "B": (9, 40)}, {"A": (0, 40), "B": (40, 0)}, {}])
def test_fewer_than_two_with_enough_images_are_not_compared(sizes):
    one = scored(sizes | {"unknown": (20, 20)}, {})
    found = compared(one)
    why = "fewer than two values have 10 images of each class (images of one patient count once)."
    assert found["conclusion"] == f"The values of device cannot be compared, because {why}"
    assert isnan(found["p"]) and isnan(found["statistic"])


def test_images_of_one_patient_count_once():
    one = scored({"A": (40, 40), "B": (12, 40)}, {})
    groups = np.where(one.subsets["device B"] & (one.labels == 1), 1000 + one.groups // 2, one.groups)
    assert compared(one)["compared"] == ["A", "B"]
    assert compared(replace(one, groups=groups))["compared"] == ["A"]


def test_a_group_in_two_values_prevents_the_test():
    one = scored({"A": (20, 20), "B": (20, 20), "C": (2, 20)}, {})
    groups = one.groups.copy()
    groups[np.flatnonzero(one.subsets["device C"])[0]] = 0  # C is not compared: its images do not matter
    assert not isnan(compared(replace(one, groups=groups))["p"])
    groups[np.flatnonzero(one.subsets["device B"])[0]] = 0
    found = compared(replace(one, groups=groups))
    assert isnan(found["p"]) and found["conclusion"] == (
        "AUC cannot be compared between 2 of the 3 values of device, because "
        "patients or near-duplicates have images of more than one value (1 in all)."
    )


def test_rows_are_all_images_and_each_value_at_the_operating_point():
    one = scored({"A": (20, 30), "B": (4, 30), "unknown": (0, 12)}, {"A": 1})
    results = evaluated(replace(one, subsets=one.subsets | {"clean": one.labels == 0}))
    found = subgroups.rows(results, replace(one, subsets=one.subsets | {"clean": one.labels == 0}), "device")
    assert [(row["value"], row["n"], row["malignant"], row["too_few"]) for row in found] == [
        ("all images", 96, 24, False), ("A", 50, 20, False), ("B", 34, 4, True), ("unknown", 12, 0, True)
    ]  # fmt: skip
    of = one.subsets["device A"]
    assert found[1]["auc"] == pytest.approx(metrics.auc(one.labels[of], one.probabilities[of]))
    assert found[1]["recall"] == pytest.approx((one.probabilities[of & (one.labels == 1)] >= 0.3).mean())
    assert found[1]["threshold"] == 0.3 and isnan(found[3]["auc"])


def test_rows_are_of_the_predictions_that_came_first_not_of_given_boxes():
    one = scored({"A": (20, 30), "B": (14, 30)}, {})
    found, given = (evaluated(replace(one, boxes=name)) for name in ("found", "given"))
    assert subgroups.rows(found + given, one, "device") == subgroups.rows(found, one, "device")


def test_a_rate_of_0_or_1_has_an_exact_interval():
    """With a threshold of 0 all images are flagged; of 10 malignant ones, in 5 groups, that shows 0.478 (scipy)."""
    one = scored({"A": (10, 30)}, {})
    one = replace(one, groups=np.where(one.labels == 1, 1000 + one.groups // 2, one.groups))
    row = subgroups.rows(evaluated(one, threshold=0.0), one, "device")[1]
    exact = stats.binomtest(5, 5).proportion_ci(0.95, "exact")
    assert row["recall"] == 1 and row["recall_ci95"] == pytest.approx([exact.low, 1]) and exact.low < 0.48
    exact = stats.binomtest(0, 30).proportion_ci(0.95, "exact")
    assert row["specificity"] == 0 and row["specificity_ci95"] == pytest.approx([0, exact.high])


def test_values_are_found_in_the_results():
    one = scored({"A": (3, 3), "B": (2, 5)}, {})
    found = subgroups.of_values(evaluated(one), one, "device")
    assert list(found) == ["A", "B"] and found["B"].tolist() == one.subsets["device B"].tolist()
