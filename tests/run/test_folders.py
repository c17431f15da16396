import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from common_fixtures import untrained_member
from conftest import refusal

from common import data, files
from common.calibration import Calibration, logit, sigmoid
from common.data import Split
from common.model import BreastResNet, Predictor, predict
from common.run import folders

REAL = data.Source("own.npz", 28, Path("own.npz"), "1234")


@pytest.fixture(scope="module")
def model() -> BreastResNet:
    return untrained_member(0)


def change_checkpoint(path, **changed) -> None:
    torch.save(torch.load(path) | changed, path)


def test_an_output_folder_is_made_and_removed_if_empty_or_refused(tmp_path, monkeypatch):
    def make(path) -> None:
        with folders.output(path) as made:
            assert made == Path(path) and list(made.iterdir()) == []

    make(tmp_path / "a" / "b")
    assert list((tmp_path / "a").iterdir()) == []
    make(str(tmp_path / "a"))
    assert (tmp_path / "a").exists()  # it was there
    (tmp_path / "file").write_text("kept")
    assert f"--out {tmp_path}/file: cannot be made" in refusal(make, tmp_path / "file")  # test_bad_input.py has more
    monkeypatch.setattr("os.replace", lambda *given: os.write(-1, b""))  # as a disk that refuses
    assert "cannot be written" in refusal(make, tmp_path / "full") and not (tmp_path / "full").exists()


# predictions


def test_predictions_survive_their_file(tmp_path):
    labels, probabilities = np.array([1, 0, 1]), np.array([0.1, 1 / 3, 1 - 1e-16])
    train = Split.of("train", np.zeros((8, 28, 28), np.uint8), np.array([0, 0, 0, 0, 0, 0, 0, 1], np.uint8))
    rows = folders.prediction_rows(Split.of("val", np.zeros((3, 28, 28), np.uint8), labels), probabilities)
    rows += folders.prediction_rows(train[[7, 5]], probabilities[:2], fold=[1, 2])
    path = tmp_path / "predictions.csv"
    files.write_csv(path, [{"fold": ""} | row for row in rows], REAL.notice)
    read = folders.read_predictions(path)
    assert [(row["split"], row["index"], row["out_of_fold"]) for row in read] == [
        ("val", 0, False), ("val", 1, False), ("val", 2, False), ("train", 7, True), ("train", 5, True)
    ]  # fmt: skip
    assert [row["probability"] for row in read] == [*probabilities, *probabilities[:2]]  # to the last digit
    assert folders.calibrating_rows(read) == read[3:] and folders.calibrating_rows(read[:3]) == read[:3]
    in_order = folders.columns(read[3:])
    assert in_order[0].tolist() == [0, 1] and in_order[1].tolist() == [1 / 3, 0.1]


def test_repeats_are_averaged_as_logits(tmp_path):
    path = tmp_path / "predictions.csv"
    rows = ["split,index,label,probability,fold", "val,3,1,0.9,1", "val,4,0,0.2,1", "val,3,1,0.5,7", "val,3,1,0.6,9"]
    path.write_text("\n".join(rows))
    first, second = folders.read_predictions(path)
    expected = sigmoid(np.mean([logit(p) for p in (0.9, 0.5, 0.6)]))
    assert first.pop("probability") == pytest.approx(expected, abs=1e-12)
    assert first == {"split": "val", "index": 3, "label": 1, "out_of_fold": True, "image": None}
    assert second["probability"] == 0.2


# models


@pytest.mark.parametrize("mirror", [True, False])
def test_a_model_survives_its_file_which_holds_plain_values(tmp_path, phantoms, model, quick, mirror):
    settings = dataclasses.replace(quick, mirror=mirror)
    folders.save_model(tmp_path / "model.pt", model, settings, 3, REAL, ["train"])
    stored = torch.load(tmp_path / "model.pt", weights_only=True)
    assert (stored["format"], stored["seed"], stored["settings"]) == (folders.FORMAT, 3, settings.as_dict())
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in stored["state"].values())
    expected = predict(Predictor([model], mirror), phantoms.images)
    run = folders.load(tmp_path)
    assert np.array_equal(run.probabilities(phantoms.images), sigmoid(expected))
    assert run.data == REAL.describe() | {"trained_on": ["train"]} and run.calibration == Calibration()
    chosen = Calibration(2.5, 0.3, "a rule", "val", 78)
    files.write_json(tmp_path / "calibration.json", dataclasses.asdict(chosen) | {"of later versions": 1}, "PHANTOM")
    run = folders.load(str(tmp_path))
    assert run.calibration == chosen
    np.testing.assert_allclose(run.probabilities(phantoms.images), sigmoid(expected / 2.5), atol=1e-7)
    assert "takes images of 28×28, not 64×64" in refusal(run.probabilities, np.zeros((1, 64, 64), np.uint8))


def test_an_ensemble_is_read_in_order_of_its_folds(tmp_path, phantoms, quick):
    models = [untrained_member(seed) for seed in range(3)]
    for fold, model in zip((10, 2, 1), models):
        folders.save_model(tmp_path / f"fold_{fold}.pt", model, quick, 0, REAL, ["train"])
    run = folders.load(tmp_path)
    biases = [member.trunk.fc.bias.item() for member in run.predictor.members]
    assert biases == [model.trunk.fc.bias.item() for model in reversed(models)]
    expected = predict(Predictor(models, True), phantoms.images)
    np.testing.assert_allclose(run.probabilities(phantoms.images), sigmoid(expected), atol=1e-6)


@pytest.mark.parametrize("change", [{"mirror": False}, {"data": {**REAL.describe(), "md5": "other", "trained_on": []}}])
def test_folds_of_different_runs_are_refused(tmp_path, model, quick, change):
    for fold in (1, 2):
        folders.save_model(tmp_path / f"fold_{fold}.pt", model, quick, 0, REAL, ["train"])
    change_checkpoint(tmp_path / "fold_2.pt", **change)
    message = refusal(folders.load, tmp_path)
    assert str(tmp_path) in message and "different runs" in message


def test_folders_without_a_run_or_between_two(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        assert "no run folder" in refusal(folders.load, path)
    (tmp_path / folders.FINISHED).mkdir()
    assert "--resume of its command" in refusal(folders.load, tmp_path)


NO_NUMBERS = {name: tensor * torch.nan for name, tensor in untrained_member(0).state_dict().items()}


@pytest.mark.parametrize(
    "changed", [{"stages": 3}, {"state": {}}, {"state": NO_NUMBERS}, {"upsample": 10}, {"upsample": 513}]
)
def test_checkpoints_that_contradict_themselves(tmp_path, model, quick, changed):  # test_bad_input.py has more
    folders.save_model(path := tmp_path / "model.pt", model, quick, 3, REAL, ["train"])
    change_checkpoint(path, **changed)
    message = refusal(folders.load, tmp_path)
    assert message.startswith(f"{path}: not a checkpoint of this project, or a damaged one; ")
