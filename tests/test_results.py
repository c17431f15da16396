"""The pages say what the committed results say."""

import sys

import pytest
from conftest import REPO

from results import experiments, hospitals, log, table


def test_the_tables_of_results_are_made_from_the_result_files():
    made = table.table(table.our_rows() + table.published_rows())
    assert made in (REPO / "docs" / "results.md").read_text()
    first_page = (REPO / "README.md").read_text().split("\n## Results\n")[1].split("\n## ")[0]
    rows = [line for line in first_page.splitlines() if line.startswith("|")]
    assert 3 <= len(rows) <= 9 and set(rows) <= set(made.splitlines())


@pytest.mark.parametrize("table", [experiments.HOME, experiments.TRAVEL])
def test_the_tables_of_experiments_are_made_from_their_rows(table):
    assert experiments.markdown_table(table) in (REPO / "results" / "README.md").read_text()


def test_the_figure_shows_each_fp32_file_at_home_and_where_it_did_not_train(monkeypatch):
    scores = {"auc": "0.8", "auc_low": "0.7", "auc_high": "0.9"}
    shipped = [("breastmnist.onnx", "0"), ("breastmnist.int8.onnx", "0"), ("breastmnist_128.onnx", "256")]
    rows = [{"file": file, "set": "breast/images.csv", "trained_on": n} | scores for file, n in shipped]
    monkeypatch.setattr(log, "read", lambda name: rows)
    ((file, found),) = table.at_hospitals().items()
    assert file == "breastmnist.onnx" and found["BrEaST"] == (0.8, 0.7, 0.9) and 0.9 < found["own test"][0] < 0.93


def test_without_sets_the_table_of_hospitals_stays(monkeypatch):
    before = log.read(hospitals.TABLE)
    monkeypatch.setattr(sys, "argv", ["hospitals.py"])
    with pytest.raises(SystemExit):
        hospitals.main()
    assert before and log.read(hospitals.TABLE) == before
