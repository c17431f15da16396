"""Rules that choose a threshold, held to a search over every possible one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.thresholds import RULES, Rule

CASES = st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=30)


def rates(labels, probabilities, threshold: float) -> dict[str, float]:
    """What a threshold gives, by counting."""
    flagged = probabilities >= threshold
    return {
        "sensitivity": flagged[labels].mean(),
        "specificity": (~flagged[~labels]).mean(),
        "flag-rate": flagged.mean(),
    }


@given(CASES, st.sampled_from([0.2, 0.5, 0.95, 1.0]), st.sampled_from(sorted(RULES)))
def test_a_rule_gives_the_best_of_all_thresholds_that_keep_it(cases, value, kind):
    labels, probabilities = np.array([c[0] for c in cases]), np.array([c[1] / 13 for c in cases])
    if labels.all() or not labels.any():
        return
    possible = [-1.0, *(np.unique(probabilities) + 1 / 26), 2.0]  # one between each two
    kept = [rates(labels, probabilities, t) for t in possible]
    if kind == "flag-rate":
        kept = [found for found in kept if found[kind] <= value + 1e-12]
        best = max(found[kind] for found in kept)
    else:
        kept = [found for found in kept if found[kind] >= value - 1e-12]
        best = min(found[kind] for found in kept)
    threshold = Rule(kind, value).threshold(labels, probabilities)
    found = rates(labels, probabilities, threshold)
    assert 0 <= threshold <= 1 and found[kind] == pytest.approx(best)


def test_a_threshold_lies_midway_between_two_probabilities():
    labels, probabilities = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.6, 0.5, 0.3, 0.1])
    assert Rule("sensitivity", 0.95).threshold(labels, probabilities) == pytest.approx(0.55)
    assert Rule("specificity", 0.6).threshold(labels, probabilities) == pytest.approx(0.4)
    assert Rule("flag-rate", 0.4).threshold(labels, probabilities) == pytest.approx(0.55)
    assert "0.95 on 5 images of A" in Rule("sensitivity", 0.95).describe("5 images of A")


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("value", [0, -1, 1.1, np.nan])
def test_a_share_outside_0_to_1_has_no_threshold(kind, value):
    with pytest.raises(ValueError):
        Rule(kind, value).threshold([0, 1], [0.2, 0.8])
