"""tune.py: its stages and what it says, with a formula in the place of training; then as processes."""

import argparse
import json
import math
import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import optuna
import pytest
from conftest import one_line, read_csv, read_json, run, start

import tune
from common import data, settings
from common.errors import UserError
from common.run import search

QUICK = "--data phantom --weights none --stages 2 --epochs 1 --folds 2 --threads 1".split()


@pytest.fixture
def phantom_data():
    return data.find(["phantom"], None, 28)


@pytest.fixture
def found(tmp_path, monkeypatch, phantom_data):
    """A function that searches: the best rate is 1e-3, decay matters only to one fold, a share of the trials diverges.
    Returns: (arguments, outcome)."""

    def make_score(pool, own, args):
        def score(stage, trial, values):
            distance = abs(np.log10(values.get("lr", 1e-3) / 1e-3)) / 10
            scores = [0.9 - distance + fold / 100 - values.get("wd", 0) / 1000 * (fold == 0) for fold in range(3)]
            trial.set_user_attr("scores", scores)
            if distance > args.worst:
                raise optuna.TrialPruned()
            return float(np.mean(scores))

        return score

    def find(own=None, **changed):
        given = {"trials": 12, "search": ("wd", "lr"), "grid": 3, "folds": 3, "seed": 0, "study": "s", "threads": 1}
        args = argparse.Namespace(**given | {"storage": None, "worst": 0.15} | changed)
        monkeypatch.setattr(tune, "make_score", make_score)
        return args, tune.take_part(f"journal:{tmp_path}/log", {}, None, own or settings.Settings(), args)

    return find


def stages(outcome) -> tuple[list[dict], list[dict]]:
    """The complete rows of the search and of the grid, best first."""
    return tune.complete(outcome.rows, "search"), tune.complete(outcome.rows, "grid")


def best_quarter(outcome) -> list[dict]:
    found, _ = stages(outcome)
    return found[: math.ceil(len(found) / 4)]


@pytest.mark.parametrize(
    "axes, changed",
    [
        pytest.param({"lr": 3, "wd": 3}, {"trials": 16}, id="two axes"),
        pytest.param({"lr": 2}, {"search": ("lr", "epochs", "augment"), "grid": 2}, id="one, the rest as in the best"),
        pytest.param({}, {"grid": 1}, id="the best trial itself"),
    ],
)
def test_the_grid_lies_inside_the_range_of_the_best_quarter(axes, changed, found):
    args, outcome = found(**changed)
    searched, grid = stages(outcome)
    assert len(best_quarter(outcome)) >= 2 and len(grid) == math.prod(axes.values())
    for name in args.search:
        expected = {searched[0][name]}
        if name in axes:
            values = [row[name] for row in best_quarter(outcome)]
            expected = {float(f"{x:.3g}") for x in np.geomspace(min(values), max(values), axes[name])}
        assert {row[name] for row in grid} == expected
    for row in outcome.rows:
        assert row["auc"] == np.mean([row["fold_1"], row["fold_2"], row["fold_3"]])
        assert "wd" in args.search or row["wd"] == settings.Settings().wd
    assert "pruned" in {row["state"] for row in outcome.rows} and len({tuple(row) for row in outcome.rows}) == 1


def test_the_choice_is_the_simplest_near_the_best(found, phantom_data):
    args, outcome = found()
    chosen, best = outcome.chosen, outcome.best
    assert best == stages(outcome)[1][0]
    assert best["auc"] - outcome.error <= chosen["auc"] and chosen["wd"] > best["wd"] and chosen["lr"] == best["lr"]
    text = tune.outcome_text(outcome, phantom_data.label, args).splitlines()
    assert text[0].startswith("PHANTOM") and f"best by mean: {tune.setting_text(best, args)}" in text
    assert text[-1] == f"chosen, the simplest within one standard error of the best: {tune.setting_text(chosen, args)}"
    assert tune.setting_text(chosen, args).startswith(f"AUC {chosen['auc']:.4f} ± ")


@pytest.mark.parametrize("changed", [{"grid": 0}, {"search": ("epochs", "mixup")}])
def test_without_a_grid_the_search_s_best_quarter_is_chosen_from(changed, found):
    outcome = found(**changed)[1]
    assert {row["stage"] for row in outcome.rows} == {"search"}
    assert outcome.best == stages(outcome)[0][0] and outcome.chosen in best_quarter(outcome)


def test_nothing_complete_is_said(found):
    with pytest.raises(UserError, match="diverged in all of them. Give more --trials"):
        found(worst=-1)


@pytest.mark.parametrize("trials, grid", [(2, 1), (30, 3)])
def test_what_is_saved_is_read_by_train_and_holds_no_password(trials, grid, found, phantom_data, tmp_path, monkeypatch):
    url = "postgresql://user:se'cret@host/db?password=hidden"
    monkeypatch.setattr(sys, "argv", ["tune.py", f"--storage={url}", "--storage", url])
    own, out = settings.Settings(epochs=7, mirror=False), tmp_path / "out"
    out.mkdir()
    (out / "importance.png").touch()  # of an earlier search
    args, outcome = found(own, trials=trials, grid=grid, storage=url)
    tune.save(outcome, own, phantom_data, args, out)
    read = settings.Settings(**settings.read_params(out / "best.json"))
    assert read == settings.Settings(epochs=7, mirror=False, lr=outcome.chosen["lr"], wd=outcome.chosen["wd"])
    stored = json.loads(text := (out / "best.json").read_text())
    assert stored["_best_by_mean"]["auc"] == outcome.best["auc"] and stored["_rule"] == search.RULE
    assert stored["mirror"] == "off" and "cret" not in text and "hidden" not in text
    assert stored["_provenance"]["command"].count("postgresql://…@host/db?…") == 2
    pictures = {"study.png", "grid.png"} | ({"importance.png"} if trials > 10 else set())
    assert {path.name for path in out.iterdir()} == pictures | {"best.json", "trials.csv"} < set(tune.FILES)


def test_workers_may_keep_the_same_weights_in_different_places(phantom_data, tmp_path):
    args = argparse.Namespace(search=("wd", "lr"), folds=3, seed=0, device="cpu")
    fixed = []
    for name, content in (("a.pth", b"same"), ("b.pth", b"same"), ("c.pth", b"other")):
        (tmp_path / name).write_bytes(content)
        fixed.append(tune.fixed_settings(settings.Settings(weights=str(tmp_path / name)), phantom_data, args))
    assert fixed[0] == fixed[1] != fixed[2] and "lr" not in fixed[0]
    assert fixed[0]["data_md5"] == phantom_data.describe()["md5"]
    assert fixed[0]["size"] == phantom_data.size  # image files of another size have the same MD5


def test_an_output_folder_may_have_any_name_and_test_is_never_read(tmp_path, runs, npz):
    npz(test_images=np.zeros((0,)), test_labels=np.array(["no", "labels"]))
    flags = [*QUICK[2:6], "--epochs", "1", "--threads", "1", "--data", tmp_path / "own.npz"]
    out = tmp_path / "100 % of a? b#c"
    searched = ["--folds", 2, "--trials", 2, "--search", "mixup,augment", "--out", out]
    text, _ = run("tune.py", *flags, *searched)
    best = read_json(out / "best.json")
    assert set(read_json(out / "run.json")["files"]) == {"best.json", "trials.csv", "study.png", "study.journal"}
    assert text.splitlines()[-1] == f"next: python train.py --params '{out}/best.json' --data {tmp_path}/own.npz"
    assert best["lr"] == 3e-4 and 0 < best["mixup"] < 1 and best["augment"] in ("on", "off")
    assert "test_images" in runs("train.py", *flags, "--out", tmp_path / "t", status=2)[1].splitlines()[-1]


def test_bad_images_are_named_before_any_worker_is_there(tmp_path, runs, npz, monkeypatch):
    npz(train_labels=np.full((24, 1), 7))
    bad, out = tmp_path / "own.npz", tmp_path / "out"
    monkeypatch.setattr(tune.parallel, "run_copies", lambda *_: pytest.fail("copies are started"))
    flags = [*QUICK[2:6], "--data", bad, "--jobs", 2, "--threads", 2, "--out", out]
    _, err = runs("tune.py", *flags, status=2)
    assert "train_labels hold other values" in one_line(err) and not out.exists()


@pytest.mark.parametrize(
    "given, repeated",
    [
        ([], []),
        (["--size", 28, "--trials", 5, "--lr", 0.1], []),
        (["--data", "my table.csv", "b", "--size", 64], ["--data", "my table.csv", "b", "--size", "64"]),
        (
            ["--seed", 3, "--data-root", "d", "--positive", "bad"],
            ["--positive", "bad", "--data-root", "d", "--seed", "3"],
        ),
    ],
)
def test_the_next_command_takes_the_same_data(given, repeated):
    parser = tune.build_parser()
    for split, script in (("val", "train.py"), ("train", "crossval.py")):  # without val, train.py cannot choose
        pool = data.of_arrays(np.zeros((1, 28, 28), np.uint8), np.zeros(1), split, "own")
        command = tune.next_command(parser, parser.parse_args(list(map(str, given))), pool, "my runs")
        assert shlex.split(command) == ["python", script, "--params", "my runs/best.json", *repeated]


@pytest.mark.parametrize("name", tune.FILES)
def test_a_file_of_the_user_is_refused_before_any_work(name, tmp_path, runs):
    (tmp_path / name).write_text("mine")
    _, err = runs("tune.py", *QUICK, "--out", tmp_path, status=2)
    assert err.splitlines()[-1].startswith(f"error: {tmp_path / name}: would be overwritten")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_the_journal_is_listed_before_the_search_so_that_a_killed_one_goes_on(tmp_path, runs, monkeypatch):
    def killed(*_):
        raise UserError(f"listed: {read_json(tmp_path / 'run.json')['files']}")

    monkeypatch.setattr(search, "optimise", killed)
    for _ in range(2):
        _, err = runs("tune.py", *QUICK, "--out", tmp_path, status=2)
        assert err.splitlines()[-1] == "error: listed: {'study.journal': 'tune.py'}"


@pytest.mark.slow
def test_ctrl_c_then_a_killed_worker(tmp_path):
    """Ctrl-C ends both workers with their parent. The next session goes on, also without one of its workers."""
    command = ["tune.py", *QUICK, "--jobs", 2, "--trials", 3, "--grid", 1, "--out", tmp_path]
    first, _ = start(*command, until="fold 1", start_new_session=True)
    os.killpg(first.pid, signal.SIGINT)
    assert first.communicate()[1].splitlines()[-1] == "interrupted" and first.returncode == 130
    assert subprocess.run(["pgrep", "-g", str(first.pid), "-f", "spawn_main"]).returncode == 1  # none is left

    second, _ = start(*command, until="fold 1", start_new_session=True)
    children = subprocess.check_output(["pgrep", "-P", str(second.pid), "-f", "spawn_main"], text=True).split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert second.communicate()[0].splitlines()[-1].startswith("next: python") and second.returncode == 0
    rows = read_csv(tmp_path / "trials.csv")
    assert [row["stage"] for row in rows] == ["search"] * 3 + ["grid"]
    storage = search.connect(f"journal:{tmp_path}/study.journal")
    trials = search.finished(optuna.load_study(study_name="breastmnist", storage=storage))
    assert len(trials) in (3, 4) and len({trial.params["lr"] for trial in trials}) == len(trials)
