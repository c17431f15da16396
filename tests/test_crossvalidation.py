from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

import crossval
from common import crossvalidation, data, looks, parallel, training
from common.crossvalidation import Scheme, cross_validate
from common.errors import UserError
from common.folds import assign_folds
from common.model import Predictor, predict
from common.settings import Settings

CPU = torch.device("cpu")
SETTINGS = Settings(weights="none", stages=2, epochs=1, batch_size=16)
SCHEME = Scheme("patient", folds=2, repeats=2, seed=5, refit=1, jobs=1, threads=1, device=CPU)


def counts(labels, fold, folds) -> np.ndarray:
    """[folds, 2]: images of class 0 and 1 in each fold."""
    return np.stack([np.bincount(fold[labels == c], minlength=folds) for c in (0, 1)], 1)


def random_case(seed: int, n: int = 300, largest: int = 8):
    """Labels, a quarter malignant, and groups of 1 to `largest` images, mostly of one class."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), rng.integers(1, largest + 1, n) ** rng.integers(0, 2, n))[:n]
    labels = (rng.random(n) < 0.25)[groups] ^ (rng.random(n) < 0.05)
    shuffled = rng.permutation(n)
    return labels[shuffled].astype(np.uint8), 7 * groups[shuffled] + 3  # names of groups are not indices


@pytest.mark.parametrize("folds", [2, 5, 10])
@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_folds_are_balanced_in_class_and_size(seed, folds):
    labels, groups = random_case(seed)
    fold = assign_folds(labels, groups, folds, seed)
    assert fold.shape == labels.shape and set(fold) == set(range(folds))
    assert all(len(set(fold[groups == g])) == 1 for g in groups)
    per_class = counts(labels, fold, folds)
    assert np.ptp(per_class, axis=0).max() <= 2 and np.ptp(per_class.sum(1)) <= 3


@pytest.mark.parametrize("folds, malignant, benign", [(5, 147, 399), (3, 10, 20), (7, 7, 50), (2, 3, 3), (9, 99, 456)])
def test_without_groups_class_counts_are_scikit_learns(folds, malignant, benign):
    labels = np.random.default_rng(0).permutation(np.repeat([1, 0], [malignant, benign]))
    fold = assign_folds(labels, np.arange(len(labels)), folds, seed=1)
    expected = np.empty(len(labels), int)
    for i, (_, held_out) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=1).split(labels, labels)):
        expected[held_out] = i
    for c in (0, 1):
        ours, theirs = counts(labels, fold, folds)[:, c], counts(labels, expected, folds)[:, c]
        assert sorted(ours) == sorted(theirs)


def test_the_seed_decides():
    labels, groups = random_case(0)
    first, again, other = (assign_folds(labels, groups, 5, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and (first != other).mean() > 0.5


TOO_FEW = {  # labels, groups, folds; the fewest separate images of a class
    "few malignant": ([0] * 20 + [1] * 4, range(24), 5, 4),
    "few benign": ([1] * 20 + [0] * 2, range(22), 3, 2),
    "one class": ([0] * 20, range(20), 2, 0),
    "many images, few groups": ([0] * 20 + [1] * 6, [*range(20), 20, 20, 20, 20, 20, 21], 3, 2),
    "no images": ([], [], 2, 0),
}


@pytest.mark.parametrize("labels, groups, folds, fewest", TOO_FEW.values(), ids=TOO_FEW)
def test_too_few_separate_images_of_a_class(labels, groups, folds, fewest):
    with pytest.raises(UserError, match=f"{folds} folds need .* there are {fewest}"):
        assign_folds(np.array(labels, int), np.array(groups, int), folds, 0)


def test_as_many_groups_as_folds_is_enough():
    labels, groups = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 2, 3, 3, 4, 5])
    fold = assign_folds(labels, groups, 3, 0)
    assert (counts(labels, fold, 3)[:, 1] > 0).all() and fold[3] == fold[4]


# models


JOBS = {  # flags, and how many models are trained at once
    "--folds 4 --threads 9": 4,
    "--folds 4 --repeats 2 --threads 9": 8,
    "--folds 4 --refit 2 --threads 9": 6,
    "--folds 9 --threads 3": 3,
    "--folds 2 --threads 3 --jobs 5": 5,
}


@pytest.mark.parametrize("flags", JOBS)
def test_as_many_models_are_trained_at_once_as_there_are_threads_or_models(flags, npz, tmp_path, runs, monkeypatch):
    def stop(function, tasks, jobs, begin):
        raise UserError(f"{jobs} at once")

    monkeypatch.setattr(parallel, "run", stop)
    words = ["--data", npz().paths[0], "--weights", "none", "--out", tmp_path / "run", *flags.split()]
    assert f"error: {JOBS[flags]} at once\n" in runs("crossval.py", *words, status=2)[1]


def test_the_seed_of_a_model_is_a_seed_sequence_s_and_no_other_cross_validation_s():
    assert crossvalidation.model_seed(7, 3) == np.random.SeedSequence([7, 3]).generate_state(1)[0]
    seeds = [crossvalidation.model_seed(seed, i) for seed in range(20) for i in range(50)]
    assert len(set(seeds)) == len(seeds)


@pytest.fixture(scope="module")
def result(phantoms) -> crossvalidation.CrossValidation:
    """Two folds, twice over, and the refit model of 48 phantoms."""
    return crossvalidation.cross_validate(phantoms, SETTINGS, SCHEME)


def test_repeats_use_other_folds_and_number_their_models_on(phantoms, result):
    assert len(result.models) == 4 and set(result.fold[0]) == {0, 1} and set(result.fold[1]) == {2, 3}
    assert (result.fold[0] + 2 != result.fold[1]).any()
    folds = result.score_folds(phantoms)
    assert [fold["fold"] for fold in folds] == [1, 2, 3, 4] and {fold["hospital"] for fold in folds} == {"phantom"}
    repeats = result.score_repeats(phantoms.labels)
    assert [repeat["repeat"] for repeat in repeats] == [1, 2]
    for repeat, logits in zip(repeats, result.logits):
        assert repeat["auc"] == pytest.approx(roc_auc_score(phantoms.labels, logits))


def test_each_image_is_scored_by_the_model_that_has_not_seen_it(phantoms, result):
    assert result.logits.shape == result.fold.shape == (2, len(phantoms))
    for i, model in enumerate(result.models):
        unseen = result.fold[i // 2] == i
        expected = predict(Predictor([model], mirror=True), phantoms.pixels[unseen])
        np.testing.assert_allclose(result.logits[i // 2, unseen], expected, atol=1e-5)


def test_the_refit_model_is_trained_on_all_images_and_changes_no_fold(phantoms, result):
    expected = training.fit(phantoms, None, SETTINGS, crossvalidation.model_seed(5, 4), CPU).model.state_dict()
    for name, tensor in result.refit[0].state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    alone = crossvalidation.cross_validate(phantoms, SETTINGS, replace(SCHEME, refit=0))
    assert not alone.refit and len(alone.models) == 4
    np.testing.assert_array_equal(alone.logits, result.logits)


def test_in_the_view_lesion_given_boxes_are_scored_too(framed, finding, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *_: training.Fit(finding.predictor.members[0]))
    settings, scheme = replace(SETTINGS, view="lesion"), replace(SCHEME, groups="image", repeats=1, refit=0)
    found = cross_validate(framed, settings, scheme)
    at_boxes, boxed = found.look_at_boxes(framed, SETTINGS.mirror), framed.boxed
    for values, given, of in ((found.mean_logits, False, slice(None)), (at_boxes, True, boxed)):
        expected, _ = looks.find_and_predict(finding.predictor, framed, given)
        np.testing.assert_allclose(values, expected[of], atol=1e-5)
    assert (at_boxes != found.mean_logits[boxed]).all()
    args = Namespace(groups="image", sensitivity=0.95, no_test=True, pool="train+val")
    _, scored, *_ = crossval.score(found, framed, data.find(["phantom"], None, 28), settings, args)
    assert [(one.boxes, len(one.labels)) for one in scored] == [("found", 6), ("given", 4)]
