"""What evaluate.py says of a model and of the images that it was trained on; test_scripts.py runs it whole."""

import argparse
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import refusal

import evaluate
from common import data, files, origin
from common.run import folders, standard


@pytest.fixture
def own(untrained, tmp_path) -> folders.Run:
    """A copy of the untrained ensemble that a test may write to."""
    shutil.copytree(untrained.path, tmp_path / "run")
    return folders.load(tmp_path / "run")


@pytest.fixture
def source(own) -> data.Source:
    return data.find(own.data["name"], None, 28)


def test_other_images_are_judged_by_what_the_model_has_seen(own, onnx_model, source, npz, stored):
    files.write_csv(
        own.path / "predictions.csv", folders.prediction_rows(data.load(source, "val")[0], np.full(12, 0.5))
    )
    other = npz(test_images=np.concatenate([stored["train_images"][:5], stored["test_images"][5:]]))
    evaluated = evaluate.evaluate(own, other, "test", None)
    assert not evaluated.own and evaluated.seen == {"trained_on": 5, "near_duplicates": 0, "unseen": 7}
    assert evaluated.scored.subsets["clean"].tolist() == [False] * 5 + [True] * 7
    scores = {"operating_point": {"splits": {"test": {}}}}
    (note,) = evaluated.notes(scores)
    assert "trained on 5, on near-duplicates of 0 more, and has not seen 7" in note and "flatter" in note
    assert evaluate.evaluate(own, source, "test", None).notes(scores) == []
    for model in (own, onnx_model):
        said = evaluate.evaluate(model, source, "train", None).notes(scores)
        assert "The model was trained on train: these figures flatter it." in said
    (note,) = evaluate.evaluate(own, source, "val", None).notes(scores)
    assert "epoch were chosen on val: these figures flatter it." in note
    gone = replace(own, data=own.data | {"name": "absent.npz"})
    assert "cannot be told" in evaluate.evaluate(gone, other, "test", None).notes(scores)[0]


def test_why_no_clean_images_are_scored_is_said(own, source, npz, stored):
    twins = npz(test_images=stored["train_images"][:12])
    seen = replace(own, data=twins.describe() | {"trained_on": ["train"]})
    (note,) = evaluate.evaluate(seen, twins, "test", None).notes({})
    assert note == "There is no clean_test: each image of test shares a group with one of training or validation."
    untold = replace(own, data=own.data | {"trained_on": ["train", "also"]})
    (note,) = evaluate.evaluate(untold, source, "test", None).notes({})
    assert "which of these images are clean cannot be told" in note


def test_other_data_are_a_note_where_they_are_the_purpose(own, npz, capsys):
    other = npz(test_images=None)
    for kind in ("warning", "note"):
        origin.find_again(own.data, str(other.path), None, None, None, another=kind)
        assert capsys.readouterr().err.startswith(f"{kind}: own.npz 28×28, MD5 {other.md5}, is not what")


def test_another_model_s_predictions_are_taken_in_order_and_only_of_the_same_images(onnx_model, source, tmp_path):
    evaluated, against = evaluate.evaluate(onnx_model, source, "test", None), tmp_path / "other.csv"
    rows = folders.prediction_rows(evaluated.scored.split, expected := np.linspace(0.1, 0.9, 12))
    files.write_csv(against, rows[::-1] + [row | {"split": "val"} for row in rows])
    args = argparse.Namespace(against=str(against))
    assert evaluate.predict_other(evaluated, args).tolist() == expected.tolist()
    files.write_csv(against, rows[1:])
    said = refusal(evaluate.predict_other, evaluated, args)
    assert said == f"--against {against}: its predictions are not of the same images"


def test_out_of_fold_predictions_stand_for_an_ensemble_s_own_images(own, source):
    train, test = data.load(source, "train", "test")
    held_out = np.linspace(0.1, 0.9, 24)
    files.write_csv(own.path / "predictions.csv", folders.prediction_rows(train, held_out, [1, 2] * 12))
    found = evaluate.evaluate(own, source, "train", None)
    assert found.out_of_fold and found.notes({}) == [] and found.scored.probabilities == pytest.approx(held_out)
    assert not found.scored.subsets  # each image was predicted by what has not seen it
    seen = evaluate.evaluate(own, source, "test", None)
    assert not seen.out_of_fold and seen.scored.probabilities == pytest.approx(own.probabilities(test.images))


@pytest.mark.parametrize("dropped", [False, True])
def test_where_test_twins_were_left_out_nothing_is_set_apart_as_clean(own, source, dropped):
    files.write_json(own.path / "metrics.json", {"config": {"drop_test_twins": dropped}, "splits": {}})
    assert ("clean" not in evaluate.evaluate(own, source, "test", None).scored.subsets) == dropped


@pytest.mark.parametrize("synthetic", [False, True])
def test_an_operating_point_is_labelled_by_the_run_s_own_data(own, synthetic, capsys):
    val = data.Split.of("val", np.zeros((4, 28, 28), np.uint8), np.array([1, 0, 1, 0], np.uint8))
    rows = folders.prediction_rows(val, np.array([0.8, 0.1, 0.6, 0.2]))
    files.write_csv(own.path / "predictions.csv", rows)
    own = replace(own, data=own.data | {"synthetic": synthetic})
    evaluate.store_operating_point(evaluate.choose_operating_point(own, 0.9))
    stored = files.read_json(own.path / "calibration.json")
    assert ("synthetic" in stored) == synthetic and stored["threshold"] == pytest.approx(0.4)
    assert stored["temperature"] == own.calibration.temperature
    assert "at least 0.9 on val" in stored["threshold_rule"] and "earlier exports keep" in capsys.readouterr().err


def test_an_operating_point_needs_a_malignant_image(own, source):
    (val,) = data.load(source, "val")
    benign = val[val.labels == 0]
    files.write_csv(own.path / "predictions.csv", folders.prediction_rows(benign, np.full(len(benign), 0.5)))
    assert "holds no malignant image that was held out" in refusal(evaluate.choose_operating_point, own, 0.9)


def test_medmnist_has_the_last_word_before_anything_is_written(own, breastmnist, monkeypatch):
    source = breastmnist(28)
    scored = evaluate.evaluate(own, source, "val", None).scored
    given = scored.labels, scored.probabilities, source, "val", "run"
    name, content = standard.result(*given)
    assert name.startswith("breastmnist_val_[AUC]") and len(content.splitlines()) == 78
    monkeypatch.setattr(standard.metrics, "summary", lambda *_: {"auc": 0.5, "accuracy": 0.5})
    assert "MedMNIST's Evaluator finds" in refusal(standard.result, *given)
