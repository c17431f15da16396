"""No file of the user is lost: what --out may replace, and what it refuses before any work."""

import numpy as np
import pytest
from conftest import one_line, read_json, refusal
from PIL import Image

from common.run import outputs

QUICK = "--weights none --stages 2 --epochs 1 --batch-size 16 --threads 1".split()
TRAIN = ["train.py", "--data", "phantom", *QUICK]
COMMANDS = {
    "train": TRAIN,
    "crossval": ["crossval.py", "--data", "phantom", "--folds", "2", *QUICK],
    "tune": ["tune.py", "--data", "phantom", "--trials", "1", "--grid", "0", "--folds", "2", *QUICK],
    "audit": ["audit.py", "--data", "phantom"],
}


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("script", COMMANDS)
def test_a_file_of_the_user_under_any_name_that_is_written_is_refused_and_kept(script, runs, tmp_path):
    command = COMMANDS[script]
    runs(*command, "--out", first := tmp_path / "first")
    written = [path.name for path in files(first)]
    assert set(read_json(first / "run.json")["files"]) == {*written} - {"run.json"}
    for i, name in enumerate(written):
        mine = tmp_path / f"mine {i}" / name
        mine.parent.mkdir()
        mine.write_text("mine")
        _, err = runs(*command, "--out", mine.parent, status=2)
        assert name in one_line(err) and files(mine.parent) == [mine] and mine.read_text() == "mine"
    (first / "notes.txt").write_text("mine")
    (first / "fold_notes.pt").write_text("mine")
    runs(*command, "--out", first)  # replaces its own
    assert {path.name for path in files(first)} == {*written, "notes.txt", "fold_notes.pt"}


def test_the_files_of_export_and_evaluate_are_the_users_unless_they_wrote_them(runs, tmp_path):
    runs(*TRAIN, "--out", run := tmp_path / "run")
    before = set(files(run))
    runs("export.py", run, "--threads", "1")
    runs("evaluate.py", run, "--threads", "1")
    runs("evaluate.py", run / "model.onnx", "--threads", "1")
    made = set(files(run)) - before
    assert run / "model" / "report.html" in made  # an .onnx file's results have a folder of their own
    assert run / "model.parity.json" in made
    runs(*TRAIN, "--out", run)  # what was made of the earlier model goes with it
    assert set(files(run)) == before | {path for path in made if path.parent != run}
    for name in ("model.onnx", "model.parity.json"):
        (run / name).write_text("mine")
        assert name in one_line(runs("export.py", run, status=2)[1]) and (run / name).read_text() == "mine"
        (run / name).unlink()
    (run / "report.html").write_text("mine")
    assert "report.html" in one_line(runs("evaluate.py", run, status=2)[1])
    assert (run / "report.html").read_text() == "mine"


def test_an_output_folder_that_holds_its_input_is_refused(runs, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("benign", "malignant"):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(0, 256, (30, 30), np.uint8)).save(tmp_path / "scans" / name / f"{i}.png")
    rows = [f"{label}/{i}.png,{label}\n" for label in ("benign", "malignant") for i in range(12)]
    (table := tmp_path / "scans" / "images.csv").write_text("image,label\n" + "".join(rows))
    before = {path: path.read_bytes() for path in files(tmp_path)}
    for data, out in ((table, "scans"), ("scans", "scans/benign/out"), ("scans", "scans"), ("scans", "scans/out")):
        _, err = runs("train.py", "--data", tmp_path / data, *QUICK, "--out", tmp_path / out, status=2)
        assert str(tmp_path / "scans") in one_line(err)
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


def test_a_list_that_is_somebody_elses_is_refused(tmp_path):
    for text in ("mine", "[1]", '{"files": ["model.pt"]}', '{"format": "other", "files": {}}'):
        (tmp_path / "run.json").write_text(text)
        assert "run.json" in refusal(outputs.listed, tmp_path)
    assert outputs.listed(tmp_path / "absent") == {}
