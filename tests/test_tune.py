"""tune.py's stages and report, with a formula in the place of training."""

import argparse
import json
import math
import sys

import numpy as np
import optuna
import pytest

import tune
from common import data, settings
from common.errors import UserError
from common.run import search, study


@pytest.fixture
def source():
    return data.find("phantom", None, 28, 0)


def arguments(**changed) -> argparse.Namespace:
    given = {"trials": 12, "search": ("wd", "lr"), "grid": 3, "folds": 3, "storage": None, "study": "s", "threads": 1}
    return argparse.Namespace(**(given | changed))


def searched(args) -> list[dict]:
    """Rows of both stages: the best rate is 1e-3, decay matters only to one fold."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()

    def score(trial):
        values = {name: search.RANGES[name].suggest(trial, name) for name in args.search}
        distance = abs(np.log10(values.get("lr", 1e-3) / 1e-3)) / 10
        scores = [0.9 - distance + fold / 100 - values.get("wd", 0) / 1000 * (fold == 0) for fold in range(3)]
        trial.set_user_attr("scores", scores)
        if distance > 0.15:
            raise optuna.TrialPruned()
        return float(np.mean(scores))

    first = study.open_study(storage, args.study, {}, optuna.pruners.NopPruner())
    study.work(first, [{}] * args.trials, score, 0, 1)
    rows = tune.trial_rows("search", first, args.trials, settings.Settings(), args)
    if tune.gridded(args):
        grid, cells = tune.open_grid(storage, {}, tune.best_share(rows), args)
        study.work(grid, cells, score, 0, 1)
        rows += tune.trial_rows("grid", grid, len(cells), settings.Settings(), args)
    return rows


def test_the_grid_lies_inside_the_range_of_the_best_quarter():
    args = arguments(trials=16)
    rows = searched(args)
    top, grid = tune.best_share(rows), tune.complete(rows, "grid")
    assert len(top) == math.ceil(len(tune.complete(rows, "search")) / 4) >= 2 and len(grid) == 9
    for name in ("lr", "wd"):
        low, high = tune.span(top, name)
        assert {row[name] for row in grid} == {float(f"{x:.3g}") for x in np.geomspace(low, high, 3)}
    assert all(row["auc"] == np.mean([row["fold_1"], row["fold_2"], row["fold_3"]]) for row in grid)
    assert "pruned" in {row["state"] for row in rows} and len({tuple(row) for row in rows}) == 1


def test_the_choice_is_the_simplest_near_the_best():
    args = arguments()
    rows = searched(args)
    chosen, best, error = tune.choose(rows, args)
    assert best["auc"] == max(row["auc"] for row in rows if row["stage"] == "grid")
    assert best["auc"] - error <= chosen["auc"] and chosen["wd"] > best["wd"] and chosen["lr"] == best["lr"]
    text = tune.report(rows, chosen, best, error, data.find("phantom", None, 28, 0), args).splitlines()
    assert text[0].startswith("PHANTOM") and f"best by mean: {tune.setting_text(best, args)}" in text
    assert text[-1] == f"chosen, the simplest within one of the best: {tune.setting_text(chosen, args)}"


def test_a_grid_of_one_searched_axis_keeps_the_best_of_the_rest():
    args = arguments(search=("lr", "epochs", "loss"), grid=2)
    rows = searched(args)
    top, grid = tune.best_share(rows)[0], tune.complete(rows, "grid")
    assert len(grid) == 2 and {row["wd"] for row in grid} == {settings.Settings().wd}
    assert {(row["epochs"], row["loss"]) for row in grid} == {(top["epochs"], top["loss"])}


def test_a_grid_of_one_is_the_best_trial():
    rows = searched(arguments(grid=1))
    (cell,) = tune.complete(rows, "grid")
    assert all(cell[key] == tune.complete(rows, "search")[0][key] for key in ("lr", "wd", "auc"))


@pytest.mark.parametrize("changed", [{"grid": 0}, {"search": ("epochs", "mixup")}])
def test_without_a_grid_the_search_s_best_quarter_is_chosen_from(changed):
    args = arguments(**changed)
    rows = searched(args)
    assert {row["stage"] for row in rows} == {"search"}
    chosen, best, _ = tune.choose(rows, args)
    assert best == tune.best_share(rows)[0] and chosen in tune.best_share(rows)


def test_nothing_complete_is_said():
    rows = [{"stage": "search", "state": "pruned", "auc": 0.5}]
    with pytest.raises(UserError, match="no setting of the search was completed, all diverged; give more --trials"):
        tune.choose(rows, arguments(grid=0))


@pytest.mark.parametrize("trials, grid", [(2, 1), (30, 3)])
def test_what_is_saved_is_read_by_train_and_holds_no_password(trials, grid, source, tmp_path, monkeypatch):
    url = "postgresql://user:se'cret@host/db?password=hidden"
    monkeypatch.setattr(sys, "argv", ["tune.py", f"--storage={url}", "--storage", url])
    args = arguments(trials=trials, grid=grid, storage=url)
    rows = [row | {"state": "complete"} for row in searched(args)]
    chosen, best, error = tune.choose(rows, args)
    shares = {"lr": 0.9, "wd": 0.1} if trials > 2 else {}
    tune.save(rows, shares, chosen, best, error, settings.Settings(epochs=7), source, args, tmp_path)
    read = settings.Settings(**settings.read_params(tmp_path / "best.json"))
    assert read == settings.Settings(epochs=7, lr=chosen["lr"], wd=chosen["wd"])
    stored = json.loads((tmp_path / "best.json").read_text())
    assert stored["_best_by_mean"]["auc"] == best["auc"] and stored["_rule"] == search.RULE
    assert "cret" not in (tmp_path / "best.json").read_text() and "hidden" not in (tmp_path / "best.json").read_text()
    assert stored["_provenance"]["command"].count("postgresql://…@host/db?…") == 2
    figures = {"study.png", "grid.png"} | ({"importance.png"} if shares else set())
    assert {path.name for path in tmp_path.iterdir()} == figures | {"best.json", "trials.csv"}


def test_workers_may_keep_the_same_weights_in_different_places(source, tmp_path):
    args = argparse.Namespace(search=("wd", "lr"), folds=3, seed=0)
    for name, content in (("a.pth", b"same"), ("b.pth", b"same"), ("c.pth", b"other")):
        (tmp_path / name).write_bytes(content)
    fixed = [
        tune.fixed_settings(settings.Settings(weights=str(tmp_path / name)), source, args)
        for name in ("a.pth", "b.pth", "c.pth")
    ]
    assert fixed[0] == fixed[1] != fixed[2] and "lr" not in fixed[0] and fixed[0]["data_md5"] == source.md5
