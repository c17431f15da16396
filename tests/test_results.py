"""The pages say what the committed results say."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO, read_json
from PIL import Image
from test_publicsets import make_busbra

import crossval
import export
import train
from common import data, metrics
from results import busbra_table, card, lesion, limits, log, measure, table


def test_the_tables_of_results_are_made_from_the_result_files():
    made = [table.table(), table.held_out_table(), table.hospital_table()]
    assert all(one in (REPO / "docs" / "results.md").read_text(encoding="utf-8") for one in made)
    first_page = (REPO / "README.md").read_text(encoding="utf-8").split("\n## Results\n")[1].split("\n## ")[0]
    rows = [line for line in first_page.splitlines() if line.startswith("|")]
    assert 6 <= len(rows) <= 20 and set(rows) <= set("\n".join(made).splitlines())


@pytest.mark.parametrize("name", ["experiments", "travel"])
def test_the_tables_of_logs_are_made_from_their_rows(name):
    assert measure.table(name) in (REPO / "results" / "README.md").read_text(encoding="utf-8")


def test_the_table_of_limits_is_made_from_its_rows():
    assert limits.table() in (REPO / "results" / "README.md").read_text(encoding="utf-8")


def test_where_a_script_fails_its_line_and_exit_status_are_all(tmp_path, capfd):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('error: no images', file=sys.stderr)\nsys.exit(2)")
    with pytest.raises(SystemExit) as ended:
        log.run([str(script)], str(tmp_path / "out"))
    assert ended.value.code == 2 and capfd.readouterr().err == "error: no images\n"


def test_the_figure_s_data_are_those_of_the_runs_and_of_the_csv():
    shown = table.shown_scores()
    test = read_json(REPO / "results/crossval_hospitals.json")["splits"]["test"]
    assert shown["lesion, found"].pop("BreastMNIST's test, home") == (test["auc"], *test["auc_ci95"])
    assert all(set(points) == set(table.PLACES.values()) for points in shown.values())
    rows = {(row["the model looks at"], row["place"]): float(row["auc"]) for row in log.read("figure.csv")}
    for look, points in shown.items():
        assert all(rows[look, place] == pytest.approx(value, abs=1e-12) for place, (value, *_) in points.items())


def test_a_file_is_scored_on_all_images_of_a_set_and_the_card_reads_such_results(
    onnx_model, npz, phantoms, runs, tmp_path, monkeypatch
):
    found = {}

    def script(words: list[str], out: str, made: str) -> dict:
        runs(*words, "--out", out, "--bootstrap", 100, "--threads", 1)
        found.update(read_json(Path(out, made)))
        return found

    monkeypatch.setattr(log, "run", script)
    shutil.copy(onnx_model.path, tmp_path / "a.onnx")
    (row,) = card.score(tmp_path / "a.onnx", npz().paths[0])
    probabilities, labels = onnx_model.probabilities(phantoms.pixels), phantoms.labels
    expected = metrics.summary(labels, probabilities, onnx_model.calibration.threshold)
    assert (row["file"], row["set"], row["n"], row["trained_on"]) == ("a.onnx", "own", 48, 24)
    assert row["auc_low"] <= row["auc"] == f"{metrics.auc(labels, probabilities):.4f}" <= row["auc_high"]
    assert row["sensitivity"] == f"{expected['recall']:.4f}" and row["specificity"] == f"{expected['specificity']:.4f}"

    (name, scores, chosen), *_ = card.stored({"results": json.dumps(found["results"])})
    assert name == "all" and scores["n"] == chosen["n"] == 48
    assert (scores["threshold"], chosen["threshold"]) == (0.5, 0.4) and "brier_ci95" in scores


def test_figures_of_images_that_a_file_was_trained_on_are_not_shown(monkeypatch):
    row = {"file": "a.onnx", "set": "breast", "unit": "image", "boxes": "", "n": "256", "trained_on": "200"}
    for name in ("auc", "accuracy", "brier", "sensitivity", "specificity"):
        row |= {name: "0.9", f"{name}_low": "0.8", f"{name}_high": "1"}
    unseen = row | {"set": "busbra", "trained_on": "0"}
    monkeypatch.setattr(log, "read", lambda name: [row, unseen])
    assert [*card.hospital_rows()] == [["`a.onnx`", "busbra, 256 images", *["0.900 (0.800 to 1.000)"] * 5]]


def test_the_half_of_busbra_has_the_patients_with_an_even_case_number(tmp_path):
    make_busbra(tmp_path)
    info = tmp_path / "bus_data.csv"
    info.write_text(info.read_text().replace("-l,1,", "-l,12,").replace("-s,3,", "-s,4,"))  # cases 12, 1 and 4
    made = busbra_table.table(tmp_path)
    assert [*made["image"]] == [str(tmp_path / f"Images/bus_{name}.png") for name in ("0001-l", "0003-s")]
    made.to_csv(tmp_path / "half.csv", index=False)
    found = data.find([str(tmp_path / "half.csv")], None, 28, 0, None, undivided="train")
    images = data.load(found, "train")
    assert (images.patients, [*images.labels], [*images.hospitals]) == (
        ["busbra/12", "busbra/4"],
        [0, 1],
        ["busbra"] * 2,
    )
    assert images.boxes[:, 2].tolist() == [10, 10]


def test_limits_are_measured_on_pictures_on_test_and_on_all_images_of_a_set(
    onnx_model, breastmnist_root, phantoms, tmp_path, monkeypatch
):
    for i, (pixels, label) in enumerate(zip(phantoms.pixels[:20], phantoms.labels)):
        file = tmp_path / "hospital" / ("malignant" if label else "benign") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    monkeypatch.setenv("MEDMNIST_ROOT", str(breastmnist_root))
    monkeypatch.setattr(log, "MODELS", onnx_model.path.parent)
    monkeypatch.setattr(limits, "pictures", lambda: iter([("black", np.zeros((30, 40)))] * 3))
    rows = list(limits.measure_all([str(tmp_path / "hospital")], ["model.onnx"]))
    assert [(row["kind"], row["n"]) for row in rows] == [("black", 3), ("BreastMNIST", 156), ("hospital", 20)]
    assert rows[0]["auc_not_marked"] == "" and 0 <= float(rows[1]["auc_not_marked"]) <= 1


@pytest.fixture
def travel(tmp_path, monkeypatch):
    """A function that runs results.measure on a copy of travel.csv, without running scripts; and what it ran."""
    ran: list[list[str]] = []

    def script(words: list[str], out: str) -> dict:
        ran.append([*words, out])
        scores = {name: 0.9 for name in measure.NAMES} | {"auc_ci95": [0.8, 1], "accuracy_ci95": [0.8, 1]}
        made = {"commit": "0123456789abcdef", "precision": "bf16", "weights_md5": "8a10"}
        folds = [{"hospital": "breast", "auc": 0.6}, {"hospital": "breastmnist", "auc": 0.7}]
        return {"provenance": made, "splits": {"out_of_fold": scores}, "folds": folds}

    def run(*words: str) -> list[list[str]]:
        ran.clear()
        monkeypatch.setattr(sys, "argv", ["measure.py", "travel", *words])
        measure.main()
        return ran

    (tmp_path / "travel.csv").write_bytes((log.FOLDER / "travel.csv").read_bytes())
    monkeypatch.setattr(log, "FOLDER", tmp_path)
    monkeypatch.setattr(log, "run", script)
    return run


def test_a_configuration_is_the_first_row_with_flags_added_and_runs_once(travel):
    before = log.read("travel.csv")
    assert travel() == []
    ((script, *words, out),) = travel("lr 1e-3", "--seeds", "1", "--lr", "1e-3")
    assert script == "crossval.py" and words[-2:] == ["--lr", "1e-3"] and out == "runs/travel/lr_1e-3_1"
    assert travel("lr 1e-3", "--seeds", "0", "1", "--lr", "1e-3") != []
    *rows, first, second = log.read("travel.csv")
    assert rows == before and (first["seed"], second["seed"]) == ("1", "0")
    now = "--data breastmnist breast --seed 1 --groups hospital --no-test"  # of --also and --groups hospitals
    assert first["command"].startswith(f"python crossval.py {now} ") and first["command"].endswith("=1 --lr 1e-3")
    assert (first["back"], first["there"]) == ("0.7000", "0.6000")
    flags = crossval_flags(first["command"])
    assert (flags.data, flags.groups, flags.lr) == (["breastmnist", "breast"], "hospital", 1e-3)


def crossval_flags(command: str):
    """What crossval.py makes of a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", shlex.split(command)[1:])
        return crossval.parse_args()


def test_reproduce_sh_has_commands_of_this_version(monkeypatch):
    text = (REPO / "results/reproduce.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    text = text.replace("$seed", "3").replace("$weights", "none")
    commands = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^ *(python .*?)(?: \|\|)?$", text, re.M)]
    scripts = {"train.py": train, "crossval.py": crossval, "export.py": export}
    for script, *words in commands:
        if script == "-m":
            assert (REPO / (words[0].replace(".", "/") + ".py")).exists()
        else:
            monkeypatch.setattr(sys, "argv", [script, *words])
            scripts[script].parse_args()
    assert {"train.py", "crossval.py", "export.py", "-m"} == {script for script, *_ in commands}


@pytest.mark.parametrize("name", ["experiments", "travel"])
def test_the_command_that_other_flags_are_added_to_is_one_of_this_version(name):
    (row, *_) = log.read(f"{name}.csv")
    assert crossval_flags(measure.at_seed(row["command"], 3)).seed == 3


def test_a_name_has_one_command(travel, capsys):
    before = log.read("travel.csv")
    with pytest.raises(SystemExit):
        travel("zoom 0.15", "--zoom", "0.3")
    assert "zoom 0.15 is the name of python crossval.py" in capsys.readouterr().err
    assert log.read("travel.csv") == before


def test_the_tables_of_the_page_about_lesions_are_made_from_their_rows():
    page = (REPO / "results" / "lesion.md").read_text(encoding="utf-8")
    assert all(lesion.table(*one) in page for one in lesion.TABLES) and lesion.looks_table() in page
