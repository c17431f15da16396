"""What evaluate.py says of a model and of the images that it was trained on; test_scripts.py runs it whole."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import evaluate
from common import data, files
from common.run import folders


@pytest.fixture
def own(untrained, tmp_path) -> folders.Run:
    """A copy of the untrained ensemble that a test may write to."""
    shutil.copytree(untrained.path, tmp_path / "run")
    return folders.load(tmp_path / "run")


@pytest.fixture
def source(own) -> data.Source:
    return data.find(own.data["name"], None, 28)


def test_images_are_known_at_any_size():
    official = {
        size: data.Source("breastmnist", size, evaluate.Path("x"), md5) for size, md5 in data.OFFICIAL_MD5.items()
    }
    phantoms = {(size, seed): data.find("phantom", None, size, seed) for size in (28, 64) for seed in (0, 1)}
    assert data.same_images(official[28].describe(), official[128])
    assert data.same_images(phantoms[28, 0].describe(), phantoms[64, 0])
    assert not data.same_images(phantoms[28, 0].describe(), phantoms[28, 1])
    assert not data.same_images(official[28].describe(), replace(official[64], md5="of another file"))
    assert not data.same_images(official[28].describe(), phantoms[28, 0])


def test_a_model_warns_of_images_that_it_was_trained_on_at_another_size(own, phantoms, capsys):
    seen = replace(own, data=own.data | {"md5": data.OFFICIAL_MD5[28]})
    at_64 = data.Source("breastmnist", 64, None, data.OFFICIAL_MD5[64])
    for name, warned in (("train", True), ("test", False)):
        _, out_of_fold = evaluate.predict(seen, at_64, phantoms, name)
        assert not out_of_fold and ("was trained on train" in capsys.readouterr().err) == warned


def test_out_of_fold_predictions_stand_for_the_images_of_an_ensemble(own, source):
    (train,) = data.load(source, "train")
    probabilities = np.linspace(0.1, 0.9, len(train))
    rows = folders.prediction_rows("train", train.labels, probabilities, fold=[1] * len(train))
    files.write_csv(own.path / "predictions.csv", rows)
    evaluated = evaluate.evaluate(own, source, "train")
    assert evaluated.out_of_fold and evaluated.scored.clean is None
    np.testing.assert_array_equal(evaluated.scored.probabilities, probabilities)
    assert not evaluate.evaluate(own, source, "test").out_of_fold


@pytest.mark.parametrize("dropped", [False, True])
def test_where_test_twins_were_left_out_nothing_is_set_apart_as_clean(own, source, dropped):
    files.write_json(own.path / "metrics.json", {"config": {"drop_test_twins": dropped}, "splits": {}})
    assert (evaluate.evaluate(own, source, "test").scored.clean is None) == dropped


@pytest.mark.parametrize("synthetic", [False, True])
def test_an_operating_point_is_labelled_by_the_run_s_own_data(own, synthetic, capsys):
    rows = folders.prediction_rows("val", np.array([1, 0, 1, 0]), np.array([0.8, 0.1, 0.6, 0.2]))
    files.write_csv(own.path / "predictions.csv", rows)
    own = replace(own, data=own.data | {"synthetic": synthetic})
    evaluate.store_operating_point(evaluate.choose_operating_point(own, 0.9))
    stored = files.read_json(own.path / "calibration.json")
    assert ("synthetic" in stored) == synthetic and stored["threshold"] == pytest.approx(0.4)
    assert "at least 0.9 on val" in stored["threshold_rule"] and "earlier exports keep" in capsys.readouterr().err


def test_medmnist_has_the_last_word_before_anything_is_written(own, breastmnist_root, monkeypatch):
    source = data.find("breastmnist", str(breastmnist_root), 28)
    evaluated = evaluate.evaluate(own, source, "val")
    name, content = evaluate.standard_result(evaluated, "run")
    assert name.startswith("breastmnist_val_[AUC]") and len(content.splitlines()) == 78
    monkeypatch.setattr(evaluate.metrics, "summary", lambda *_: {"auc": 0.5, "accuracy": 0.5})
    with pytest.raises(evaluate.UserError, match="MedMNIST's Evaluator finds"):
        evaluate.standard_result(evaluated, "run")
