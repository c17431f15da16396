"""A search that any number of processes, here or elsewhere, work on: an Optuna study with numbered places.

A study of N trials has the places 0 to N - 1. A worker puts the lowest place that is not held into Optuna's queue and
takes a trial out of it; a place that two put in at once belongs to the earlier trial, and the other is given back. So N
trials are scored, however many workers there are, and what place i samples depends on the seed, on i and on the trials
finished before: a search by one worker takes the same course whether or not Ctrl-C or SIGTERM interrupts it on the way.

While it scores, a worker counts up its trial's "beat". Optuna's own heartbeat knows databases only, and no trial that
died before its first beat; this one works in every storage, and as each worker watches for change by its own clock, the
clocks of machines need not agree. A trial whose beat stands still is marked as failed and run once more with the same
parameters; a place that failed twice is given up. A trial that Ctrl-C or SIGTERM ends is given back at once.
"""

import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import unquote

import numpy as np
import optuna
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, event
from sqlalchemy.exc import SQLAlchemyError

from common.errors import UserError

STARTUP_TRIALS = 5  # random ones, before TPE has something to learn from and the pruner something to compare with
SILENT_BEATS = 4  # without one, a worker is taken for dead
ATTEMPTS = 2  # at a place, by workers that died; then the setting itself is suspect
IMPORTANCE_TRIALS = 10  # complete ones, below which the importance of settings is noise
LOCK_SECONDS = 60  # to wait for other workers' writes to one SQLite file
CONNECT_SECONDS = 10
PACKAGES = {"psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient", "grpc": "grpcio"}  # module: what pip calls it
SPELLINGS = "sqlite:///FILE, postgresql://…, mysql://…, journal:FILE or grpc://HOST:PORT"


def shown(url: str) -> str:
    """A storage URL without what may be secret: user and password, and what follows a question mark."""
    return re.sub(r"\?.*", "?…", re.sub(r"//.*@", "//…@", url))


def without_secrets(text: str, url: str) -> str:
    """`text` with no password of `url`, as written there or decoded, and not the URL as it was given."""
    user, _, password = "".join(re.findall(r"//(.*)@", url)).partition(":")
    hidden = [url, password, unquote(password), *re.findall(r"[?&]\w*pass\w*=([^&]+)", url)]
    for secret in filter(None, hidden):
        text = text.replace(secret, "…")
    return text


def storage_errors() -> tuple:
    """What the storages raise when they cannot be reached, read or written."""
    return OptunaError, SQLAlchemyError, OSError, getattr(sys.modules.get("grpc"), "RpcError", OptunaError)


def reason(error: BaseException) -> str:
    """The first line that says what is wrong: gRPC's details, else the driver's message, else the storage's."""
    details = error.details() if hasattr(error, "details") else ""
    said = next(filter(None, [details, str(error.__cause__ or ""), str(error), type(error).__name__]))
    return said.strip().splitlines()[0]


@contextmanager
def explained(url: str, what: str, *also: type[Exception]) -> Iterator[None]:
    """Turn what goes wrong with a storage into one line without secrets. also: further exceptions to expect.
    Raises: UserError."""
    try:
        yield
    except ImportError as error:
        missing = getattr(error.__cause__ or error, "name", None) or "grpc"
        package = PACKAGES.get(missing, missing)
        raise UserError(f"--storage {shown(url)}: needs a package more; pip install '{package}'") from None
    except (*storage_errors(), *also) as error:
        raise UserError(f"--storage {shown(url)}: {what} ({without_secrets(reason(error), url)})") from None


def connect(url: str) -> optuna.storages.BaseStorage:
    """The storage that a URL names. Raises: UserError for another spelling; the storages' own errors."""
    kind, _, rest = url.partition(":")
    if kind == "journal" and rest:
        return optuna.storages.JournalStorage(JournalFileBackend(rest))
    if match := re.fullmatch(r"grpc://([^/@]+):(\d+)/?", url):
        proxy = optuna.storages.GrpcStorageProxy(host=match[1], port=int(match[2]))
        proxy.wait_server_ready(CONNECT_SECONDS)
        return proxy
    database = re.match(r"(sqlite|postgresql|mysql|mariadb)(\+\w+)?://.", url)
    if not database or url.endswith(("///", ":memory:")):  # SQLite's names for what nobody could join or resume
        raise UserError(f"--storage {shown(url)}: names no storage; give {SPELLINGS}")
    if not kind.startswith("sqlite"):
        return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}})
    event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage  # SQLite locks no rows: a transaction that reads and then writes must keep all others out


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """`connect`, quietly, and again if another worker was making the tables at that moment. Raises: UserError."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    with explained(url, "cannot be opened", ValueError):
        try:
            return connect(url)
        except SQLAlchemyError as error:
            if not re.search("already exists|duplicate|UNIQUE", str(error)):
                raise
            time.sleep(1)
            return connect(url)


def beside(out) -> str:
    """The URL of the SQLite file in an output folder."""
    return URL.create("sqlite", database=f"{out}/study.db").render_as_string()


def open_study(storage, name: str, fixed: dict, pruner) -> optuna.Study:
    """A new study, or an earlier one to go on with, if it was begun with the same `fixed`. Raises: UserError."""
    study = optuna.create_study(
        storage=storage, study_name=name, pruner=pruner, direction="maximize", load_if_exists=True
    )
    if "fixed" not in study.user_attrs:
        study.set_user_attr("fixed", fixed)
    begun = study.user_attrs["fixed"]
    different = sorted(key for key in fixed | begun if fixed.get(key) != begun.get(key))
    if different:
        raise UserError(f"study {name!r} was begun with other {', '.join(different)}; use the same, or another --study")
    return study


def place(trial) -> int:
    """The place that a trial was put into the queue for; -1 for none: it was made because the queue was empty."""
    return trial.user_attrs.get("place", -1)


def holders(trials: list[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The trial that holds each place: the earliest that has not failed."""
    found: dict[int, FrozenTrial] = {}
    for trial in trials:
        if trial.state != TrialState.FAIL and place(trial) >= 0:
            found.setdefault(place(trial), trial)
    return found


def failures(trials: list[FrozenTrial], at: int) -> int:
    """How many trials failed at a place without being given back: their workers died."""
    return sum(place(t) == at and t.state == TrialState.FAIL and "given_back" not in t.user_attrs for t in trials)


def finished(study, places: int) -> list[FrozenTrial]:
    """The complete and pruned trials that hold one of the first `places` places, in their order."""
    held = holders(study.get_trials(deepcopy=False))
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return [held[i] for i in range(places) if i in held and held[i].state in done]


@contextmanager
def beating(trial: optuna.Trial, seconds: float) -> Iterator[None]:
    """Count up the trial's beat in the background."""
    stop = threading.Event()

    def beat():
        count = 0
        while not stop.wait(seconds):
            count += 1
            with suppress(*storage_errors()):  # what lasts, the trial's own next report will raise
                trial.set_user_attr("beat", count)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def fail_silent(study, watched: dict, seconds: float) -> None:
    """Mark running trials as failed whose beat stood still for `seconds`.

    Args: watched: {trial number: (its last beat, when that was first seen)}, kept from call to call.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        beat, now = trial.user_attrs.get("beat"), time.monotonic()
        last, since = watched.setdefault(trial.number, (beat, now))
        if beat != last:
            watched[trial.number] = beat, now
        elif now - since > seconds:
            with suppress(UpdateFinishedTrialError):  # another worker was quicker
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                print(f"trial {place(trial)}: silent for {now - since:.0f} s, taken for dead", file=sys.stderr)


def enqueue(study, trials: list[FrozenTrial], at: int, given: dict) -> None:
    """Queue a trial for a place: with the parameters of an earlier one there, else with those given."""
    earlier = [trial.params for trial in trials if place(trial) == at and trial.params]
    study.enqueue_trial(earlier[-1] if earlier else given, user_attrs={"place": at})


def give_back(study, trial: optuna.Trial) -> None:
    """Leave a trial's place to the next worker who asks."""
    with suppress(UpdateFinishedTrialError):  # taken for dead in the meantime
        trial.set_user_attr("given_back", True)
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def score_next(study, places: int, score: Callable, seed: int, beat: float) -> None:
    """Take a trial out of the queue, and score it unless its place is held already."""
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
    trial = study.ask()
    holder = holders(study.get_trials(deepcopy=False)).get(place(trial))
    if holder is None or holder.number != trial.number or place(trial) >= places:
        return give_back(study, trial)
    try:
        with beating(trial, beat):
            value = score(trial)
        study.tell(trial, value, skip_if_finished=True)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
    except UpdateFinishedTrialError:
        print(f"trial {place(trial)}: was taken over by another worker", file=sys.stderr)
    except (KeyboardInterrupt, SystemExit, UserError):
        give_back(study, trial)
        raise
    except Exception:
        with suppress(*storage_errors()):
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise


def importances(study, names) -> dict[str, float]:
    """What share of the variation among good settings each searched setting explains (PED-ANOVA, Watanabe et al., IJCAI
    2023): {name: share}, the largest first, sum 1; empty where there are too few complete trials to say."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < IMPORTANCE_TRIALS or len(names) < 2:
        return {}
    return optuna.importance.get_param_importances(study, params=list(names))


def work(study, given: list[dict], score: Callable, seed: int, beat: float) -> None:
    """Score trials until every place is finished, by this worker or by others, or given up.

    Args:
        given: for each place, the parameters that are not sampled.
        score: takes a trial and returns its value; may raise TrialPruned.
        beat: seconds from one sign of life to the next.
    """
    places = len(given)
    watched: dict[int, tuple[int | None, float]] = {}
    while True:
        fail_silent(study, watched, SILENT_BEATS * beat)
        trials = study.get_trials(deepcopy=False)
        held = holders(trials)
        queued = [i for i in held if i < places and held[i].state == TrialState.WAITING]
        free = [i for i in range(places) if i not in held and failures(trials, i) < ATTEMPTS]
        if free and not queued:
            enqueue(study, trials, free[0], given[free[0]])
        if free or queued:
            at = (queued or free)[0]
            score_next(study, places, score, int(np.random.SeedSequence([seed, at]).generate_state(1)[0]), beat)
        elif any(held[i].state == TrialState.RUNNING for i in held if i < places):
            time.sleep(min(beat, 1))
        else:
            break
    for lost in set(range(places)) - set(held):
        print(f"trial {lost}: given up, {ATTEMPTS} workers died of it", file=sys.stderr)
