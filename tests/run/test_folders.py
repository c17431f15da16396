import dataclasses
import unicodedata

import numpy as np
import pytest
import torch
from common_fixtures import untrained_member
from conftest import refusal

from common import data, files, fingerprints, phantom
from common.calibration import Calibration, logit, sigmoid
from common.model import BreastResNet, Predictor, predict
from common.run import folders

RATES = {"recall": 0.9, "recall_ci95": [0.8, 1.0], "specificity": 0.5, "specificity_ci95": [0.4, 0.6]}
CALIBRATION = Calibration(2.5, 0.1, 0.3, "a rule", {"on": "val", "n": 12}, [RATES])


@pytest.fixture(scope="module")
def model() -> BreastResNet:
    return untrained_member(0)


@pytest.fixture
def saved(tmp_path, model, phantoms, npz, quick):
    """A function that writes a run of one model into tmp_path, and returns its data."""

    def save(name: str = "model.pt", member: BreastResNet = model, **changed) -> data.Found:
        found = npz()
        folders.save_model(tmp_path / name, member, dataclasses.replace(quick, **changed), 3, found, ["train"])
        files.write_json(tmp_path / "calibration.json", dataclasses.asdict(CALIBRATION), found.notice)
        folders.save_table(tmp_path, data.load(found, *data.SPLITS))
        return found

    return save


def change_checkpoint(path, **changed) -> None:
    torch.save(torch.load(path) | changed, path)


# predictions


def test_predictions_survive_their_file(tmp_path, phantoms):
    probabilities = np.array([0.1, 1 / 3, 1 - 1e-16])
    val = data.of_arrays(phantoms.pixels[:3], np.array([1, 0, 1]), "val", "a", patient=["7", "", "7"])
    other = data.of_arrays(phantoms.pixels[3:5], np.array([0, 1]), "val", "b")
    rows = folders.prediction_rows(val, probabilities, fold=["", "", ""])
    rows += folders.prediction_rows(other, probabilities[:2], fold=[1, 2])
    files.write_csv(path := tmp_path / "predictions.csv", rows)
    assert list(rows[0]) == "split index label probability fold hospital patient image".split()
    assert [row["patient"] for row in rows[:3]] == ["7", "", "7"]
    read = folders.read_predictions(path)
    assert {key: row["out_of_fold"] for key, row in read.items()} == {
        ("a", "val", "val/0"): False, ("a", "val", "val/1"): False, ("a", "val", "val/2"): False,
        ("b", "val", "val/0"): True, ("b", "val", "val/1"): True,
    }  # fmt: skip
    assert [row["probability"] for row in read.values()] == [*probabilities, *probabilities[:2]]  # to the last digit
    assert [row["probability"] for row in folders.matching(read, other)] == [0.1, 1 / 3]
    assert folders.matching(read, data.of_arrays(other.pixels, 1 - other.labels, "val", "b")) is None
    assert folders.matching(read, data.of_arrays(other.pixels, other.labels, "test", "b")) is None


def test_names_with_decomposed_accents_are_found_again(tmp_path, phantoms):
    name = unicodedata.normalize("NFD", "Zoë.png")
    images = data.of_arrays(phantoms.pixels[:1], np.array([1]), "train", unicodedata.normalize("NFD", "Zoë"))
    images.table["image"] = [name]
    files.write_csv(path := tmp_path / "predictions.csv", folders.prediction_rows(images, np.array([0.25]), fold=[3]))
    assert folders.matching(folders.read_predictions(path), images)[0]["probability"] == 0.25
    probabilities, out_of_fold = folders.read_own_predictions(tmp_path, images.table)
    assert probabilities.tolist() == [0.25] and out_of_fold.tolist() == [True]


def test_two_predictions_of_an_image_without_folds_are_refused(tmp_path):
    (path := tmp_path / "predictions.csv").write_text(
        "split,index,label,probability,image\nval,0,1,0.9,1.png\nval,1,1,0.5,1.png"
    )
    assert "has several rows of image 1.png. Add the column hospital" in refusal(folders.read_predictions, path)


def test_repeats_are_averaged_as_logits(tmp_path):
    path = tmp_path / "predictions.csv"
    rows = ["split,index,label,probability,fold", "val,3,1,0.9,1", "val,4,0,0.2,1", "val,3,1,0.5,7", "val,3,1,0.6,9"]
    path.write_text("\n".join(rows))
    first, second = folders.read_predictions(path).values()
    assert first == {
        "label": 1, "out_of_fold": True,
        "probability": pytest.approx(sigmoid(np.mean([logit(p) for p in (0.9, 0.5, 0.6)])), abs=1e-12),
    }  # fmt: skip
    assert second["probability"] == 0.2


# the table of a run


def test_a_table_survives_its_file_and_knows_its_images_again(tmp_path):
    """By name, split and picture: two hospitals may use the same names, and a hospital may have another name now."""
    pixels, labels = phantom.generate(8, 64, seed=3)
    a, b = (data.of_arrays(pixels[i : i + 4], labels[i : i + 4], "train", name) for i, name in ((0, "a"), (4, "b")))
    a.table["width"], a.table["patient"], a.table["device"] = 12.5, "007", 'A; "B", \n1'
    folders.save_table(tmp_path, both := data.concatenate(a, b))
    table = folders.read_table(tmp_path / "split.csv")
    kept = table[both.table.columns].fillna(-1)
    assert kept.to_dict("list") == both.table.fillna(-1).to_dict("list")
    assert table["group"].tolist() == [0, 0, 0, 0, 4, 5, 6, 7]  # a patient, and images of their own
    marks = folders.fingerprints_of(table, ["train"])
    assert np.array_equal(marks, fingerprints.fingerprint(pixels)) and not len(folders.fingerprints_of(table, ["val"]))

    renamed = data.of_arrays(pixels[4:], labels[4:], "train", "renamed")
    rows = folders.rows_of(table, renamed[[2, 0]])
    assert rows["hospital"].tolist() == ["b", "b"] and rows["group"].tolist() == [6, 4]
    smaller = data.of_arrays(np.stack([image[::2, ::2] for image in pixels[:4]]), labels[:4], "train", "a")
    assert folders.rows_of(table, smaller) is None or folders.rows_of(table, smaller)["hospital"].tolist() == ["a"] * 4
    others = phantom.generate(4, 64, seed=4)
    assert folders.rows_of(table, data.of_arrays(*others, "train", "a")) is None  # the same names, other pictures
    assert folders.rows_of(table, data.of_arrays(pixels[:4], labels[:4], "test", "a")) is None


def test_images_that_a_run_did_not_read_keep_their_split(tmp_path, phantoms):
    """As those of test under --no-test: they have no fingerprint yet, and are in no group of those that were read."""
    test = dataclasses.replace(phantoms[3:5], table=phantoms[3:5].table.assign(split="test"))
    folders.save_table(tmp_path, phantoms[:3], test.table)
    table = folders.read_table(tmp_path / "split.csv")
    assert table["split"].tolist() == ["train"] * 3 + ["test"] * 2
    assert len(folders.fingerprints_of(table, ["train", "test"])) == 3
    assert folders.rows_of(table, test) is None and len(folders.rows_of(table, phantoms[:3])) == 3


def test_a_damaged_table_is_one_line(tmp_path, phantoms):
    folders.save_table(tmp_path, phantoms)
    path = tmp_path / "split.csv"
    text = path.read_text()
    for damaged in ("", text.replace("fingerprint", "x"), text[:-9], text.replace(",train,", ",train"), "\0" + text):
        path.write_text(damaged)
        assert refusal(folders.read_table, path).startswith(f"{path}: is damaged. Train the run again")


# models


@pytest.mark.parametrize("mirror", [True, False])
def test_a_model_survives_its_file_which_holds_plain_values(tmp_path, phantoms, model, saved, mirror):
    found = saved(mirror=mirror)
    stored = torch.load(tmp_path / "model.pt", weights_only=True)
    assert (stored["format"], stored["seed"], stored["mirror"]) == (folders.FORMAT, 3, mirror)
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in stored["state"].values())
    run = folders.load(str(tmp_path))
    assert run.data == found.describe() | {"trained_on": ["train"]} and run.calibration == CALIBRATION
    expected = predict(Predictor([model], mirror), phantoms.pixels)
    np.testing.assert_allclose(run.answer(phantoms).probabilities, sigmoid(expected / 2.5 + 0.1), atol=1e-7)
    assert "takes images of 28×28, not 64×64" in refusal(
        run.answer, data.of_arrays(*phantom.generate(1, 64, seed=0), "test", "a")
    )
    for marks, part in ((run.trained_on, phantoms[:24]), (run.chosen_on, phantoms[24:36])):
        assert np.array_equal(marks, fingerprints.fingerprint(part.pixels))


def test_two_looks_survive_their_file(tmp_path, finding, framed, saved):
    (two_looks,) = finding.predictor.members
    saved(member=two_looks)
    described = torch.load(tmp_path / "model.pt")["data"]
    assert refusal(folders.load, tmp_path).startswith(f"{tmp_path / 'model.pt'}: is not a checkpoint")  # of one look
    change_checkpoint(tmp_path / "model.pt", data=described | {"view": "lesion"})
    run = folders.load(tmp_path)
    assert run.view == "lesion" and run.predictor.finder is not None
    found, expected = (one.answer(framed) for one in (run, dataclasses.replace(finding, calibration=CALIBRATION)))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-7)
    assert np.array_equal(found.windows, expected.windows) and np.array_equal(found.found, expected.found)


def test_equal_runs_give_equal_bytes(tmp_path, model, saved):
    """The name of the file is not in it, and neither is the order in which attributes were made."""
    saved("model.pt")
    saved("other.pt")
    assert (tmp_path / "model.pt").read_bytes() == (tmp_path / "other.pt").read_bytes()


def test_what_out_of_fold_predictions_chose_was_chosen_by_no_image_that_trained_nothing(tmp_path, saved):
    found = saved()
    by_folds = dataclasses.replace(CALIBRATION, chosen_on={"on": "out_of_fold"})
    files.write_json(tmp_path / "calibration.json", dataclasses.asdict(by_folds), found.notice)
    assert not len(folders.load(tmp_path).chosen_on)


def test_an_ensemble_is_read_in_order_of_its_folds(tmp_path, phantoms, saved):
    models = [untrained_member(seed) for seed in range(3)]
    for fold, model in zip((10, 2, 1), models):
        saved(f"fold_{fold}.pt", model)
    run = folders.load(tmp_path)
    biases = [member.trunk.fc.bias.item() for member in run.predictor.members]
    assert biases == [model.trunk.fc.bias.item() for model in reversed(models)]
    expected = predict(Predictor(models, True), phantoms.pixels)
    np.testing.assert_allclose(run.answer(phantoms).probabilities, sigmoid(expected / 2.5 + 0.1), atol=1e-6)


@pytest.mark.parametrize("changed", ["mirror", "md5"])
def test_folds_of_different_runs_are_refused(tmp_path, saved, changed):
    described = saved("fold_1.pt").describe()
    saved("fold_2.pt")
    other = {"mirror": False} if changed == "mirror" else {"data": described | {"md5": "other", "trained_on": []}}
    change_checkpoint(tmp_path / "fold_2.pt", **other)
    message = refusal(folders.load, tmp_path)
    assert str(tmp_path) in message and "different runs" in message


def test_folders_without_a_run_or_between_two(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        assert "holds no model.pt" in refusal(folders.load, path)
    (tmp_path / ".breastmnist" / "finished").mkdir(parents=True)
    assert "Repeat its command with --resume." in refusal(folders.load, tmp_path)


def test_a_run_of_version_1_says_what_to_do(tmp_path, saved):
    saved()
    change_checkpoint(path := tmp_path / "model.pt", format="breastmnist-resnet18 v1", data={"name": "breastmnist"})
    assert refusal(folders.load, tmp_path) == f"{path}: was written by version 1 of this program. Train the run again."


NO_NUMBERS = {name: tensor * torch.nan for name, tensor in untrained_member(0).state_dict().items()}


@pytest.mark.parametrize("changed", [{"stages": 3}, {"state": {}}, {"state": NO_NUMBERS}, {"seed": "3"}, {"data": {}}])
def test_checkpoints_that_contradict_themselves(tmp_path, saved, changed):  # test_bad_input.py has more
    saved()
    change_checkpoint(path := tmp_path / "model.pt", **changed)
    message = refusal(folders.load, tmp_path)
    assert message.startswith(f"{path}: is not a checkpoint of this project, or is damaged. ")
