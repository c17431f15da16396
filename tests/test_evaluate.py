"""evaluate.py on runs and .onnx files: which predictions are taken, what is said of them, what a comparison reads.

test_evaluation.py has what a model has seen; test_scripts.py runs the script whole."""

import json
import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from common_fixtures import with_metadata
from conftest import REPO, read_csv, refusal

import evaluate
from common import data, evaluation, files, fingerprints, scoring
from common.deploy import onnxfile
from common.images import of_pixels
from common.run import folders, standard


@pytest.fixture
def own(untrained, tmp_path) -> folders.Run:
    """A copy of the untrained ensemble that a test may write to."""
    shutil.copytree(untrained.path, tmp_path / "run")
    return folders.load(tmp_path / "run")


@pytest.fixture
def parsed(monkeypatch):
    """A function that gives evaluate.py's arguments."""

    def parse(*words) -> Namespace:
        monkeypatch.setattr(
            sys, "argv", ["evaluate.py", "RUN", "--threads", "1", "--bootstrap", "100", *map(str, words)]
        )
        return evaluate.parse_args()

    return parse


def load(model, parsed, split: str, *words) -> data.Images:
    return evaluate.load_images(evaluate.find_images(model, model.view, parsed(*words, "--split", split)), split)


@pytest.fixture
def folded(own, parsed) -> folders.Run:
    """`own` as a run of crossval.py: its training images are predicted out of fold, test by the ensemble."""
    train, test = (load(own, parsed, split) for split in ("train", "test"))
    rows = folders.prediction_rows(train, np.linspace(0.1, 0.9, 24), [1, 2] * 12)
    rows += folders.prediction_rows(test, np.linspace(0.2, 0.3, 12), [""] * 12)
    files.write_csv(own.path / "predictions.csv", rows)
    metrics = files.read_json(own.path / "metrics.json")
    files.write_json(own.path / "metrics.json", metrics | {"config": {"groups": "hospital"}})
    return own


def test_a_run_has_stored_predictions_of_its_own_images_and_makes_those_of_others(folded, parsed, npz, stored):
    held_out = np.linspace(0.1, 0.9, 24).tolist()
    train, test, both = (load(folded, parsed, split) for split in ("train", "test", "all"))
    found = evaluate.predict(folded, train)
    assert found.probabilities.tolist() == held_out and found.out_of_fold.all()
    assert found.how == "out-of-fold predictions"
    scored = evaluation.add_subsets(found, "train")
    notes = evaluate.notes_of(folded, evaluate.find_images(folded, "square", parsed()), scored, found, [])
    assert notes[0].endswith("models that were not trained on any image of the same hospital.")
    found = evaluate.predict(folded, test)
    assert not found.out_of_fold.any() and found.probabilities.tolist() == np.linspace(0.2, 0.3, 12).tolist()
    found = evaluate.predict(folded, both)  # train, val, test
    assert found.out_of_fold.tolist() == [True] * 24 + [False] * 24 and found.probabilities[:24].tolist() == held_out
    assert np.array_equal(found.probabilities[24:36], folded.answer(both[24:36]).probabilities)

    shutil.copy(npz().sets[0].spec, folded.path / "renamed.npz")
    again = evaluate.predict(folded, load(folded, parsed, "train", "--data", folded.path / "renamed.npz"))
    assert again.probabilities.tolist() == held_out
    other = npz(train_images=stored["train_images"][:, ::-1])  # the same names and labels, other pictures
    foreign = evaluate.predict(folded, load(folded, parsed, "train", "--data", other.sets[0].spec))
    assert not foreign.out_of_fold.any() and "trained on" not in foreign.seen.kinds
    large = of_pixels(train.pixels.repeat(2, 1).repeat(2, 2), train.table)
    assert "takes images of 28×28, not 56×56. Give --size 28." in refusal(evaluate.predict, folded, large)


def test_a_run_s_own_images_are_those_of_its_table_and_a_file_s_those_of_its_fingerprints(own, onnx_model, parsed):
    for split, kind, trained_on, chose in (
        ("train", "trained on", True, False),
        ("val", "chose", False, True),
        ("test", "unseen", False, False),
    ):
        for model in (own, onnx_model):
            scored = evaluation.add_subsets(found := evaluate.predict(model, load(model, parsed, split)), split)
            assert set(found.seen.kinds) == {kind} and scored.chose == ("epoch", "calibration", "threshold")
            assert (np.all(scored.trained_on), np.any(scored.trained_on)) == (trained_on, trained_on)
            assert (np.all(scored.choosing), np.any(scored.choosing)) == (chose, chose)
            assert ("clean" in scored.subsets) == (model is own or split != "test")


def test_rows_of_predictions_say_what_is_known_of_each_image(own, onnx_model, parsed):
    test = load(own, parsed, "test")
    test.table["patient"] = [f"p{i}" for i in range(12)]
    names = ["split", "index", "label", "probability", "hospital", "patient", "image", "flagged", "seen"]
    for model, more in ((own, []), (onnx_model, ["typicality"])):
        found = evaluate.predict(model, test)
        rows = evaluate.evaluated_rows(evaluation.add_subsets(found, "test"), found, 0.41)
        assert list(rows[0]) == names + more and rows[3]["patient"] == "p3"
        assert [row["flagged"] for row in rows] == (found.probabilities >= 0.41).astype(int).tolist()
    assert [row["typicality"] for row in rows] == found.typicality.tolist()


# --against


@pytest.fixture
def scored(onnx_model, parsed) -> scoring.Scored:
    return evaluation.add_subsets(evaluate.predict(onnx_model, load(onnx_model, parsed, "test")), "test")


def test_another_model_s_predictions_are_taken_in_order_and_only_of_the_same_images(
    onnx_model, scored, parsed, tmp_path
):
    against = tmp_path / "other.csv"
    rows = folders.prediction_rows(scored.images, expected := np.linspace(0.1, 0.9, 12), [1] * 12)
    files.write_csv(against, rows[::-1] + [row | {"split": "val"} for row in rows])
    found = evaluate.predict_other(onnx_model, scored, parsed("--against", against))
    assert found.probabilities.tolist() == expected.tolist() and found.out_of_fold.all()
    bare = [{name: row[name] for name in ("split", "index", "label", "probability")} for row in rows]
    files.write_csv(against, bare)  # as other programs write it
    found = evaluate.predict_other(onnx_model, scored, parsed("--against", against))
    assert found.probabilities.tolist() == expected.tolist() and not found.out_of_fold.any()
    places = rows[0] | {"image": rows[1]["image"]}, rows[1] | {"image": rows[0]["image"]}
    swapped = [row | {"label": rows[1 - i]["label"]} for i, row in enumerate(places)]
    lines = [[*rows[0]], *([*row.values()] for row in [*swapped, *rows[2:]])]
    text = "\n".join(";".join(map(str, line)) for line in lines)
    against.write_text(text.replace(".", ","))  # of a table in another order, saved by a spreadsheet
    found = evaluate.predict_other(onnx_model, scored, parsed("--against", against))
    assert found.probabilities.tolist() == [expected[1], expected[0], *expected[2:]]
    files.write_csv(against, rows[1:])
    said = refusal(evaluate.predict_other, onnx_model, scored, parsed("--against", against))
    assert said == f"--against {against}: the predictions are not of the same images. Give a run or an .onnx file."


def test_a_model_trained_on_other_data_sees_the_images_of_the_first(own, onnx_model, scored, parsed, tmp_path):
    elsewhere = own.data | {"sets": [{"spec": "absent.npz", "hospital": "absent", "md5": "1"}]}
    other = with_metadata(onnx_model.path, tmp_path / "b.onnx", dataset_source=json.dumps(elsewhere))
    found = evaluate.predict_other(own, scored, parsed("--against", other))
    assert np.array_equal(found.probabilities, scored.probabilities)


def test_a_model_of_another_view_sees_the_images_as_it_looks_at_them(lesion_model, framed, onnx_model, parsed):
    table, taken = Path(framed.table["_file"][0]).parent / "images.csv", {}
    args = parsed("--against", onnx_model.path, "--data", table, "--split", "all")
    for model in (lesion_model, onnx_model):
        taken[model.view] = evaluate.load_images(evaluate.find_images(model, model.view, args), "all")
    assert (taken["square"].pixels != taken["lesion"].pixels).any()
    scored = evaluation.add_subsets(evaluate.predict(lesion_model, taken["lesion"]), "all")
    with patch.object(evaluate, "predict", lambda model, images: images):
        other = evaluate.predict_other(lesion_model, scored, args)
    assert np.array_equal(other.pixels, taken["square"].pixels)


@pytest.mark.parametrize("words", [[], ["--seed", 3], ["--size", 28]])
def test_data_that_are_as_they_were_are_no_news(own, parsed, capsys, words):
    load(own, parsed, "test", *words)
    assert capsys.readouterr().err.count("note:") == 1  # label 0 means malignant


# real data


def test_a_model_of_another_size_sees_the_images_at_its_size(
    onnx_model, breastmnist, breastmnist_root, parsed, monkeypatch, capsys
):
    monkeypatch.setattr(evaluate, "predict", lambda model, images: (model, images))
    first, other = (REPO / "models" / f"{name}.onnx" for name in ("breastmnist_28", "breast_ultrasound"))
    scored = scoring.Scored("val", data.load(breastmnist(28), "val"), np.full(78, 0.5), np.arange(78))
    args = parsed("--against", other, "--data-root", breastmnist_root, "--split", "val")
    model, images = evaluate.predict_other(onnxfile.load(first, 1), scored, args)
    assert model.path == other and np.array_equal(images.pixels, data.load(breastmnist(128), "val").pixels)
    assert "note:" not in (err := capsys.readouterr().err) and "warning:" not in err


def test_busi_as_everybody_downloads_it_is_known_by_a_model_of_breastmnist(onnx_model, breastmnist, parsed, tmp_path):
    """Other files of another size, in a table of absolute paths: 11 that were trained on, and six of test."""
    external = REPO.parent / "shared" / "external"
    if not (external / "busi_splits.csv").exists():
        pytest.skip(f"no {external / 'busi_splits.csv'}")
    rows = [row for row in read_csv(external / "busi_splits.csv") if row["split"] != "val"]
    chosen = [row for row in rows if row["split"] == "train"][::50][:12] + [
        row for row in rows if row["split"] == "test"
    ][::30]
    table = [{"image": external / row["image"], "label": row["label"]} for row in chosen]
    files.write_csv(tmp_path / "images.csv", table)
    marks = fingerprints.fingerprint(data.load(breastmnist(28), "train").pixels)
    model = replace(onnx_model, trained_on=marks)
    found = evaluate.predict(model, load(model, parsed, "all", "--data", tmp_path / "images.csv"))
    kinds = found.seen.kinds.tolist()
    assert kinds[:11] == ["trained on"] * 11 and "trained on" not in kinds[11:] and "unseen" in kinds


def test_medmnist_has_the_last_word_before_anything_is_written(own, breastmnist, breastmnist_root, parsed, monkeypatch):
    args = parsed("--data", "breastmnist", "--data-root", breastmnist_root, "--split", "val")
    found = evaluate.find_images(own, "square", args)
    scored = evaluation.add_subsets(evaluate.predict(own, evaluate.load_images(found, "val")), "val")
    name, content = evaluate.official_result(found, scored, "run", args)
    assert name.startswith("breastmnist_val_[AUC]") and len(content.splitlines()) == 78
    assert evaluate.official_result(found, replace(scored, on="all"), "run", args) is None
    monkeypatch.setattr(standard.metrics, "summary", lambda *_: {"auc": 0.5, "accuracy": 0.5})
    assert "MedMNIST's Evaluator gives" in refusal(evaluate.official_result, found, scored, "run", args)


def test_results_of_another_model_or_other_images_are_replaced_and_said(tmp_path):
    path, first = tmp_path / "evaluation_all.json", {"model": "runs/a", "images": "first"}
    assert evaluate.replaced_results(path, first) == ""
    path.write_text(json.dumps(first), encoding="utf-8")
    assert evaluate.replaced_results(path, first) == ""
    for other in ({"images": "second"}, {"model": "runs/b"}):
        said = evaluate.replaced_results(path, first | other)
        assert said == "note: the earlier results of runs/a on first are replaced\n"
