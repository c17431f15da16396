"""Training, leaving out and calibrating with images of several hospitals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_line, read_csv, read_json
from PIL import Image

from common import crossvalidation, data, files, phantom
from common.crossvalidation import Scheme
from common.data import Images
from common.errors import UserError
from common.images import of_pixels

TRAIN = "--weights none --stages 2 --epochs 1 --batch-size 16 --threads 1".split()


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory) -> list[str]:
    """Tables of 40 phantoms each, whose patients have the same numbers; beside the second, parts of it."""
    tables = []
    for name in "ab":
        folder = tmp_path_factory.mktemp("hospital") / name
        folder.mkdir()
        images, labels = phantom.generate(40, 60, seed=ord(name), malignant_share=0.5)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{i}.png")
        about = [{"label": label, "patient": i // 2, "device": f"{name}{i % 2}"} for i, label in enumerate(labels)]
        rows = [{"image": f"{i}.png"} | row for i, row in enumerate(about)]
        benign = [row for row in rows if not row["label"]]
        for part, chosen in {name: rows, "half": rows[::2], "benign": benign}.items():
            files.write_csv(folder / f"{part}.csv", chosen)
        tables.append(str(folder / f"{name}.csv"))
    return tables


@pytest.fixture(scope="module")
def pool(hospitals) -> Images:
    """All images of both."""
    return data.load(data.find(hospitals, None, 28, undivided="train"), "train")


def test_a_hospital_is_a_selection_of_rows_and_its_patients_are_its_own(pool):
    assert pool.hospitals.tolist() == ["a"] * 40 + ["b"] * 40 and set(pool.table["device"]) == {"a0", "a1", "b0", "b1"}
    a, b = (set(pool[pool.hospitals == name].patients) for name in "ab")
    assert len(a) == len(b) == 20 and not a & b
    assert len(set(pool.groups)) == 40


@pytest.mark.parametrize(
    "given, cause",
    [
        ("crossval.py A", "--groups hospital needs two hospitals"),
        ("crossval.py A B --folds 3", "--groups hospital makes each hospital a fold. Remove --folds"),
        ("crossval.py A BENIGN", "--groups hospital: benign holds one class only"),
        ("crossval.py A B HALF", "half.csv: 20 of its 20 images are also in another data set, such as 0.png"),
        ("train.py B HALF", "half.csv: 20 of its 20 images are also in another data set, such as 0.png"),
    ],
)
def test_what_would_mislead_is_refused_before_training(given, cause, hospitals, tmp_path, runs):
    a, b = map(Path, hospitals)
    named = {"A": a, "B": b, "HALF": b.with_name("half.csv"), "BENIGN": b.with_name("benign.csv")}
    script, *words = given.split()
    specs, more = [word for word in words if word in named], [word for word in words if word not in named]
    groups = ["--groups", "hospital"] if script == "crossval.py" else []
    flags = [*map(named.get, specs), *more, *groups, *TRAIN, "--out", tmp_path / "run"]
    _, err = runs(script, "--data", *flags, status=2)
    assert cause in one_line(err) and "epoch" not in err and not (tmp_path / "run").exists()


def test_each_hospital_is_predicted_by_a_model_that_has_not_seen_it(pool):
    scheme = Scheme("hospital", 5, 2, seed=0, refit=0, jobs=1, threads=1, device=torch.device("cpu"))
    fold = crossvalidation.assign_models(pool, np.arange(80), scheme)
    assert fold.tolist() == [[0] * 40 + [1] * 40, [2] * 40 + [3] * 40]
    trained = crossvalidation.trained_on(pool, np.arange(80), fold[0] == 1, "square", "b")
    assert trained.tolist() == [True] * 40 + [False] * 40


def test_what_shares_a_group_with_the_unseen_hospital_is_not_trained_on(phantoms):
    pixels, hospitals = phantoms.pixels.copy(), np.array(["a", "b"] * 24)
    pixels[1] = pixels[0][:, ::-1]
    pool = of_pixels(pixels, phantoms.table.assign(hospital=hospitals))
    unseen = {name: hospitals == name for name in "ab"}
    trained = {name: crossvalidation.trained_on(pool, pool.groups, unseen[name], "square", name) for name in "ab"}
    assert not trained["a"][1] and not trained["b"][0]
    assert all((trained[name] ^ ~unseen[name]).sum() == 1 for name in "ab")
    pixels[1::2] = pixels[::2]
    pool = of_pixels(pixels, pool.table)
    with pytest.raises(UserError, match="what a is trained on holds one class only"):
        crossvalidation.trained_on(pool, pool.groups, unseen["a"], "square", "a")


def test_images_without_any_box_train_no_finder(pool):
    boxed = pool.hospitals == "a"
    of_a = pool.table.assign(**{side: np.where(boxed, 9.0, np.nan) for side in ("x", "y", "width", "height")})
    boxes_at_a = of_pixels(pool.pixels, of_a)
    assert crossvalidation.trained_on(boxes_at_a, np.arange(80), ~boxed, "lesion", "b").sum() == 40
    with pytest.raises(UserError, match="--view lesion: no image that a is trained on has a box. Give --view frame"):
        crossvalidation.trained_on(boxes_at_a, np.arange(80), boxed, "lesion", "a")


def test_hospitals_left_out_in_turn_from_the_tables_to_the_results(hospitals, tmp_path, runs):
    """Hospitals without splits of their own are scored whole: no image is put aside for a test."""
    out = tmp_path / "run"
    runs("crossval.py", "--data", *hospitals, "--groups", "hospital", "--refit", *TRAIN, "--out", out)
    assert {path.name for path in out.glob("*.pt")} == {"model.pt"}
    predicted = [(row["hospital"], row["fold"], row["split"]) for row in read_csv(out / "predictions.csv")]
    assert predicted == [("a", "1", "train")] * 40 + [("b", "2", "train")] * 40
    assert [row["hospital"] for row in read_csv(out / "folds.csv")] == ["a", "b"]

    stored, calibration = read_json(out / "metrics.json"), read_json(out / "calibration.json")
    entries = [entry for entry in stored["results"] if entry["threshold_name"] == "operating point"]
    parts = [(hospital, unit) for hospital in ("all", "a", "b") for unit in ("image", "patient")]
    assert [(entry["hospital"], entry["unit"]) for entry in entries] == parts
    assert all(entry["chose"] == ["calibration", "threshold"] and not entry["held_out"] for entry in entries)
    assert all(entry["recall"] >= 0.95 for entry in entries)  # of the images that chose the threshold
    about = {"on": "out_of_fold", "hospitals": ["a", "b"], "hospital_left_out": True, "n": 80}
    assert about.items() <= calibration["chosen_on"].items()
    achieved = [(entry["hospital"], entry["held_out"]) for entry in calibration["achieved"]]
    assert achieved == [("all", True), ("a", True), ("b", True)]

    text, _ = runs("evaluate.py", out, "--bootstrap", 100, "--threads", 1, "--by", "device")
    evaluated = read_json(out / "evaluation_all.json")
    assert evaluated["predictions"] == "out-of-fold predictions"
    assert "Each image is predicted by models that were not trained on any image of the same hospital." in text
    assert "each hospital with the threshold that the others choose" in text
    assert evaluated["splits"]["all"]["auc"] == stored["splits"]["out_of_fold"]["auc"]
    by_device = {(entry["hospital"], *entry["by"].values()) for entry in evaluated["results"] if "by" in entry}
    assert {("all", "a0"), ("a", "a0"), ("b", "b1")} < by_device and ("a", "b0") not in by_device
