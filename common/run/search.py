"""What a search may vary, which of the settings that it found is chosen, and the Optuna study that workers share.

On a few hundred images the best mean of many settings owes much to luck. The choice is therefore the simplest setting
that chance alone could have kept from being best: the one-standard-error rule (Breiman et al., Classification and
Regression Trees, 1984, section 3.4.3; Hastie et al., The Elements of Statistical Learning, 2nd ed., section 7.10).

A study of N trials has the places 0 to N - 1: a new trial takes the next, and one that was interrupted or whose worker
died is run again at its own, with the same parameters. What is sampled at a place depends on the seed, the place and
the trials finished before, so that a search goes on after its random start-up trials (optuna issue 3255).
"""

import argparse
import math
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError, UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback as Retry
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from common.errors import UserError

STARTUP_TRIALS = 5  # random ones, before TPE has something to learn from and the pruner something to compare with
IMPORTANCE_TRIALS = 10  # complete ones, below which the importance of settings is noise
SILENT_BEATS = 4  # without one, a worker is taken for dead
RETRIES = 3  # of a trial whose workers die; then its setting is suspect, and left out
LOCK_SECONDS = 60  # to wait for other workers' writes to one SQLite file


@dataclass(frozen=True)
class Span:
    """Numbers between two ends, the simplest end first; whole numbers if the ends are; `log`: even in the logarithm."""

    simplest: float
    other: float
    log: bool = False

    def suggest(self, trial, name: str):
        draw = trial.suggest_int if isinstance(self.simplest, int) else trial.suggest_float
        return draw(name, *sorted((self.simplest, self.other)), log=self.log)

    def complexity(self, value) -> float:
        return abs(value - self.simplest)


@dataclass(frozen=True)
class Choice:
    """A few values, the simplest first."""

    values: tuple

    def suggest(self, trial, name: str):
        return trial.suggest_categorical(name, self.values)

    def complexity(self, value) -> float:
        return self.values.index(value)


# Values are as files have them. The first row in which two settings differ says which is simpler.
RANGES: dict[str, Span | Choice] = {
    "stages": Choice((2, 3, 4)),  # a smaller network is simpler; ResNet-18 has no more
    "wd": Span(1.0, 1e-5, log=True),  # stronger decay is simpler: smaller weights; below 1e-5 it does nothing
    "lr": Span(1e-5, 1e-2, log=True),  # slower stays nearer to the first weights; AdamW diverges above 1e-2
    "epochs": Span(5, 60, log=True),  # fewer cost less; the default is 20
    "loss": Choice(("cross-entropy", "focal")),  # cross-entropy has no further parameter
    "class_weights": Choice(("none", "balanced")),
    "label_smoothing": Span(0.0, 0.3),  # 0 is off; 0.3 leaves targets of 0.15 and 0.85
    "mixup": Span(0.0, 1.0),  # 0 is off; at 1 every mixture is as likely
    "augment": Choice(("off", "on")),
    "ema": Span(0.9, 0.999),  # 0.9 averages ten steps, 0.999 more than a default run has
    "warmup": Span(0.0, 0.5),  # 0 is none
    "batch_size": Span(128, 8, log=True),  # fewer steps; above 128 an epoch has too few
    "mirror": Choice(("off", "on")),  # on doubles the price of a prediction
}

RULE = "the simplest setting within one standard error of a paired difference of the best"


def names(text: str) -> tuple[str, ...]:
    """An argparse type: settings to search, separated by commas, in the order of RANGES."""
    given = [name.strip().replace("-", "_") for name in text.split(",")]
    unknown = [name for name in given if name not in RANGES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} has no range to search; known are {', '.join(RANGES)}")
    if len(set(given)) < len(given):
        raise argparse.ArgumentTypeError(f"{text!r} names a setting twice")
    return tuple(name for name in RANGES if name in given)


def paired_error(scores: np.ndarray) -> float:
    """Standard error of the difference between two settings' mean scores, over folds that all settings share.

    What makes a fold hard for every setting cancels in the difference and is left out: the error is that of a
    randomised block design with folds as blocks, sqrt(2 MS_residual / folds) (Montgomery, Design and Analysis of
    Experiments, section 4.1), pooled over all settings because a few folds say little about any one pair. For two
    settings it is the standard error of their paired fold differences. Folds share training images, so it is rather
    too small than too large (Nadeau & Bengio, Machine Learning 2003).

    Args: scores: [settings, folds]. Returns: nan with fewer than two of either.
    """
    settings, folds = scores.shape
    if min(settings, folds) < 2:
        return math.nan
    residuals = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    return float(np.sqrt(2 * (residuals**2).sum() / ((settings - 1) * (folds - 1)) / folds))


def complexity(setting: dict) -> tuple:
    """Sorts settings, the simplest first."""
    return tuple(span.complexity(setting[name]) for name, span in RANGES.items() if name in setting)


def choose(settings: list[dict], scores: np.ndarray) -> tuple[int, int, float]:
    """The simplest setting whose mean is at most one `paired_error` below the best (RULE).

    Args: settings: dicts of searched values; scores: [settings, folds], higher is better.
    Returns: (index of the chosen, index of the best by mean, the paired error); without an error the best is chosen.
    """
    means, error = scores.mean(1), paired_error(scores)
    best = int(means.argmax())
    near = np.flatnonzero(means >= means[best] - np.nan_to_num(error))
    return min(map(int, near), key=lambda i: (complexity(settings[i]), -means[i])), best, error


def shown(url: str) -> str:
    """A storage's URL without what may be secret: user and password, and what follows a question mark."""
    return re.sub(r"\?.*", "?…", re.sub(r"//.*@", "//…@", url))


@contextmanager
def explained(url: str, what: str, errors: tuple[type[Exception], ...] = (OptunaError, OSError)) -> Iterator[None]:
    """Turn what a storage raises into one line without what `shown` leaves out of its URL. Raises: UserError."""
    try:
        yield
    except errors as error:
        cause: BaseException = error
        while cause.__cause__:  # down to the driver's own words
            cause = cause.__cause__
        reason = str(cause).strip().split("\n")[0] or type(cause).__name__
        whole, public = (set(re.split("[/:@?&=]", text)) for text in (url, shown(url)))
        for secret in whole - public:
            reason = re.sub(rf"(?<!\w)({re.escape(secret)}|{re.escape(unquote(secret))})(?!\w)", "…", reason)
        raise UserError(f"--storage {shown(url)}: {what} ({reason})") from None


def connect(url: str, name: str, heartbeat: int) -> optuna.Study:
    """A study, new or as it is there. Raises: Optuna's and the driver's errors."""
    storage: JournalStorage | RDBStorage
    if url.startswith("journal:"):
        storage = JournalStorage(JournalFileBackend(url.removeprefix("journal:")))
    else:
        storage = RDBStorage(
            url,
            {"connect_args": {"timeout": LOCK_SECONDS}} if url.startswith("sqlite") else {"pool_pre_ping": True},
            heartbeat_interval=heartbeat,
            grace_period=SILENT_BEATS * heartbeat,
            heartbeat_stale_trial_callback=Retry(RETRIES),
        )
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1)
    return optuna.create_study(
        storage=storage, study_name=name, pruner=pruner, direction="maximize", load_if_exists=True
    )


def open_study(url: str, name: str, fixed: dict, heartbeat: int) -> optuna.Study:
    """A new study, or an earlier one to go on with, if it was begun with the same `fixed`.

    Args: url: of a database, as Optuna takes it, or journal:FILE; heartbeat: seconds between a worker's signs of life,
    for which Optuna needs a database. Raises: UserError.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    threading.excepthook = lambda _: None  # of the heartbeat: what it cannot write, the trial will say as well
    with explained(url, "cannot be opened", (Exception,)):
        try:
            study = connect(url, name, heartbeat)
        except Exception:  # perhaps another worker was making the tables at this moment
            time.sleep(1)
            study = connect(url, name, heartbeat)
        if "fixed" not in study.user_attrs:
            study.set_user_attr("fixed", fixed)
        begun = study.user_attrs["fixed"]
    different = sorted(key for key in fixed | begun if fixed.get(key) != begun.get(key))
    if different:
        raise UserError(f"study {name!r} was begun with other {', '.join(different)}; use the same, or another --study")
    return study


def places(study: optuna.Study) -> list[int]:
    """The place of each trial."""
    first = [min([*Retry.retry_history(trial), trial.number]) for trial in study.get_trials(deepcopy=False)]
    return np.unique(first, return_inverse=True)[1].tolist()


def trials_at(study: optuna.Study, total: int, *states: TrialState) -> dict[int, FrozenTrial]:
    """{place: a trial there in one of the states}, of the first `total` places, in their order."""
    found = {at: t for at, t in zip(places(study), study.get_trials(deepcopy=False)) if t.state in states}
    return {at: found[at] for at in sorted(found) if at < total}


def tpe(seed: int, place: int) -> optuna.samplers.BaseSampler:
    """TPE whose randomness is that of a place."""
    own = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
    return optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=own)


def given(settings: list[dict], place: int) -> optuna.samplers.BaseSampler:
    """The setting of a place, and no choice."""
    return optuna.samplers.PartialFixedSampler(settings[place % len(settings)], optuna.samplers.RandomSampler())


def attempt(trial: optuna.Trial, sampler: Callable, score: Callable) -> float:
    """Score a trial; what ends in neither a score nor pruning is left to the next worker or session."""
    study = trial.study
    place = places(study)[trial.number]
    study.sampler = sampler(place)  # Optuna asks it when the trial needs its first value
    try:
        return score(trial, place)
    except (optuna.TrialPruned, UpdateFinishedTrialError):
        raise
    except BaseException as end:
        Retry()(study, study.get_trials()[trial.number])
        if isinstance(end, SystemExit):  # Optuna itself marks as failed what Ctrl-C or an error ends, but not SIGTERM
            study.tell(trial, state=TrialState.FAIL)
        raise


def wait(study: optuna.Study, total: int) -> None:
    """Wait a second for other workers. A trial that has no parameters even then was lost before the first sign of life
    of its worker, without which Optuna never takes one for dead: it is run again."""
    begun = trials_at(study, total, TrialState.RUNNING)
    time.sleep(1)
    for place, trial in trials_at(study, total, TrialState.RUNNING).items():
        if place in begun and not trial.params:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            Retry()(study, study.get_trials()[trial.number])


def work(study: optuna.Study, total: int, sampler: Callable, score: Callable, patient: bool) -> None:
    """Score trials until every place is finished, by this worker or by others.

    Args:
        sampler: takes a place and returns the sampler of the trial there.
        score: takes a trial and its place and returns its value; may raise TrialPruned.
        patient: wait for the trials of other workers, and run those again whose worker falls silent; of a database.
    """
    while True:
        optuna.storages.fail_stale_trials(study)
        if len(set(places(study))) < total or trials_at(study, total, TrialState.WAITING):
            try:
                study.optimize(partial(attempt, sampler=sampler, score=score), n_trials=1)
            except (AssertionError, UnboundLocalError) as error:  # Optuna's, when it could not write how a trial ended
                raise (error.__context__ or error) from None
            except ValueError as error:
                if not str(error).startswith("Cannot tell a "):  # another took the trial over while this machine slept
                    raise
        elif patient and trials_at(study, total, TrialState.RUNNING):
            wait(study, total)
        else:
            return


def importances(study: optuna.Study, names) -> dict[str, float]:
    """What share of the variation among good settings each searched setting explains (PED-ANOVA, Watanabe et al., IJCAI
    2023): {name: share}, the largest first, sum 1; empty where there are too few complete trials to say."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < IMPORTANCE_TRIALS or len(names) < 2:
        return {}
    return optuna.importance.get_param_importances(study, params=list(names))
