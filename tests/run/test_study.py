"""Places, workers that stop, die and collide, and the storages."""

import multiprocessing
import sys
import threading
import time

import optuna
import pytest

from common.errors import UserError
from common.run import search, study

NOT_PRUNED = optuna.pruners.NopPruner()
BEAT = 0.05  # seconds: a worker is taken for dead after 0.2
ERRORS = {"interrupt": KeyboardInterrupt, "terminate": SystemExit, "crash": MemoryError, "user": UserError}


def score(trial) -> float:
    """Best at lr 1e-3 and wd 1e-2; the third fold of a bad trial is left out."""
    lr, wd = (search.RANGES[name].suggest(trial, name) for name in ("lr", "wd"))
    value = -abs(lr - 1e-3) - abs(wd - 1e-2)
    for fold in range(3):
        trial.report(value, fold)
        if fold < 2 and trial.should_prune():
            raise optuna.TrialPruned()
    return value


class Stop:
    """`score`, but its calls with these numbers (from 0) end in an exception instead, after parameters are drawn."""

    def __init__(self, **at):
        self.calls, self.at = 0, {number: error for error, numbers in at.items() for number in numbers}

    def __call__(self, trial):
        value, error = score(trial), self.at.get(self.calls)
        self.calls += 1
        if error:
            raise ERRORS[error]
        return value


@pytest.fixture
def open_study():
    """A function that opens a study, or one of the same name again, in memory."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()

    def open_study(name="study", fixed=None):
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
        return study.open_study(storage, name, fixed or {"folds": 3}, pruner)

    return open_study


def course(opened, places: int) -> list[tuple]:
    """What a search has tried and found, place by place."""
    return [(study.place(t), t.state.name, t.params, t.value) for t in study.finished(opened, places)]


def die(opened) -> dict:
    """Leave a trial as a worker does that is killed: running, and silent. Returns: its parameters."""
    trials = opened.get_trials()
    study.enqueue(opened, trials, len(study.holders(trials)), {})
    trial = opened.ask()
    search.RANGES["lr"].suggest(trial, "lr")
    return trial.params


def test_an_interrupted_search_takes_the_same_course(open_study):
    whole, parts = open_study("whole"), open_study("parts")
    study.work(whole, [{}] * 14, score, 0, 1)
    broken = Stop(interrupt=[1, 2, 9], terminate=[4, 12])
    for _ in range(5):
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            study.work(parts, [{}] * 14, broken, 0, 1)
        parts = open_study("parts")
    study.work(parts, [{}] * 8, broken, 0, 1)  # stops short first, and is then extended
    study.work(parts, [{}] * 14, broken, 0, 1)
    assert course(parts, 14) == course(whole, 14) and len(course(whole, 14)) == 14
    assert len({str(params) for _, _, params, _ in course(whole, 14)}) == 14
    assert {state for _, state, _, _ in course(whole, 14)} == {"COMPLETE", "PRUNED"}


def test_seeds_differ(open_study):
    first, second = open_study("first"), open_study("second")
    study.work(first, [{}] * 2, score, 0, 1)
    study.work(second, [{}] * 2, score, 1, 1)
    assert course(first, 2) != course(second, 2)


def test_a_dead_worker_s_trial_runs_again_with_its_parameters(open_study, capsys):
    opened = open_study()
    lost = die(opened)
    study.work(opened, [{}] * 3, score, 0, BEAT)
    assert [t.state.name for t in opened.trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert study.holders(opened.trials)[0].params["lr"] == lost["lr"]
    assert "trial 0: silent for 0 s, taken for dead" in capsys.readouterr().err


def test_a_place_where_two_workers_died_is_given_up(open_study, capsys):
    opened = open_study()
    crashing = Stop(crash=[0, 1])
    for _ in range(2):
        with pytest.raises(MemoryError):
            study.work(opened, [{}] * 2, crashing, 0, BEAT)
    study.work(opened, [{}] * 2, score, 0, BEAT)
    assert [study.place(trial) for trial in study.finished(opened, 2)] == [1]
    assert [trial.state.name for trial in opened.trials] == ["FAIL", "FAIL", "COMPLETE"]
    assert "trial 0: given up, 2 workers died of it" in capsys.readouterr().err


def test_a_worker_that_beats_is_waited_for(open_study):
    opened, other = open_study(), open_study()
    study.enqueue(other, [], 0, {})
    trial = other.ask()
    search.RANGES["lr"].suggest(trial, "lr")

    def finish():
        with study.beating(trial, BEAT):
            time.sleep(12 * BEAT)  # three times what would be silence
        other.tell(trial, 0.0)

    thread = threading.Thread(target=finish)
    thread.start()
    study.work(opened, [{}] * 2, score, 0, BEAT)
    thread.join()
    assert [t.state.name for t in opened.trials] == ["COMPLETE", "COMPLETE"] and opened.trials[0].value == 0


def test_a_place_that_was_queued_twice_is_scored_once(open_study):
    opened = open_study()
    for _ in range(2):
        study.enqueue(opened, [], 0, {})
    study.enqueue(opened, [], 5, {})  # of a worker who wants more trials
    opened.ask()  # of nobody: a queue that another worker was quicker to empty
    study.work(opened, [{}] * 2, score, 0, BEAT)
    assert [study.place(trial) for trial in study.finished(opened, 9)] == [0, 1]


def test_a_user_s_error_costs_a_place_nothing(open_study):
    opened, broken = open_study(), Stop(user=[0, 1, 2])
    for _ in range(3):
        with pytest.raises(UserError):
            study.work(opened, [{}], broken, 0, BEAT)
    study.work(opened, [{}], broken, 0, BEAT)
    assert len(study.finished(opened, 1)) == 1


def test_a_trial_that_was_taken_over_counts_once(open_study, capsys):
    opened = open_study()

    def slow(trial):
        if trial.number == 0:
            opened.tell(0, state=optuna.trial.TrialState.FAIL)  # as another worker does who heard no beat
        return score(trial)

    study.work(opened, [{}] * 2, slow, 0, BEAT)
    assert len(study.finished(opened, 2)) == 2
    assert "trial 0: was taken over by another worker" in capsys.readouterr().err


def test_given_parameters_are_kept_and_the_rest_is_sampled(open_study):
    opened = open_study()
    study.work(opened, [{"lr": 1e-4}, {"lr": 1e-3}], score, 0, BEAT)
    assert [trial.params["lr"] for trial in study.finished(opened, 2)] == [1e-4, 1e-3]


def test_other_settings_are_refused(open_study):
    open_study(fixed={"folds": 3, "epochs": 2})
    for fixed in ({"folds": 3, "epochs": 1}, {"folds": 3}, {"folds": 3, "epochs": 2, "ema": 0}):
        with pytest.raises(
            UserError, match="study 'study' was begun with other (epochs|ema); use the same, or another"
        ):
            open_study(fixed=fixed)


def test_importances_wait_for_enough_trials(open_study):
    opened = open_study()
    study.work(opened, [{}] * 4, score, 0, 1)
    assert study.importances(opened, ("wd", "lr")) == {}
    study.work(opened, [{}] * 20, score, 0, 1)
    shares = study.importances(opened, ("wd", "lr"))
    assert sum(shares.values()) == pytest.approx(1) and shares["wd"] > shares["lr"]  # wd's range is the wider
    assert study.importances(opened, ("wd",)) == {}


def take_part(url: str) -> None:
    opened = study.open_study(study.open_storage(url), "study", {"folds": 3}, NOT_PRUNED)
    study.work(opened, [{}] * 8, score, 0, 5)


@pytest.mark.parametrize("kind", ["sqlite:///", "journal:"])
def test_workers_that_start_at_once_score_every_place_once(kind, tmp_path):
    url = f"{kind}{tmp_path}/file"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=take_part, args=(url,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    opened = study.open_study(study.open_storage(url), "study", {"folds": 3}, NOT_PRUNED)
    ended = [trial for trial in opened.trials if trial.state.name == "COMPLETE"]
    assert sorted(study.place(trial) for trial in ended) == list(range(8))
    assert all("given_back" in trial.user_attrs for trial in opened.trials if trial not in ended)
    assert len({trial.params["lr"] for trial in ended}) == 8


def test_an_output_folder_s_file_may_have_any_name(tmp_path):
    out = tmp_path / "100 % of a? b#c"
    out.mkdir()
    study.open_storage(study.beside(out))
    assert (out / "study.db").exists()


SECRET = "s3cr%40t"
UNUSABLE = {
    "study.db": "names no storage; give sqlite:///FILE",
    "redis://localhost": "names no storage",
    "sqlite:///": "names no storage",
    "journal:": "names no storage",
    "grpc://localhost": "names no storage",
    "grpc://127.0.0.1:9": "needs a package more; pip install 'grpcio'|cannot be opened",
    "sqlite:////absent/folder/study.db": "cannot be opened .unable to open database file",
    "journal:/absent/folder/log": "cannot be opened .*No such file",
    f"postgresql://user:{SECRET}@localhost:port/db": "cannot be opened",
    f"postgresql://user:{SECRET}@127.0.0.1:9/db": "psycopg|cannot be opened",
    f"postgresql://127.0.0.1:9/db?user=user&password={SECRET}": "psycopg|cannot be opened",
    f"mysql://user:{SECRET}@127.0.0.1:9/db": "needs a package more; pip install 'mysqlclient'|cannot be opened",
    f"postgresql+absent://user:{SECRET}@localhost/db": "cannot be opened",
}


@pytest.mark.parametrize("url", UNUSABLE)
def test_an_unusable_storage_is_named_in_one_line_without_secrets(url):
    with pytest.raises(UserError, match=UNUSABLE[url]) as raised:
        study.open_storage(url)
    message = str(raised.value)
    assert message.startswith("--storage ") and "\n" not in message
    assert SECRET not in message and "s3cr@t" not in message and "user" not in message.split("(")[0]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"needs a package more; pip install 'psycopg\[binary\]'"):
        study.open_storage("postgresql://localhost/db")


def test_a_damaged_storage_is_named(tmp_path):
    (tmp_path / "log").write_text("no journal\nat all\n")
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    for url in (f"journal:{tmp_path}/log", f"sqlite:///{tmp_path}/study.db"):
        with pytest.raises(UserError, match="cannot be opened"):
            study.open_storage(url)


def test_what_is_shown_of_a_storage():
    assert study.shown("postgresql://u:p@ss@host/db?password=x") == "postgresql://…@host/db?…"
    assert study.shown("sqlite:///runs/tune/study.db") == "sqlite:///runs/tune/study.db"
    assert study.without_secrets("u, p@ss and p%40ss", "mysql://u:p%40ss@host/db") == "u, … and …"
