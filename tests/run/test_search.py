"""What may be searched, and which setting is chosen."""

import argparse
import json

import numpy as np
import optuna
import pytest

from common.run import search
from common.settings import check


@pytest.mark.parametrize("name", search.RANGES)
def test_every_range_holds_values_that_the_setting_takes(name):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [search.RANGES[name].suggest(study.ask(), name) for _ in range(50)]
    stored = [check(name, json.loads(json.dumps(value)), "best.json") for value in drawn]
    assert stored == drawn and list(map(type, stored)) == list(map(type, drawn)) and len(set(drawn)) > 1
    assert min(map(search.RANGES[name].complexity, drawn)) >= 0


def test_names_are_put_into_the_order_of_simplicity_and_unknown_ones_refused():
    assert search.names("lr, label-smoothing,wd") == ("wd", "lr", "label_smoothing")
    for text in ("lr,weights", "", "lr,,wd", "patience"):
        with pytest.raises(
            argparse.ArgumentTypeError, match="has no range to search; known are stages, wd, lr, epochs"
        ):
            search.names(text)
    with pytest.raises(argparse.ArgumentTypeError, match="twice"):
        search.names("label-smoothing,lr,label_smoothing")


def test_paired_error_of_two_settings_is_that_of_their_differences():
    scores = np.random.default_rng(0).normal(size=(2, 5))
    difference = scores[0] - scores[1]
    assert search.paired_error(scores) == pytest.approx(difference.std(ddof=1) / np.sqrt(5))


def test_paired_error_leaves_out_how_hard_folds_and_how_good_settings_are():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(9, 3))
    moved = scores + generator.normal(size=(9, 1)) + 10 * generator.normal(size=(1, 3))
    assert search.paired_error(moved) == pytest.approx(search.paired_error(scores))


def test_paired_error_covers_the_difference_as_often_as_it_should():
    """A mean difference of nothing but noise lies within one standard error about 68 % of the time."""
    scores = np.random.default_rng(0).normal(size=(2000, 9, 3)) + np.arange(3)
    within = [abs(s[0].mean() - s[1].mean()) < search.paired_error(s) for s in scores]
    assert 0.62 < np.mean(within) < 0.72


def test_paired_error_needs_two_settings_and_two_folds():
    assert np.isnan(search.paired_error(np.ones((1, 5)))) and np.isnan(search.paired_error(np.ones((5, 1))))


SETTINGS = [{"lr": 1e-3, "wd": 0.01}, {"lr": 1e-3, "wd": 0.1}, {"lr": 1e-4, "wd": 0.1}, {"lr": 1e-5, "wd": 1.0}]


def test_the_largest_decay_then_the_smallest_rate_within_one_error_is_chosen():
    noise = 0.01 * np.array([[1, -1, 0], [-1, 0, 1], [0, 1, -1], [0, 0, 0]])
    scores = np.array([0.900, 0.898, 0.897, 0.700])[:, np.newaxis] + noise
    chosen, best, error = search.choose(SETTINGS, scores)
    assert (chosen, best) == (2, 0) and error == search.paired_error(scores)


def test_a_clear_best_is_chosen():
    scores = np.array([0.9, 0.8, 0.7, 0.6])[:, np.newaxis] + np.array([0.0, 0.1, -0.1])
    assert search.choose(SETTINGS, scores)[:2] == (0, 0)


def test_a_single_setting_is_chosen_without_an_error():
    chosen, best, error = search.choose(SETTINGS[:1], np.array([[0.8, 0.9]]))
    assert (chosen, best) == (0, 0) and np.isnan(error)


def test_parts_that_are_off_are_simpler():
    simple = {"stages": 2, "loss": "cross-entropy", "mixup": 0.0, "batch_size": 128}
    for name, other in (("stages", 3), ("loss", "focal"), ("mixup", 0.4), ("batch_size", 32)):
        assert search.complexity(simple) < search.complexity(simple | {name: other})
