"""The scripts on a table and on folders of image files, as test_scripts.py runs them on arrays."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from common_fixtures import with_metadata
from conftest import one_line, read_csv, read_json
from PIL import Image

from common import files, phantom
from common.deploy import onnxfile

TRAIN = "--weights none --stages 2 --epochs 1 --batch-size 16 --threads 1".split()
EVALUATE = ["--bootstrap", 100, "--threads", 1]


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """A table of 72 phantoms of 36 patients, files of 90×80; the last two patients are unknown. The other columns have
    names that the program uses too."""
    folder = tmp_path_factory.mktemp("scans")
    images, labels = phantom.generate(72, 90, seed=5, malignant_share=0.5)
    order = np.argsort(labels, kind="stable")
    for i, image in enumerate(images[order]):
        Image.fromarray(image[:, :80]).save(folder / f"{i}.png")
    patients = [f"p{i // 2}" if i < 68 else "" for i in range(72)]
    more = {"place": "left", "bits": 8, "group": "", "index": 0}
    known = enumerate(zip(labels[order], patients))
    rows = [{"image": f"{i}.png", "label": label, "patient": patient} | more for i, (label, patient) in known]
    files.write_csv(folder / "images.csv", rows)
    return folder


@pytest.fixture
def folder(scans, tmp_path) -> Path:
    """Six of the phantoms, as another hospital keeps them: a folder a class."""
    for i in range(6):
        place = tmp_path / "set" / ("malignant" if i % 2 else "benign")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(scans / f"{6 * i}.png", place)
    return tmp_path / "set"


def test_a_run_keeps_its_table_and_finds_its_images_again_after_the_folder_moved(scans, tmp_path, runs):
    here, out = tmp_path / "here", tmp_path / "run"
    shutil.copytree(scans, here)
    _, err = runs("train.py", "--data", here / "images.csv", *TRAIN, "--out", out)
    assert "the patient of 4 of 72 images is unknown" in err and "label 1 means malignant: 36 of 72 images" in err
    kept = {row["image"]: row for row in read_csv(out / "split.csv")}
    assert len(kept) == 72 and {row["split"] for row in kept.values()} == {"train", "val", "test"}
    assert all(kept[f"{i}.png"]["split"] == kept[f"{i + 1}.png"]["split"] for i in range(0, 68, 2))  # patients whole
    predicted = read_csv(out / "predictions.csv")
    assert {row["image"]: row["split"] for row in predicted} == {
        name: row["split"] for name, row in kept.items() if row["split"] != "train"
    }
    assert all(row["patient"] == kept[row["image"]]["patient"] and row["hospital"] == "images" for row in predicted)
    stored = read_json(out / "metrics.json")["results"]
    assert {(entry["on"], entry["held_out"], *entry["chose"]) for entry in stored} == {
        ("val", False, "epoch", "calibration", "threshold"), ("test", True)
    }  # fmt: skip
    results = [entry for entry in stored if entry["on"] == "test"]
    assert [(entry["unit"], entry["subset"]) for entry in results[::2]] == [
        ("image", "all"), ("patient", "all"), ("image", "clean")
    ]  # fmt: skip
    assert results[2]["n"] == len({row["patient"] for row in predicted if row["split"] == "test"} - {""})

    here.rename(tmp_path / "there")
    gone = one_line(runs("evaluate.py", out, *EVALUATE, status=2)[1])
    assert "here/images.csv: the data of the run are no longer there. Give their new place with --data" in gone
    moved = ["--data", tmp_path / "there/images.csv", "--seed", 3, "--threads", 1]
    text, err = runs("evaluate.py", out, *moved)
    assert "since the run" not in err and "are drawn" not in err
    again = read_json(out / "evaluation_test.json")["results"]
    for name in ("unit", "subset", "n", "auc", "auc_ci95", "recall_ci95"):  # whatever --seed says
        assert [entry[name] for entry in again] == [entry[name] for entry in results]
    assert "images 28×28: test AUC" in text and "0 are training images" in text
    assert {row["seen"] for row in read_csv(out / "predictions_test.csv")} == {"unseen"}


@pytest.mark.slow
def test_from_a_table_to_an_onnx_that_sees_files_at_full_size(scans, tmp_path, runs):
    out = tmp_path / "run"
    runs("train.py", "--data", scans / "images.csv", *TRAIN, "--out", out)
    stored = read_json(out / "metrics.json")["splits"]["test"]
    runs("export.py", out, "--threads", 1)
    text, _ = runs("evaluate.py", out / "model.onnx", *EVALUATE, "--split", "test", "--out", tmp_path / "onnx")
    assert "at full size: test AUC" in text and "too good" not in text and "optimistic" not in text
    found = read_json(tmp_path / f"onnx/{out.name}_model/evaluation_test.json")["splits"]["test"]
    assert found["n"] == stored["n"] and found["auc"] == pytest.approx(stored["auc"], abs=0.1)


@pytest.mark.slow
def test_folds_of_patients_and_a_search(scans, tmp_path, runs):
    table = scans / "images.csv"
    runs("crossval.py", "--data", table, *TRAIN, "--folds", 2, "--jobs", 1, "--out", tmp_path / "folds")
    fold = {row["image"]: row["fold"] for row in read_csv(tmp_path / "folds/predictions.csv") if row["fold"]}
    split = {row["image"]: row["split"] for row in read_csv(tmp_path / "folds/split.csv")}
    assert fold.keys() == {name for name, where in split.items() if where != "test"}
    pairs = [(f"{i}.png", f"{i + 1}.png") for i in range(0, 68, 2)]
    assert all(fold.get(one) == fold.get(two) for one, two in pairs)
    runs("evaluate.py", tmp_path / "folds", "--split", "val", *EVALUATE)
    assert read_json(tmp_path / "folds/evaluation_val.json")["predictions"] == "out-of-fold predictions"
    flags = ["--folds", 2, "--trials", 1, "--grid", 0, "--out", tmp_path / "tune"]
    assert "next: python train.py" in runs("tune.py", "--data", table, *TRAIN, *flags)[0]


def test_a_model_on_a_folder_of_another_hospital(folder, tmp_path, runs, onnx_model):
    out = tmp_path / f"out/{onnx_model.path.parent.name}_model"  # every export has the name "model"
    text, _ = runs("evaluate.py", onnx_model.path, "--data", folder, *EVALUATE, "--out", tmp_path / "out")
    assert "set at full size: all AUC" in text and "Of these 6 images, 0 are training images" in text
    report = (out / "report_all.html").read_text()
    assert "Of these 6 images" in report and "set at full size" in report
    kept = read_json(out / "evaluation_all.json")
    assert list(kept["splits"]) == ["all"]
    assert kept["seen"] == {"trained on": 0, "chose": 0, "near-duplicate": 0, "unseen": 6}
    assert {(entry["on"], entry["hospital"], entry["held_out"]) for entry in kept["results"]} == {("all", "set", True)}
    predicted = read_csv(out / "predictions_all.csv")
    expected = onnx_model.probabilities(np.asarray(Image.open(folder / "benign/0.png"))[np.newaxis])[0]
    assert predicted[0]["image"] == "benign/0.png" and float(predicted[0]["probability"]) == pytest.approx(expected)


def test_images_unlike_those_of_training_are_counted_and_scored_apart(folder, tmp_path, runs, onnx_model):
    Image.new("L", (40, 50), 255).save(folder / "benign/white.png")
    raised = with_metadata(onnx_model.path, tmp_path / "raised.onnx", typicality_threshold="0.0205")
    opened = onnxfile.load(raised, 1)  # of the fit of 48 images, which marks nothing below 0.01
    images = [np.asarray(Image.open(path)) for path in folder.rglob("*.png")]
    marked = sum(int(opened.run(["typicality"], image[np.newaxis])[0][0] < 0.0205) for image in images)
    assert 0 < marked < 7
    text, _ = runs("evaluate.py", opened.path, "--data", folder, *EVALUATE, "--out", tmp_path / "out")
    sentence = f"{marked} of 7 images are unlike the training images (typicality below 0.0205)."
    assert sentence in text and sentence in (tmp_path / "out/raised/report_all.html").read_text()
    results = read_json(tmp_path / "out/raised/evaluation_all.json")["results"]
    counts = {entry["subset"]: entry["n"] for entry in results}
    assert counts == {"all": 7, "typical": 7 - marked, "unlike": marked}


# splits that are not all there


@pytest.fixture
def divided(scans, tmp_path):
    """A function that gives a table of the phantoms, each patient in one of the named splits."""

    def divide(*names: str) -> Path:
        shutil.copytree(scans, tmp_path / "divided")
        rows = read_csv(scans / "images.csv")
        for i, row in enumerate(rows):
            row["split"] = names[i // 2 % len(names)]
        files.write_csv(tmp_path / "divided/images.csv", rows)
        return tmp_path / "divided/images.csv"

    return divide


@pytest.mark.parametrize("names, cause", [("train val", "no image is in test"), ("train test", "no image is in val. ")])
def test_train_refuses_before_training_what_it_cannot_score(divided, names, cause, tmp_path, runs):
    _, err = runs("train.py", "--data", divided(*names.split()), *TRAIN, "--out", tmp_path / "run", status=2)
    assert cause in one_line(err) and "epoch" not in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("pool", ["train", "train+val"])
def test_crossval_needs_no_val(divided, npz, pool, tmp_path, runs):
    """Of a table, and of an .npz file."""
    found = npz(val_images=None, val_labels=None)
    data, trained, held_out = (found.paths[0], 24, 12) if pool == "train" else (divided("train", "test"), 36, 36)
    flags = ["--pool", pool, "--folds", 2, "--jobs", 1, *TRAIN]
    runs("crossval.py", "--data", data, *flags, "--out", tmp_path / "run")
    splits = read_json(tmp_path / "run/metrics.json")["splits"]
    assert (splits["out_of_fold"]["n"], splits["test"]["n"]) == (trained, held_out)
    assert len(read_csv(tmp_path / "run/split.csv")) == trained + held_out
