"""The pages say what the committed results say."""

import sys

import pytest
from conftest import REPO

from results import limits, log, measure, table


def test_the_tables_of_results_are_made_from_the_result_files():
    made = table.table()
    assert made in (REPO / "docs" / "results.md").read_text()
    first_page = (REPO / "README.md").read_text().split("\n## Results\n")[1].split("\n## ")[0]
    rows = [line for line in first_page.splitlines() if line.startswith("|")]
    assert 3 <= len(rows) <= 9 and set(rows) <= set(made.splitlines())


@pytest.mark.parametrize("name", ["experiments", "travel"])
def test_the_tables_of_logs_are_made_from_their_rows(name):
    assert measure.table(name) in (REPO / "results" / "README.md").read_text()


def test_the_table_of_limits_is_made_from_its_rows():
    assert limits.table() in (REPO / "results" / "README.md").read_text()


def test_where_a_script_fails_its_line_and_exit_status_are_all(tmp_path, capfd):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('error: no images', file=sys.stderr)\nsys.exit(2)")
    with pytest.raises(SystemExit) as ended:
        log.run([str(script)], str(tmp_path / "out"))
    assert ended.value.code == 2 and capfd.readouterr().err == "error: no images\n"


def test_the_figure_shows_each_fp32_file_at_home_and_where_it_did_not_train(monkeypatch):
    scores = {"auc": "0.8", "auc_low": "0.7", "auc_high": "0.9"}
    shipped = [("breastmnist.onnx", "0"), ("breastmnist.int8.onnx", "0"), ("breastmnist_128.onnx", "256")]
    rows = [{"file": file, "set": "breast/images.csv", "trained_on": n} | scores for file, n in shipped]
    monkeypatch.setattr(log, "read", lambda name: rows)
    ((file, found),) = table.at_hospitals().items()
    assert file == "breastmnist.onnx" and found["BrEaST"] == (0.8, 0.7, 0.9) and 0.9 < found["own test"][0] < 0.93


@pytest.fixture
def travel(tmp_path, monkeypatch):
    """A function that runs results.measure on a copy of travel.csv, without running scripts; and what it ran."""
    ran: list[list[str]] = []

    def script(words: list[str], out: str) -> dict:
        ran.append([*words, out])
        scores = {name: 0.9 for name in measure.NAMES} | {"auc_ci95": [0.8, 1], "accuracy_ci95": [0.8, 1]}
        made = {"commit": "0123456789abcdef", "precision": "bf16", "weights_md5": "8a10"}
        return {"provenance": made, "splits": {"out_of_fold": scores}, "folds": [{"auc": 0.7}, {"auc": 0.6}]}

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
    command = before[0]["command"].replace("--seed 0", "--seed 1") + " --lr 1e-3"
    assert (first["command"], first["back"], first["there"]) == (command, "0.7000", "0.6000")


def test_a_name_has_one_command(travel, capsys):
    before = log.read("travel.csv")
    with pytest.raises(SystemExit):
        travel("zoom 0.15", "--zoom", "0.3")
    assert "zoom 0.15 is the name of python crossval.py" in capsys.readouterr().err
    assert log.read("travel.csv") == before
