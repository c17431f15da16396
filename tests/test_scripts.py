"""Scripts as a user runs them, on a few images; then on real data where there are any. tune.py and audit.py are run in
their own tests, and what is said of phantoms is in test_download.py.

What a later test goes on from is made by processes; what needs none of its own runs in this one. Both keep to one
thread, so that numbers agree to the last bit.
"""

import html
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import REPO, one_line, read_csv, read_json, run, start
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score

from common import data, files
from common.run import outputs

QUICK = ["--weights", "none", "--epochs", "2", "--stages", "2", "--threads", "1"]
PHANTOM = [*QUICK, "--data", "phantom"]  # so many images that there is time to interrupt an epoch
CROSSVAL = [*QUICK, "--folds", "2", "--repeats", "2", "--epochs", "1"]
EVALUATE = ["--bootstrap", "100", "--threads", "1"]
RUN_FILES = {"model.pt", "metrics.json", "history.csv", "predictions.csv", "curves.png", "calibration.json"}
RUN_FILES |= {"split.csv", "run.json"}
CONSOLE = "cp1251"  # has no ×, which the scripts print


def visible(folder) -> dict[str, bytes]:
    """The files of a folder that are not hidden."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def assert_same_run(found, expected):
    """Two run folders hold the same to the last bit, but what says where and how fast they were made."""
    numbers = [read_json(folder / "metrics.json") for folder in (found, expected)]
    for key in {*numbers[0], *numbers[1]} - {"config", "provenance"}:
        assert numbers[0][key] == numbers[1][key], key
    contents = [visible(folder) for folder in (found, expected)]
    for name in contents[1].keys() - {"metrics.json", "history.csv"}:
        assert contents[0][name] == contents[1][name], name


def own_npz(untrained) -> str:
    return untrained.data["sets"][0]["spec"]


@pytest.fixture(scope="session")
def trained(untrained, tmp_path_factory) -> tuple[Path, str]:
    """A run of train.py on the few images of `untrained`, and what it printed."""
    out = tmp_path_factory.mktemp("train") / "run"
    return out, run("train.py", *QUICK, "--data", own_npz(untrained), "--out", out, encoding=CONSOLE)[0]


@pytest.fixture(scope="session")
def crossvalidated(untrained, tmp_path_factory) -> tuple[Path, str]:
    """A run of crossval.py on them, and what it printed."""
    out = tmp_path_factory.mktemp("crossval") / "run"
    return out, run("crossval.py", *CROSSVAL, "--data", own_npz(untrained), "--out", out)[0]


@pytest.fixture(scope="session")
def exported(trained) -> tuple[Path, str]:
    """The .onnx of `trained`, and what export.py printed."""
    return trained[0] / "model.onnx", run("export.py", trained[0], "--threads", 1, encoding=CONSOLE)[0]


def test_train_writes_the_files_of_the_contract(trained):
    out, stdout = trained
    assert {path.name for path in out.iterdir()} >= RUN_FILES and not list(out.glob(".*"))
    assert stdout.splitlines()[-2].startswith(r"own 28\xd728: test AUC")
    metrics = read_json(out / "metrics.json")
    assert metrics["config"]["lr"] == 3e-4 and metrics["config"]["epochs"] == 2
    for split, n in (("val", 12), ("test", 12), ("clean_test", 12)):
        summary = metrics["splits"][split]
        assert summary["n"] == n
        for name in ("accuracy", "auc", "aupr", "f1", "precision", "recall", "specificity", "macro_f1"):
            value, (low, high) = summary[name], summary[f"{name}_ci95"]
            assert (value, low, high) == (None, None, None) or 0 <= low <= value <= high <= 1, name
        assert set(summary["benign"]) >= {"f1", "aupr", "precision", "recall"}
    fields = ("on", "hospital", "unit", "subset", "threshold_name", "held_out")
    threshold = metrics["calibration"]["threshold"]
    assert {tuple(entry[name] for name in fields) for entry in metrics["results"]} == {
        (on, "own", "image", subset, name, on == "test")
        for on, subset in (("val", "all"), ("test", "all"), ("test", "clean"))
        for name in ("standard", "operating point")
    }
    assert {entry["threshold"] for entry in metrics["results"]} == {0.5, threshold}
    assert {row["split"] for row in read_csv(out / "split.csv")} == {"train", "val", "test"}


def test_a_run_says_how_it_was_made(trained):
    made = read_json(trained[0] / "metrics.json")["provenance"]
    assert made["command"].endswith(shlex.join(["--out", str(trained[0])]))
    assert "train.py --weights none" in made["command"]
    assert (made["threads"], made["seed"], made["packages"]["torch"]) == (1, 0, torch.__version__.split("+")[0])
    assert made["data"]["md5"] and made["cpu"] and {"commit", "uncommitted_changes", "gpu"} < made.keys()
    assert made["packages"].keys() >= {"numpy", "torch", "torchvision", "medmnist", "onnxruntime"}


@pytest.fixture
def tested(trained, untrained) -> tuple[data.Images, np.ndarray]:
    """The test images of `trained`, and the probabilities that it stored of them."""
    test = data.load(data.find([own_npz(untrained)], None, 28), "test")
    rows = [row for row in read_csv(trained[0] / "predictions.csv") if row["split"] == "test"]
    assert [int(row["index"]) for row in rows] == list(range(12))
    assert [int(row["label"]) for row in rows] == test.labels.tolist()
    return test, np.array([float(row["probability"]) for row in rows])


def test_predictions_give_the_metrics(trained, tested):
    test, probabilities = tested
    stored = read_json(trained[0] / "metrics.json")["splits"]["test"]
    assert stored["auc"] == pytest.approx(roc_auc_score(test.labels, probabilities), abs=1e-12)
    assert stored["accuracy"] == pytest.approx(accuracy_score(test.labels, probabilities >= 0.5), abs=1e-12)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory) -> Path:
    """A run of train.py on phantoms that is left alone."""
    out = tmp_path_factory.mktemp("uninterrupted")
    run("train.py", *PHANTOM, "--out", out)
    return out


@pytest.mark.slow
def test_interrupted_and_killed_it_ends_with_the_same_numbers(uninterrupted, tmp_path):
    """Ctrl-C in the second epoch, kill -9 after it, --resume to the end; the earlier run stays until then."""
    for name in ("model.pt", "metrics.json", "model.onnx", "notes.txt"):
        (tmp_path / name).write_text(name)
    outputs.record(tmp_path, ["model.pt", "metrics.json", "model.onnx"])
    listed = read_json(tmp_path / "run.json")
    listed["files"] = dict.fromkeys(listed["files"], "crossval.py")
    (tmp_path / "run.json").write_text(json.dumps(listed))
    earlier = visible(tmp_path)

    process, _ = start("train.py", *PHANTOM, "--out", tmp_path, until="epoch   1")
    process.send_signal(signal.SIGSTOP)
    out, err = run("train.py", *PHANTOM, "--resume", "--out", tmp_path, status=2)
    assert f"at work there (pid {process.pid} on" in one_line(err) and out == ""
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("to continue from here, repeat the command with --resume\ninterrupted\n")
    assert "Traceback" not in err and visible(tmp_path) == earlier

    process, err = start("train.py", *PHANTOM, "--resume", "--out", tmp_path, until="epoch   2/2  train")
    process.kill()
    process.communicate(timeout=60)
    assert "goes on after epoch   1/2" in err and "epoch   1/2  train" not in err
    assert process.returncode == -signal.SIGKILL and visible(tmp_path) == earlier

    out, err = run("train.py", *PHANTOM, "--resume", "--out", tmp_path)
    assert "goes on after epoch   2/2" in err and "epoch   2/2  train" not in err
    assert_same_run(tmp_path, uninterrupted)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", *RUN_FILES}


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_run_and_can_be_resumed(uninterrupted, tmp_path):
    """On a file system of the test's own that has room for one checkpoint, not two; then with room for all."""
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    train = shlex.join([sys.executable, "train.py", *PHANTOM, "--out", str(disk)])
    listed = json.dumps({"format": outputs.FORMAT, "files": {"model.pt": "train.py"}})
    list_model = f"echo {shlex.quote(listed)} > {disk}/run.json"
    script = f"""mount -t tmpfs -o size=15m tmpfs {disk} || exit 77
        {list_model}; echo old > {disk}/model.pt; {train}; echo $?; cat {disk}/model.pt; ls {disk}
        mount -o remount,size=100m {disk} && {train} --resume > {copy}.log && cp -r {disk} {copy}"""
    command, environment = ["unshare", "-m", "sh", "-c", script], os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=300)
    if result.returncode == 77 or "Operation not permitted" in result.stderr:
        pytest.skip("mounting a small tmpfs needs root")
    assert result.stdout == "2\nold\nmodel.pt\nrun.json\n", result.stderr
    (error,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert "cannot be written" in error and "Traceback" not in result.stderr
    assert_same_run(copy, uninterrupted)


def test_parity_is_checked_and_stored(exported):
    file, stdout = exported
    rows = read_json(file.with_name("model.parity.json"))["rows"]
    assert {(row["split"], row["n"], row["batch"]) for row in rows} >= {("test", 12, 1), ("test", 12, 64)}
    assert all(row["max_difference"] <= 1e-5 and row["labels_differ"] == 0 for row in rows)
    assert r"own 28\xd728" in stdout and "against Pillow" in stdout
    assert list(file.parent.glob("model.onnx*")) == [file]  # one file, no external data


def test_the_file_gives_the_run_s_probabilities_to_an_app_and_to_predict(exported, tested, tmp_path):
    session, (test, stored) = onnxruntime.InferenceSession(exported[0]), tested
    probability, logit = session.run(["probability", "logit"], {"image": test.pixels})
    assert np.allclose(probability, stored, rtol=0, atol=1e-5)
    assert np.allclose(probability, 1 / (1 + np.exp(-logit.astype(float))), atol=1e-6)
    props = session.get_modelmeta().custom_metadata_map
    assert props["positive_class"] == "malignant" and props["intended_use"] == "research only, not a medical device"
    assert read_json(exported[0].with_name("calibration.json"))["threshold"] == float(props["threshold"])
    assert props["dataset"] == "own"
    Image.fromarray(test.pixels[0]).save(tmp_path / "first.png")
    out, _ = run("predict.py", exported[0], tmp_path, "--json", encoding=CONSOLE)
    assert json.loads(out)["probability"] == pytest.approx(stored[0], abs=1e-5)


def test_evaluate_gives_the_numbers_of_the_run_and_finds_its_file_as_good(trained, exported, tmp_path):
    """To the last digit, intervals included; on a console that lacks the × of 28×28."""
    words = ("evaluate.py", trained[0], "--against", exported[0], "--threads", 1, "--out", tmp_path)
    stdout, _ = run(*words, encoding=CONSOLE)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    evaluation = read_json(tmp_path / "run/evaluation_test.json")
    stored = read_json(trained[0] / "metrics.json")
    assert evaluation["results"] == [entry for entry in stored["results"] if entry["on"] == "test"]
    assert evaluation["seen"] == {"trained on": 0, "chose": 0, "near-duplicate": 0, "unseen": 12}
    rows, known = (read_csv(folder / name) for folder, name in (
        (tmp_path / "run", "predictions_test.csv"), (trained[0], "predictions.csv"),
    ))  # fmt: skip
    assert [row["probability"] for row in rows] == [row["probability"] for row in known if row["split"] == "test"]
    comparison = evaluation["comparison"]
    assert comparison["delong"]["difference"] == 0 and comparison["mcnemar"]["p"] == 1 and comparison["n"] == 12
    assert comparison["conclusion"] in stdout
    figures = "roc precision_recall reliability confusion scores evidence comparison decision".split()
    written = {f"{name}_test.png" for name in figures} | {"report.html", "evaluation_test.json", "predictions_test.csv"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == written | {"run.json"}
    heading = f"<h1>Evaluation of {trained[0].name} on the test split</h1>"
    report = html.unescape((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert heading in report and "<h2>Comparison</h2>" in report and comparison["conclusion"] in report
    assert "own 28×28: predictions of the model" in report


@pytest.mark.slow
def test_the_whole_chain_on_real_data(breastmnist_root, tmp_path, runs):
    """Splits, clean test, the file that medmnist itself reads, and parity on every image."""
    medmnist = pytest.importorskip("medmnist")  # takes seconds
    real, root, out = tmp_path / "run", ["--data-root", breastmnist_root], tmp_path / "evaluated"
    runs("train.py", *QUICK, *root, "--epochs", 1, "--out", real)
    metrics = read_json(real / "metrics.json")
    sizes = {name: summary["n"] for name, summary in metrics["splits"].items()}
    assert sizes == {"val": 78, "test": 156, "clean_test": 93} and "synthetic" not in metrics

    class Evaluator(medmnist.Evaluator):
        def __init__(self, flag, split, size=None):
            super().__init__(flag, split, size, root=str(breastmnist_root))

    runs("evaluate.py", real, *root, *EVALUATE, "--out", out)
    (file,) = (out / "run").glob("breastmnist_test_*@run.csv")
    found, test = Evaluator.parse_and_evaluate(str(file), run="parsed"), metrics["splits"]["test"]
    assert list(found) == pytest.approx([test["auc"], test["accuracy"]], abs=1e-12)

    runs("export.py", real, *root, "--threads", 1)
    rows = read_json(real / "model.parity.json")["rows"]
    assert [(row["n"], row["batch"]) for row in rows if row["split"] == "test"] == [(156, 1), (156, 64)]
    assert max(row["max_difference"] for row in rows) <= 1e-5


class TestCrossval:
    def test_folds_predictions_and_test(self, crossvalidated):
        out, stdout = crossvalidated
        assert sorted(path.name for path in out.glob("*.pt")) == [f"fold_{i}.pt" for i in (1, 2, 3, 4)]
        rows = read_csv(out / "predictions.csv")
        held_out = [row for row in rows if row["fold"]]
        assert len(held_out) == 2 * 36 and {row["fold"] for row in held_out} == set("1234")
        for repeat in ("12", "34"):
            images = {(row["split"], row["index"]) for row in held_out if row["fold"] in repeat}
            assert len(images) == 36  # every image once in each repeat
        assert sum(row["split"] == "test" for row in rows) == 12
        metrics = read_json(out / "metrics.json")
        assert metrics["splits"]["out_of_fold"]["n"] == 36 and len(metrics["folds"]) == 4
        assert [repeat["n"] for repeat in metrics["repeats"]] == [36, 36]
        assert len(read_csv(out / "folds.csv")) == 4
        assert all(f"mean ± std over {kind}" in stdout for kind in ("folds", "repeats"))
        assert {fold["hospital"] for fold in metrics["folds"]} == {"own"}

    def test_fewer_folds_leave_no_stale_model(self, untrained, tmp_path, runs):
        (tmp_path / "fold_7.pt").write_bytes(b"of an earlier run")
        files.write_json(tmp_path / "run.json", {"format": outputs.FORMAT, "files": {"fold_7.pt": "crossval.py"}})
        flags = ["--folds", 2, "--no-test", "--pool", "train", "--groups", "image"]
        runs("crossval.py", *QUICK, *flags, "--data", own_npz(untrained), "--out", tmp_path)
        assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["fold_1.pt", "fold_2.pt"]
        assert "test" not in {row["split"] for row in read_csv(tmp_path / "predictions.csv")}
        assert set(read_json(tmp_path / "metrics.json")["splits"]) == {"out_of_fold"}

    @pytest.mark.slow
    def test_killed_it_ends_with_the_same_numbers_and_repeats_no_fold(self, tmp_path_factory, tmp_path):
        """Two workers, beside one that is left alone."""
        whole = tmp_path_factory.mktemp("whole")
        printed, _ = run("crossval.py", *CROSSVAL, "--data", "phantom", "--out", whole)
        flags = [*CROSSVAL, "--data", "phantom", "--threads", 2, "--out", tmp_path]
        process, _ = start("crossval.py", *flags, until="fold 2  epoch")
        process.kill()
        process.communicate(timeout=60)  # its workers, which hold the same pipes, have ended too
        done = {path.stem.removeprefix("fold_") for path in (tmp_path / ".breastmnist/partial").glob("fold_*.pt")}
        assert done >= {"2"} and not (tmp_path / "metrics.json").exists()
        out, err = run("crossval.py", *flags, "--resume")
        assert {line.split()[1] for line in err.splitlines() if "goes on after epoch   1/1" in line} == done
        assert err.count("epoch   1/1  train") == 4 - len(done)
        assert_same_run(tmp_path, whole)
        assert out.replace(str(tmp_path), str(whole)) == printed

    def test_ensemble_is_evaluated_out_of_fold_on_its_own_images(self, crossvalidated, runs):
        out, _ = crossvalidated
        runs("evaluate.py", out, "--split", "val", *EVALUATE)
        evaluation = read_json(out / "evaluation_val.json")
        assert evaluation["predictions"] == "out-of-fold predictions" and evaluation["splits"]["val"]["n"] == 12
        assert {(entry["held_out"], *entry["chose"]) for entry in evaluation["results"]} == {
            (False, "calibration", "threshold")
        }
        assert evaluation["notes"][-2].endswith("its near-duplicates, or other images of its patient.")
        assert (out / "folds_val.png").exists()
        listed = read_json(out / "run.json")["files"]
        assert listed.keys() == {path.name for path in out.iterdir()} - {
            "run.json"
        }  # the next run leaves nothing stale
