"""Training and calibrating with images of several hospitals."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import read_csv
from PIL import Image

from common import crossvalidation, data, origin, phantom
from common.calibration import LEFT_OUT, calibrate, fit_temperature, sigmoid
from common.crossvalidation import Scheme

TRAIN = "--weights none --stages 2 --epochs 1 --batch-size 16 --threads 1 --folds 2".split()


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Two tables of 40 phantoms each, whose patients have the same numbers."""
    tables = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"hospital_{seed}")
        images, labels = phantom.generate(40, 60, seed=seed, malignant_share=0.5)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{i}.png")
        with open(folder / "images.csv", "w", newline="") as file:
            rows = [("image", "label", "patient"), *((f"{i}.png", label, i // 2) for i, label in enumerate(labels))]
            csv.writer(file).writerows(rows)
        tables.append(str(folder / "images.csv"))
    return tables


def test_further_images_are_all_for_training_and_their_patients_are_their_own(hospitals):
    source = data.find(hospitals[0], None, 28, also=hospitals[1:])
    (pool,) = data.load(source, "also")
    assert len(pool) == 40 and set(pool.hospitals) == {source.also[0].called}
    assert not set(pool.patients) & set(data.load(source, "all")[0].patients)
    assert origin.describes_data(source.describe() | {"trained_on": ["train", "also"]})
    again = origin.find_again(source.describe(), None, None, None, None)
    assert [other.md5 for other in again.also] == [other.md5 for other in source.also]


def test_each_hospital_is_predicted_by_a_model_that_has_not_seen_it(hospitals, quick):
    source = data.find(hospitals[0], None, 28, also=hospitals[1:])
    pool = data.concatenate(*data.load(source, "all", "also"))
    scheme = Scheme("hospitals", 5, 2, seed=0, refit=0, jobs=1, threads=1, device=torch.device("cpu"))
    result = crossvalidation.cross_validate(pool, replace(quick, epochs=1), scheme)
    assert result.fold.tolist() == [[0] * 40 + [1] * 40, [2] * 40 + [3] * 40] and len(result.models) == 4
    assert not result.refit and np.isfinite(result.logits).all()


def test_the_most_cautious_hospital_calibrates():
    rng = np.random.default_rng(0)
    labels, parts = rng.integers(0, 2, 400), np.repeat(["a", "b"], 200)
    logits = (2 * labels - 1) * np.where(parts == "a", 3, 0.5) + rng.normal(0, 2, 400) - (parts == "b")
    found = calibrate(labels, logits, 0.9, LEFT_OUT, parts)
    alone = [parts == part for part in "ab"]
    assert found.temperature == max(fit_temperature(logits[part], labels[part]) for part in alone)
    flagged = sigmoid(logits / found.temperature) >= found.threshold
    assert min(flagged[part & (labels == 1)].mean() for part in alone) == pytest.approx(0.9, abs=0.01)


def test_a_run_of_two_hospitals_from_folds_to_a_file(hospitals, tmp_path, runs):
    out = tmp_path / "run"
    both = ["--groups", "hospitals", "--compare-groups", "--refit", 2]
    text, _ = runs("crossval.py", "--data", hospitals[0], "--also", hospitals[1], *both, *TRAIN, "--out", out)
    assert "knowing the hospital adds" in text and (out / "fold_2.pt").exists() and not (out / "fold_3.pt").exists()
    stored = json.loads((out / "metrics.json").read_text())
    assert [chosen["fitted_on"] for chosen in stored["calibrations"]] == [LEFT_OUT, "out-of-fold predictions"]
    whole = [name for name in stored["splits"] if not name.endswith("_patients")]
    assert len(whole) == 5 and all(f"hospital_{i}0/images.csv" in "".join(whole) for i in (1, 2))
    assert {row["split"] for row in read_csv(out / "predictions.csv")} == {"train", "val", "also", "test"}
    runs("export.py", out, "--threads", 1)
    parity = json.loads((out / "parity.json").read_text())
    assert {row["split"] for row in parity["rows"]} == {"train", "val", "test", "also"}
    flags = ["--data", hospitals[1], "--bootstrap", 100, "--threads", 1, "--out", tmp_path]
    text, _ = runs("evaluate.py", out / "model.onnx", *flags)
    assert "trained on 40" in text


def test_calibrating_on_a_hospital_that_trains_nothing(hospitals, tmp_path, runs):
    out = tmp_path / "run"
    runs("crossval.py", "--data", hospitals[0], "--calibrate-on", hospitals[1], "--refit", *TRAIN, "--out", out)
    stored = json.loads((out / "metrics.json").read_text())
    assert stored["calibrations"][0]["fitted_on"].endswith("not trained on") and len(stored["calibrations"]) == 2
    at = stored["operating_point"]["splits"]["elsewhere"]
    assert at["n"] == 40 and at["recall"] >= 0.95
    threshold = json.loads((out / "calibration.json").read_text())["threshold"]
    runs("evaluate.py", out, "--sensitivity", 0.95, "--bootstrap", 100, "--threads", 1)  # on the same held-out images
    assert json.loads((out / "calibration.json").read_text())["threshold"] == pytest.approx(threshold, abs=1e-6)
