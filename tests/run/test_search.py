"""What may be searched, which setting is chosen, and the study: interrupted, shared, and in storages of every kind."""

import argparse
import json
import multiprocessing
import random
import re
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import optuna
import pytest
from conftest import refusal

from common.errors import UserError
from common.run import search
from common.settings import check, written


@pytest.mark.parametrize("name", search.RANGES)
def test_every_range_holds_values_that_the_setting_takes(name):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [search.RANGES[name].suggest(study.ask(), name) for _ in range(50)]
    stored = [written(check(name, json.loads(json.dumps(value)), "best.json")) for value in drawn]
    assert stored == drawn and list(map(type, stored)) == list(map(type, drawn)) and len(set(drawn)) > 1
    assert min(map(search.RANGES[name].complexity, drawn)) >= 0


def test_names_are_put_into_the_order_of_simplicity_and_unknown_ones_refused():
    assert search.names("lr, label-smoothing,wd") == ("wd", "lr", "label_smoothing")
    message = "has no range to search. Use stages, wd, lr, epochs"
    for text in ("lr,weights", "", "lr,,wd", "patience"):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            search.names(text)
    with pytest.raises(argparse.ArgumentTypeError, match="twice"):
        search.names("label-smoothing,lr,label_smoothing")


def test_paired_error_is_that_of_the_differences_whatever_the_folds_and_settings():
    generator = np.random.default_rng(0)
    scores, many = generator.normal(size=(2, 5)), generator.normal(size=(9, 3))
    difference = scores[0] - scores[1]
    assert search.paired_error(scores) == pytest.approx(difference.std(ddof=1) / np.sqrt(5))
    moved = many + generator.normal(size=(9, 1)) + 10 * generator.normal(size=(1, 3))  # how good, how hard they are
    assert search.paired_error(moved) == pytest.approx(search.paired_error(many))
    assert np.isnan(search.paired_error(scores[:1])) and np.isnan(search.paired_error(scores[:, :1]))


SETTINGS = [{"lr": 1e-3, "wd": 0.01}, {"lr": 1e-3, "wd": 0.1}, {"lr": 1e-4, "wd": 0.1}, {"lr": 1e-5, "wd": 1.0}]
SIMPLE = {"stages": 2, "loss": "cross-entropy", "mixup": 0.0, "batch_size": 128}
OTHERS = {"stages": 3, "loss": "focal", "mixup": 0.4, "batch_size": 32}
CHOICES: dict[str, tuple] = {  # settings, mean scores; the index of the chosen, of the best
    "the largest decay, then the smallest rate": (SETTINGS, [0.900, 0.898, 0.897, 0.700], (2, 0)),
    "a clear best": (SETTINGS, [0.9, 0.8, 0.7, 0.6], (0, 0)),
    "a single one, without an error": (SETTINGS[:1], [0.9], (0, 0)),
}
CHOICES |= {f"simpler {name}": ([SIMPLE | {name: OTHERS[name]}, SIMPLE], [0.801, 0.8], (1, 0)) for name in OTHERS}


@pytest.mark.parametrize("settings, means, expected", CHOICES.values(), ids=CHOICES)
def test_the_simplest_within_one_error_of_the_best_is_chosen(settings, means, expected):
    noise = 0.01 * np.array([[1, -1, 0], [-1, 0, 1], [0, 1, -1], [0, 0, 0]])
    scores = np.array(means)[:, np.newaxis] + noise[: len(means)]
    chosen, best, error = search.choose(settings, scores)
    assert (chosen, best) == expected and error == pytest.approx(search.paired_error(scores), nan_ok=True)


NAMES = ("lr", "wd")


def score(trial, setting) -> float:
    """Best at lr 1e-3 and wd 1e-2; a bad trial ends before its third fold."""
    value = -abs(setting["lr"] - 1e-3) - abs(setting["wd"] - 1e-2)
    for fold in range(3):
        trial.report(value, fold)
        if fold < 2 and trial.should_prune():
            raise optuna.TrialPruned()
    return value


def optimise(study, total: int, score=score, seed: int = 0) -> list[tuple]:
    """Finish a search. Returns: what was tried and found."""
    search.optimise(study, total, NAMES, score, seed)
    return [(trial.state.name, trial.params, trial.value) for trial in search.finished(study)]


def dies(*_):
    raise MemoryError


@pytest.fixture
def opened(tmp_path):
    """A function that opens a study in a journal, which is quicker than a database."""
    return lambda name="study", fixed={"folds": 3}: search.open_study(f"journal:{tmp_path}/log", name, fixed)


def test_a_search_takes_the_course_of_its_seed_and_goes_on(opened):
    at_once, other = optimise(opened("at once"), 12), optimise(opened("other"), 3, seed=1)
    optimise(opened("parts"), 7)
    assert optimise(opened("parts"), 12) == at_once and optimise(opened("parts"), 12) == at_once
    assert len(at_once) == 12 and {state for state, *_ in at_once} == {"COMPLETE", "PRUNED"}
    assert len({str(params) for _, params, _ in at_once}) == 12 and other != at_once[:3]


def test_a_search_goes_on_after_interruptions_and_repeats_no_trial(opened):
    for total in (0, 4, 6):
        optimise(opened(), total)
        with pytest.raises(MemoryError):
            optimise(opened(), 12, dies)
    assert len(optimise(opened(), 12)) == 12
    trials = opened().trials
    assert len(trials) == 15 and len({str(trial.params) for trial in trials}) == 15


CELLS = [{"wd": 0.1, "lr": i * 1e-4} for i in range(1, 11)]


def values(trials) -> list:
    return [trial.value for trial in trials]


def test_given_settings_are_scored_each_once_also_those_that_a_dead_worker_had_begun(opened):
    for _ in range(3):
        with pytest.raises(MemoryError):
            search.score_all(opened(), CELLS, dies)
    expected = [-abs(cell["lr"] - 1e-3) - abs(cell["wd"] - 1e-2) for cell in CELLS]
    for _ in range(2):
        assert values(search.score_all(opened(), CELLS, score)) == expected
    assert len(search.finished(opened())) == 10


def test_workers_of_one_seed_do_not_take_the_cells_in_one_order(opened):
    orders = []
    for name in "ab":
        random.seed(0)
        search.score_all(opened(name), CELLS, score)
        orders.append(values(search.finished(opened(name))))
    assert orders[0] != orders[1]  # but once in 10! runs


def test_other_settings_are_refused(opened):
    opened(fixed={"folds": 3, "epochs": 2})
    message = "study 'study' has other (epochs|ema). Give the same flags, or another"
    for fixed in ({"folds": 3, "epochs": 1}, {"folds": 3}, {"folds": 3, "epochs": 2, "ema": 0}):
        with pytest.raises(UserError, match=message):
            opened(fixed=fixed)


def test_importances_wait_for_enough_trials(opened):
    study = opened()
    optimise(study, 4)
    assert search.importances(study, ("wd", "lr")) == {}
    optimise(study, 20)
    shares = search.importances(study, ("wd", "lr"))
    assert sum(shares.values()) == pytest.approx(1) and shares["wd"] > shares["lr"]  # wd's range is the wider
    assert search.importances(study, ("wd",)) == {}


def take_part(url: str, seconds: float) -> None:
    def slow(trial, setting):
        time.sleep(seconds)
        return score(trial, setting)

    optimise(search.open_study(url, "study", {"folds": 3}), 6, slow)
    search.score_all(search.open_study(url, "grid", {}), CELLS, slow)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite:///", "journal:"])
def test_workers_share_a_study_and_a_killed_worker_stops_nobody(kind, tmp_path):
    url, context = f"{kind}{tmp_path}/file", multiprocessing.get_context("spawn")
    study, grid = (search.open_study(url, name, fixed) for name, fixed in (("study", {"folds": 3}), ("grid", {})))
    lost = context.Process(target=take_part, args=(url, 60), daemon=True)
    lost.start()
    while not (study.trials and len(study.trials[0].params) == 2):
        time.sleep(0.1)
    time.sleep(0.5)  # what a journal's lock takes to be given back; a lock of the dead is waited for, half a minute
    lost.kill()
    with ProcessPoolExecutor(2, context) as workers:
        assert list(workers.map(take_part, [url] * 2, [0.2] * 2, timeout=60)) == [None, None]
    found = search.finished(study)
    assert 6 <= len(found) <= 7  # each worker ends the trial that it has begun
    assert len({trial.params["lr"] for trial in found}) == len(found)
    assert study.trials[0].state.name == "RUNNING" and study.trials[0] not in found
    assert len(set(values(search.finished(grid)))) == 10 <= len(search.finished(grid)) < 20  # shared, seldom twice


SECRET = "s3cr%40t"
UNUSABLE = {  # test_bad_input.py has an absent folder, and what is no URL
    "journal:/absent/folder/log": "No such file",
    "sqlite:///{folder}/study.db": "file is not a database",
    "journal:{folder}/text": "JSON|Expecting value|Invalid log",
    "journal:{folder}/json": "op_code",
    "journal:{folder}": "Is a directory|Permission",
    f"postgresql://user:{SECRET}@localhost:port/db": "port",
    f"postgresql://127.0.0.1:9/db?user=user&password={SECRET}": "psycopg|refused",
    f"http://user:{SECRET}@localhost/db": "dialects:http",
    f"mysql://user:{SECRET}@127.0.0.1:9/db": "MySQLdb|cannot be opened",
}


@pytest.mark.parametrize("url", UNUSABLE)
def test_an_absent_or_damaged_storage_is_named_in_one_line_without_secrets(url, tmp_path):
    (tmp_path / "text").write_text("no journal\nat all\n")
    (tmp_path / "json").write_text("{}\n")
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    given = url.format(folder=tmp_path)
    message = refusal(search.open_study, given, "study", {})
    assert message.startswith(f"--storage {search.shown(given)}: cannot be opened (")
    assert re.search(UNUSABLE[url], message) and SECRET not in message and "s3cr@t" not in message


@pytest.mark.parametrize("url", ["journal:a b", "sqlite:///study.db", "postgresql+psycopg://me:x@host/db"])
def test_a_url_is_taken_as_it_is(url):
    assert search.storage_url(url) == url


@pytest.mark.parametrize(
    "text, hint",
    [
        ("runs/study.db", "sqlite:///runs/study.db for a database file, or journal:runs/study.journal"),
        ("/tmp/study", "sqlite:////tmp/study for a database file, or journal:/tmp/study.journal"),
        ("C:\\study.db", "sqlite:///C:\\study.db for a database file, or journal:C:\\study.journal"),
        ("", "sqlite:///FILE for a database file, or journal:FILE.journal"),
        ("me:s3cret@host/db", "sqlite:///FILE for a database file, or journal:FILE.journal"),
    ],
)
def test_a_path_is_refused_with_the_urls_for_it(text, hint):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        search.storage_url(text)
    assert str(refused.value) == f"is no URL. Give {hint}"


def test_no_password_is_said():
    url = "postgresql://me:p@ss%2Fword@host/db?password=x9"
    assert search.shown(url) == "postgresql://…@host/db?…"
    with pytest.raises(UserError, match="no …, … or … here"), search.explained(url, "failed", (ValueError,)):
        raise ValueError("no p@ss%2Fword, p@ss/word or x9\nhere")
    assert search.shown("sqlite:///runs/tune/study.db") == "sqlite:///runs/tune/study.db"
