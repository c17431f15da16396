"""No file of the user is lost: what --out may replace, and what it refuses before any work."""

import shutil

import numpy as np
import pytest
from conftest import one_line, read_json, refusal
from PIL import Image

import evaluate
from common import files
from common.deploy import graph, parity
from common.run import outputs, resume
from common.show import figures

QUICK = "--weights none --stages 2 --epochs 1 --batch-size 16 --threads 1".split()
COMMANDS = {
    "train": ["train.py", *QUICK],
    "crossval": ["crossval.py", "--folds", "2", *QUICK],
    "tune": ["tune.py", "--trials", "1", "--grid", "0", "--folds", "2", *QUICK],
    "audit": ["audit.py"],
}


def content(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(runs, command, folder, name: str) -> bool:
    """Whether a command refuses to write where the user has a file of a name, and keeps all as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("mine")
    before = content(folder)
    _, err = runs(*command, status=2)
    kept = content(folder) == before
    (folder / name).unlink()
    return name in one_line(err) and kept


@pytest.mark.parametrize("script", COMMANDS)
def test_a_file_of_the_user_under_any_name_that_is_written_is_refused_and_kept(script, runs, tmp_path, npz):
    command = [*COMMANDS[script], "--data", npz().sets[0].spec, "--out"]
    runs(*command, first := tmp_path / "first")
    written = {path.name for path in content(first)}
    assert set(read_json(first / "run.json")["files"]) == written - {"run.json"}
    mine = tmp_path / "mine"
    assert [name for name in written if not refused(runs, [*command, mine], mine, name)] == []
    if script == "train":
        (first / "fold_notes.pt").write_text("mine")
        runs(*command, first)  # replaces its own
        assert {path.name for path in content(first)} == {*written, "fold_notes.pt"}


@pytest.fixture
def exported(untrained, onnx_model, tmp_path):
    """A copy of `untrained` with its .onnx file."""
    run = shutil.copytree(untrained.path, tmp_path / "run", ignore=shutil.ignore_patterns("*.npz"))
    shutil.copy(onnx_model.path, run / "model.onnx")
    return run


def test_the_files_of_export_are_the_users_unless_export_wrote_them(exported, runs, monkeypatch, network):
    monkeypatch.setattr(graph, "export_networks", lambda *_: {"frame": network})
    monkeypatch.setattr(parity, "SIZES", ((90, 60),))
    command = ["export.py", exported, "--fp16", "--threads", 1]  # as `network` is
    assert "model.onnx: would be overwritten" in one_line(runs(*command, status=2)[1])
    (exported / "model.onnx").unlink()
    for _ in range(2):
        runs(*command)  # replaces its own
    assert set(outputs.listed(exported)) == {"model.onnx", "model.json", "model.parity.json"}
    into = [*command, "--int8", "--out", exported / "mine" / "a.onnx"]
    for name in ("a.onnx", "a.int8.onnx", "a.parity.json", "run.json"):
        assert refused(runs, into, exported / "mine", name)


def test_the_files_of_calibrate_are_the_users_and_so_is_the_file_to_calibrate(exported, runs, npz):
    command = ["calibrate.py", exported / "model.onnx", "--data", npz().sets[0].spec]
    for name in ("model.local.onnx", "model.local.calibration.json", "model.local.calibration.png"):
        assert refused(runs, command, exported, name)
    _, err = runs(*command, "--out", exported / "model.onnx", status=2)
    assert "is the file to calibrate" in one_line(err)


def test_results_go_into_the_run_or_into_a_folder_called_like_the_onnx_file(exported, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "save", lambda figure, path: Image.new("L", (2, 2)).save(path))  # quick
    flags, written = ["--bootstrap", 100, "--threads", 1], []
    shutil.copy(exported / "model.onnx", exported / "other.onnx")
    commands = {exported: [exported], exported / "model": [exported / "model.onnx"]}
    commands[tmp_path / "out" / "other"] = [exported / "other.onnx", "--out", tmp_path / "out"]
    for folder, words in commands.items():
        command = ["evaluate.py", *words, *flags]
        names = [*evaluate.FILES, "run.json"] if folder.name == "other" else ["report.html"]
        assert [name for name in names if not refused(runs, command, folder, name.format("test"))] == []
        before = set(content(tmp_path))
        runs(*command)
        made = set(content(tmp_path)) - before
        assert {path.parent for path in made} == {folder}
        written.append({path.name for path in made} - {"run.json"})
    assert written[0] == written[1] == written[2]
    assert written[0] > {"evaluation_test.json", "predictions_test.csv", "report.html", "roc_test.png"}
    (exported / "images.csv").write_text("the user's, beside an .onnx file")
    runs("evaluate.py", exported / "model.onnx", *flags)  # replaces its own
    outputs.remove(exported, resume.OF_A_RUN)  # as a new run does
    assert (exported / "images.csv").exists() and not (exported / "report.html").exists()


def test_an_output_folder_that_holds_its_input_is_refused(runs, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("benign", "malignant"):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(0, 256, (30, 30), np.uint8)).save(tmp_path / "scans" / name / f"{i}.png")
    rows = [{"image": f"{label}/{i}.png", "label": label} for label in ("benign", "malignant") for i in range(12)]
    files.write_csv(table := tmp_path / "scans" / "images.csv", rows)
    before = content(tmp_path)
    for data, out in ((table, "scans"), ("scans", "scans/benign/out"), ("scans", "scans"), ("scans", "scans/out")):
        _, err = runs("train.py", "--data", tmp_path / data, *QUICK, "--out", tmp_path / out, status=2)
        assert str(tmp_path / "scans") in one_line(err)
    assert content(tmp_path) == before


def test_a_list_that_is_somebody_elses_is_refused(tmp_path):
    for text in ("mine", "[1]", '{"files": ["model.pt"]}', '{"format": "other", "files": {}}'):
        (tmp_path / "run.json").write_text(text)
        assert "run.json" in refusal(outputs.listed, tmp_path)
    assert outputs.listed(tmp_path / "absent") == {}
