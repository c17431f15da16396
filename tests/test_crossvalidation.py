from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from common import crossvalidation, training
from common.model import Predictor, predict
from common.settings import Settings


@pytest.fixture(scope="module")
def validated(phantoms) -> tuple[Settings, crossvalidation.CrossValidation]:
    """Two folds and the refit model of 48 phantoms, one epoch each."""
    settings = Settings(weights="none", stages=2, epochs=1, batch_size=16)
    how = settings, 2, 1, 5, 1, 1, "cpu"
    return settings, crossvalidation.cross_validate(phantoms, "twins", *how, refit=True)


def test_each_image_is_scored_by_the_model_that_has_not_seen_it(phantoms, validated):
    settings, result = validated
    assert sorted(np.unique(result.fold)) == [0, 1] and result.logits.shape == (1, len(phantoms))
    for i, model in enumerate(result.models):
        unseen = result.fold[0] == i
        expected = predict(Predictor([model], mirror=True), phantoms.images[unseen])
        np.testing.assert_allclose(result.logits[0, unseen], expected, atol=1e-5)


def test_the_refit_model_is_trained_on_all_images_and_changes_no_fold(phantoms, validated):
    settings, result = validated
    expected = training.fit(phantoms, None, settings, 5 + 2, torch.device("cpu")).model.state_dict()
    for name, tensor in result.refit.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    alone = crossvalidation.cross_validate(phantoms, "twins", settings, 2, 1, 5, 1, 1, "cpu")
    assert alone.refit is None and len(alone.models) == len(result.models) == 2
    np.testing.assert_array_equal(alone.logits, result.logits)


def test_repeats_use_other_folds_and_number_their_models_on(phantoms, validated):
    settings = replace(validated[0], augment=False)
    result = crossvalidation.cross_validate(phantoms, "none", settings, 2, 2, 5, 1, 1, "cpu")
    assert len(result.models) == 4 and set(result.fold[0]) == {0, 1} and set(result.fold[1]) == {2, 3}
    assert (result.fold[0] + 2 != result.fold[1]).any()
    assert [fold["fold"] for fold in result.score_folds(phantoms.labels)] == [1, 2, 3, 4]
    repeats = result.score_repeats(phantoms.labels)
    assert [repeat["repeat"] for repeat in repeats] == [1, 2]
    for repeat, logits in zip(repeats, result.logits):
        assert repeat["auc"] == pytest.approx(roc_auc_score(phantoms.labels, logits))
