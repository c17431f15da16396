"""Training and calibrating with images of several hospitals."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from common_fixtures import forget
from conftest import one_line, read_csv, read_json
from PIL import Image

import crossval
from common import crossvalidation, data, files, origin, phantom, scoring
from common.calibration import LEFT_OUT, calibrate, fit_temperature, sigmoid
from common.crossvalidation import Scheme
from common.deploy import graph, parity
from common.errors import UserError
from common.run import folders

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
        rows = [{"image": f"{i}.png", "label": label, "patient": i // 2} for i, label in enumerate(labels)]
        files.write_csv(folder / "images.csv", rows)
        files.write_csv(folder / "benign.csv", [row for row in rows if not row["label"]])
        files.write_csv(folder / "half.csv", rows[::2])
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


@pytest.mark.parametrize(
    "given, cause",
    [
        ("A --also A", "--also .* the same images"),
        ("A --also B B", "--also .* the same images"),
        ("B --also HALF", r"--also: holds \d+ of the \d+ images of test"),
        ("A --calibrate-on A", "--calibrate-on .* is among --data and --also"),
        ("A --also B --calibrate-on B", "--calibrate-on .* is among --data and --also"),
        ("A --also B --calibrate-on HALF", "--calibrate-on .*: 20 of its images are trained on"),
        ("A --calibrate-on phantom", "--calibrate-on phantom: "),
        ("A --calibrate-on BENIGN", "--calibrate-on .*: holds one class only"),
        ("A --also BENIGN --groups hospitals", "--groups hospitals: .* holds one class only"),
        ("A --pool all --drop-test-twins", "leaves nothing to test on"),
    ],
)
def test_what_would_mislead_is_refused_before_training(given, cause, hospitals, tmp_path, runs):
    a, b = hospitals
    named = {"A": a, "B": b, "HALF": b.replace("images", "half"), "BENIGN": b.replace("images", "benign")}
    words = [named.get(word, word) for word in given.split()]
    _, err = runs("crossval.py", "--data", *words, *TRAIN, "--out", tmp_path / "run", status=2)
    assert re.search(cause, one_line(err)) and not (tmp_path / "run").exists()


def test_data_of_the_same_name_are_refused(hospitals, tmp_path):
    shutil.copytree(Path(hospitals[0]).parent, again := tmp_path / Path(hospitals[0]).parent.name)
    (again / "images.csv").write_text((again / "half.csv").read_text())
    with pytest.raises(UserError, match="--also .*called .* rename one"):
        data.find(hospitals[0], None, 28, also=[str(again / "images.csv")])


def test_images_of_test_are_left_out_of_the_other_hospitals(hospitals):
    source = data.find(hospitals[1], None, 28, also=[hospitals[1].replace("images", "half")])
    (test,) = data.load(source, "test")
    pools = [crossval.read_pool(source, ["train", "val", "also"], left_out) for left_out in (False, True)]
    assert [scoring.count_seen(test, pool)["trained_on"] > 0 for pool in pools] == [True, False]
    with pytest.raises(UserError, match="of val; leave these out"):
        scoring.require_unseen(source, "leave these out", "val", "test")


def test_other_hospitals_are_found_again_with_their_seed_and_contents(hospitals, tmp_path, capsys, monkeypatch):
    shutil.copytree(Path(hospitals[1]).parent, tmp_path / "b")
    table, moved = str(tmp_path / "b/images.csv"), str(tmp_path / "c/images.csv")
    described = data.find(hospitals[0], None, 28, seed=5, also=[table]).describe()
    again = origin.find_again(described, None, None, None, None)
    assert again.describe() == described and len(origin.load_again(described, None, ["also"])) == 40
    (tmp_path / "b").rename(tmp_path / "c")
    forget()
    assert not origin.find_again(described, None, None, None, None).also
    assert "are left out" in capsys.readouterr().err and origin.load_again(described, None, ["also"]) is None
    assert len(origin.load_again(described, None, ["also"], also=[moved])) == 40
    found = origin.find_again(described, hospitals[0], None, None, None, also=[moved])
    assert found.also[0].md5 == described["also"][0]["md5"] and capsys.readouterr().err == ""
    with pytest.raises(UserError, match=f"in this order: {re.escape(table)}"):
        origin.find_again(described, None, None, None, None, also=[moved, moved])
    assert not origin.find_again(described, moved, None, None, None).also  # of other data than the run's
    assert capsys.readouterr().err == ""  # it was trained on these too
    files.write_csv(tmp_path / "c/images.csv", read_csv(moved)[1:])
    forget()
    origin.find_again(described, None, None, None, None, also=[moved])
    assert "is not what the model was trained on" in capsys.readouterr().err
    (tmp_path / "c").rename(tmp_path / "b")
    assert origin.load_again(described, None, ["also"]) is None
    monkeypatch.setattr(data, "fetch", lambda *_: pytest.fail("it is downloaded"))
    absent = described | {"also": [{"name": "breastmnist", "seed": 0, "md5": ""}]}
    assert origin.load_again(absent, str(tmp_path), ["also"]) is None


def test_what_shares_a_group_with_the_unseen_hospital_is_not_trained_on(phantoms):
    rows = [row | {"hospital": "ab"[i % 2]} for i, row in enumerate(phantoms.rows)]
    pool = replace(phantoms, rows=np.array(rows, dtype=object), images=phantoms.images.copy())
    pool.images[1] = pool.images[0][:, ::-1]
    unseen = {name: pool.hospitals == name for name in "ab"}
    trained = {name: crossvalidation.trained_on(pool, data.find_groups(pool), unseen[name], name) for name in "ab"}
    assert not trained["a"][1] and not trained["b"][0]
    assert all((trained[name] ^ ~unseen[name]).sum() == 1 for name in "ab")
    pool.images[1::2] = pool.images[::2]
    with pytest.raises(UserError, match="what a is trained on holds one class only"):
        crossvalidation.trained_on(pool, data.find_groups(pool), unseen["a"], "a")


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


@pytest.fixture
def traced_once(monkeypatch):
    """Let export.py trace the network of a run once, however often a test exports it, and try one size."""
    export, traced = graph.export_network, []

    def export_once(*given):
        if not traced:
            traced.append(export(*given))
        return traced[0]

    monkeypatch.setattr(graph, "export_network", export_once)
    monkeypatch.setattr(parity, "SIZES", ((90, 60),))


@pytest.mark.slow
def test_a_run_of_two_hospitals_from_folds_to_a_file(hospitals, traced_once, tmp_path, runs):
    out = tmp_path / "run"
    both = ["--groups", "hospitals", "--compare-groups", "--refit", 2]
    text, _ = runs("crossval.py", "--data", hospitals[0], "--also", hospitals[1], *both, *TRAIN, "--out", out)
    assert "knowing the hospital adds" in text and (out / "fold_2.pt").exists() and not (out / "fold_3.pt").exists()
    stored = read_json(out / "metrics.json")
    assert [chosen["fitted_on"] for chosen in stored["calibrations"]] == [LEFT_OUT, "out-of-fold predictions"]
    whole = [name for name in stored["splits"] if not name.endswith("_patients")]
    assert len(whole) == 5 and all(f"hospital_{i}0/images.csv" in "".join(whole) for i in (1, 2))
    assert {row["split"] for row in read_csv(out / "predictions.csv")} == {"train", "val", "also", "test"}
    runs("export.py", out, "--threads", 1)
    parity = read_json(out / "parity.json")
    assert {row["split"] for row in parity["rows"]} == {"train", "val", "test", "also"}
    flags = ["--data", hospitals[1], "--bootstrap", 100, "--threads", 1, "--out", tmp_path]
    text, _ = runs("evaluate.py", out / "model.onnx", *flags)
    assert "trained on 40" in text
    gone = Path(hospitals[1]).parent.rename(tmp_path / "gone")
    _, err = runs("export.py", out, "--threads", 1, status=2)
    assert one_line(err).endswith("say where by --also")
    runs("evaluate.py", out, *flags[2:])
    assert set(read_json(tmp_path / "evaluation_test.json")["splits"]) == {"test", "test_patients"}
    runs("export.py", out, "--threads", 1, "--also", gone / "images.csv")
    gone.rename(Path(hospitals[1]).parent)


def test_calibrating_on_a_hospital_that_trains_nothing(hospitals, tmp_path, runs):
    out = tmp_path / "run"
    runs("crossval.py", "--data", hospitals[0], "--calibrate-on", hospitals[1], "--refit", *TRAIN, "--out", out)
    stored = read_json(out / "metrics.json")
    assert stored["calibrations"][0]["fitted_on"].endswith("not trained on") and len(stored["calibrations"]) == 2
    at = stored["operating_point"]["splits"]["elsewhere"]
    assert at["n"] == 40 and at["recall"] >= 0.95
    assert folders.load(out).held_out["recall"] == at["recall"]
    threshold = read_json(out / "calibration.json")["threshold"]
    said = runs("evaluate.py", out, "--data", hospitals[1], "--bootstrap", 100, "--threads", 1)[0]
    assert f"\nImages called {Path(hospitals[1]).parent.name}/images.csv chose it: " in said
    runs("evaluate.py", out, "--sensitivity", 0.95, "--bootstrap", 100, "--threads", 1)  # on the same held-out images
    assert read_json(out / "calibration.json")["threshold"] == pytest.approx(threshold, abs=1e-6)
    runs("evaluate.py", out, "--sensitivity", 0.5, "--bootstrap", 100, "--threads", 1)
    assert not folders.load(out).held_out  # metrics.json keeps the rates of the old one
