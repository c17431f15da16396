"""The scripts on a table and a folder of image files, as test_scripts.py runs them on phantoms."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from common_fixtures import with_metadata
from conftest import read_csv, read_json
from PIL import Image

from common import files, phantom
from common.deploy import onnxfile

TRAIN = "--weights none --stages 2 --epochs 1 --batch-size 16 --threads 1".split()
EVALUATE = ["--bootstrap", 100, "--threads", 1]


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """A table of 72 phantoms of 36 patients, files of 90×80."""
    folder = tmp_path_factory.mktemp("scans")
    images, labels = phantom.generate(72, 90, seed=5, malignant_share=0.5)
    order = np.argsort(labels, kind="stable")
    for i, image in enumerate(images[order]):
        Image.fromarray(image[:, :80]).save(folder / f"{i}.png")
    known = enumerate(labels[order])
    rows = [{"image": f"{i}.png", "label": label, "patient": f"p{i // 2}"} for i, label in known]
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


def test_from_a_table_to_an_onnx_and_back(scans, tmp_path, runs):
    out, table = tmp_path / "run", scans / "images.csv"
    runs("train.py", "--data", table, *TRAIN, "--out", out)
    kept = {row["image"]: row for row in read_csv(out / "images.csv")}
    assert len(kept) == 72 and {row["split"] for row in kept.values()} == {"train", "val", "test"}
    assert all(kept[f"{i}.png"]["split"] == kept[f"{i + 1}.png"]["split"] for i in range(0, 72, 2))  # patients whole
    predicted = {row["image"]: row["split"] for row in read_csv(out / "predictions.csv")}
    assert predicted == {name: row["split"] for name, row in kept.items() if row["split"] != "train"}
    stored = read_json(out / "metrics.json")["splits"]
    assert {"test", "clean_test", "test_patients"} <= set(stored) and stored["test_patients"]["n"] < stored["test"]["n"]

    text, _ = runs("evaluate.py", out, *EVALUATE)
    again = read_json(out / "evaluation_test.json")["splits"]
    assert again["test"]["auc"] == stored["test"]["auc"] and f"{scans.name}/images.csv 28×28: test AUC" in text
    assert {row["image"] for row in read_csv(out / "predictions_test.csv")} < kept.keys()
    runs("export.py", out, "--threads", 1)
    text, _ = runs("evaluate.py", out / "model.onnx", *EVALUATE, "--out", tmp_path / "onnx")
    assert "at full size: test AUC" in text and "flatter" not in text
    found = read_json(tmp_path / "onnx/evaluation_test.json")["splits"]["test"]
    assert found["n"] == stored["test"]["n"] and found["auc"] == pytest.approx(stored["test"]["auc"], abs=0.1)


@pytest.mark.slow
def test_a_moved_and_changed_folder_keeps_its_splits_and_another_seed_is_another_division(scans, tmp_path, runs):
    here, out = tmp_path / "here", tmp_path / "run"
    shutil.copytree(scans, here)
    runs("train.py", "--data", here / "images.csv", *TRAIN, "--out", out)
    stored = read_json(out / "metrics.json")["splits"]["test"]
    here.rename(tmp_path / "there")
    assert "here/images.csv" in runs("evaluate.py", out, *EVALUATE, status=2)[1]
    unseen = next(row["image"] for row in read_csv(out / "images.csv") if row["split"] == "train")
    Image.fromarray(np.eye(60, dtype=np.uint8) * 255).save(tmp_path / "there" / unseen)
    _, err = runs("evaluate.py", out, "--data", tmp_path / "there/images.csv", "--seed", 3, *EVALUATE)
    assert f"1 have changed since: {unseen}" in err
    assert read_json(out / "evaluation_test.json")["splits"]["test"]["auc"] == stored["auc"]
    (out / "images.csv").unlink()
    text, _ = runs("evaluate.py", out, "--data", scans / "images.csv", "--seed", 3, "--split", "test", *EVALUATE)
    assert "the model was trained on" in text or "cannot be told" in text  # not taken for its own test images


@pytest.mark.slow
def test_folds_of_patients_and_a_search(scans, tmp_path, runs):
    table = scans / "images.csv"
    runs("crossval.py", "--data", table, *TRAIN, "--folds", 2, "--jobs", 1, "--out", tmp_path / "folds")
    fold = {row["image"]: row["fold"] for row in read_csv(tmp_path / "folds/predictions.csv") if row["fold"]}
    split = {row["image"]: row["split"] for row in read_csv(tmp_path / "folds/images.csv")}
    assert fold.keys() == {name for name, where in split.items() if where != "test"}
    pairs = [(f"{i}.png", f"{i + 1}.png") for i in range(0, 72, 2)]
    assert all(fold.get(one) == fold.get(two) for one, two in pairs)
    assert "out_of_fold_patients" in read_json(tmp_path / "folds/metrics.json")["splits"]
    runs("evaluate.py", tmp_path / "folds", "--split", "val", *EVALUATE)
    assert read_json(tmp_path / "folds/evaluation_val.json")["predictions"] == "out-of-fold predictions"
    flags = ["--folds", 2, "--trials", 1, "--grid", 0, "--out", tmp_path / "tune"]
    assert "next: python train.py" in runs("tune.py", "--data", table, *TRAIN, *flags)[0]


def test_a_model_on_a_folder_of_another_hospital(folder, tmp_path, runs, onnx_model):
    text, _ = runs("evaluate.py", onnx_model.path, "--data", folder, *EVALUATE, "--out", tmp_path / "out")
    assert "set at full size: all AUC" in text and "Of these 6 images the model was trained on 0" in text
    report = (tmp_path / "out/report_all.html").read_text()
    assert "Of these 6 images" in report and "set at full size" in report
    kept = read_json(tmp_path / "out/evaluation_all.json")
    assert kept["unlike_training"] == {"threshold": 0.01, "marked": 0} and list(kept["splits"]) == ["all"]
    predicted = read_csv(tmp_path / "out/predictions_all.csv")
    expected = onnx_model.probabilities(np.asarray(Image.open(folder / "benign/0.png"))[np.newaxis])[0]
    assert predicted[0]["image"] == "benign/0.png" and float(predicted[0]["probability"]) == pytest.approx(expected)


def test_images_unlike_those_of_training_are_counted_and_scored_apart(folder, tmp_path, runs, onnx_model):
    Image.new("L", (40, 50), 255).save(folder / "benign/white.png")
    raised = with_metadata(onnx_model.path, tmp_path / "model.onnx", typicality_threshold="0.0205")
    opened = onnxfile.load(raised, 1)  # of the fit of 48 images, which marks nothing below 0.01
    images = [np.asarray(Image.open(path)) for path in folder.rglob("*.png")]
    marked = sum(int(opened.run(["typicality"], image[np.newaxis])[0][0] < 0.0205) for image in images)
    assert 0 < marked < 7
    text, _ = runs("evaluate.py", opened.path, "--data", folder, *EVALUATE, "--out", tmp_path / "out")
    sentence = f"Unlike the training images, with a typicality below 0.0205: {marked} of 7."
    assert sentence in text and sentence in (tmp_path / "out/report_all.html").read_text()
    kept = read_json(tmp_path / "out/evaluation_all.json")
    assert kept["unlike_training"] == {"threshold": 0.0205, "marked": marked}
    counts = {name: kept["splits"][name]["n"] for name in ("all", "typical_all", "unlike_all")}
    assert counts == {"all": 7, "typical_all": 7 - marked, "unlike_all": marked}


@pytest.mark.parametrize("script", ["train.py", "crossval.py"])
def test_a_table_without_test_images_is_refused_before_training(script, scans, tmp_path, runs):
    rows = read_csv(scans / "images.csv")
    for row in rows:
        row["split"] = "train" if int(row["patient"][1:]) % 3 else "val"
    shutil.copytree(scans, tmp_path / "set")
    files.write_csv(tmp_path / "set/images.csv", rows)
    _, err = runs(script, "--data", tmp_path / "set/images.csv", *TRAIN, "--out", tmp_path / "run", status=2)
    assert "test holds no images" in err and "epoch" not in err and not (tmp_path / "run").exists()
