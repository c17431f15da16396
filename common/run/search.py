"""What a search may vary, which of the settings that it found is chosen, and the Optuna study that workers share.

On a few hundred images the best mean of many settings owes much to luck. The choice is therefore the simplest setting
that chance alone could have kept from being best: the one-standard-error rule (Breiman et al., Classification and
Regression Trees, 1984, section 3.4.3; Hastie et al., The Elements of Statistical Learning, 2nd ed., section 7.10).
"""

import argparse
import math
import re
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError, UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from common.errors import UserError, one_line

STARTUP_TRIALS = 5  # random ones, before TPE has something to learn from and the pruner something to compare with
IMPORTANCE_TRIALS = 10  # complete ones, below which the importance of settings is noise
SILENT_BEATS = 4  # without one, a worker is taken for dead
RETRIES = 3  # of a trial whose workers die; then its setting is suspect
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Span:
    """Numbers, whole if the ends are, between the simplest and the other end; `log`: even in the logarithm."""

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
    """Standard error of the difference between two settings' mean scores: nan with fewer than two settings or folds.

    What makes a fold hard for all settings cancels: it is sqrt(2 MS_residual / folds) of a randomised block design with
    folds as blocks (Montgomery, Design and Analysis of Experiments, section 4.1), pooled over all settings as a few
    folds say little about one pair. Folds share training images, so it is rather too small than too large (Nadeau &
    Bengio, Machine Learning 2003). scores: [settings, folds].
    """
    settings, folds = scores.shape
    if min(settings, folds) < 2:
        return math.nan
    residuals = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    return float(np.sqrt(2 * (residuals**2).sum() / ((settings - 1) * (folds - 1)) / folds))


def choose(settings: list[dict], scores: np.ndarray) -> tuple[int, int, float]:
    """The simplest setting whose mean is at most one `paired_error` below the best (RULE).

    Args: settings: dicts of searched values; scores: [settings, folds], higher is better.
    Returns: (index of the chosen, index of the best by mean, the paired error); without an error the best is chosen.
    """
    means, error = scores.mean(1), paired_error(scores)
    best = int(means.argmax())
    near = np.flatnonzero(means >= means[best] - np.nan_to_num(error)).tolist()

    def complexity(i: int) -> list:
        return [span.complexity(settings[i][name]) for name, span in RANGES.items() if name in settings[i]]

    return min(near, key=lambda i: (complexity(i), -means[i])), best, error


def shown(url: str) -> str:
    """A storage's URL without what may be secret: user and password, and what follows a question mark."""
    return re.sub(r"\?.*", "?…", re.sub(r"//.*@", "//…@", url))


@contextmanager
def explained(url: str, what: str, errors: tuple[type[Exception], ...] = (OptunaError, OSError)) -> Iterator[None]:
    """Turn what a storage raises into one line, in which no password of the URL is left. Raises: UserError."""
    try:
        yield
    except errors as error:
        cause: BaseException = error
        while cause.__cause__:  # down to the driver's own words
            cause = cause.__cause__
        reason = one_line(str(cause)) or type(cause).__name__
        for secret in re.findall(r"//[^/]*?:(.+)@", url) + re.findall(r"[?&]\w*pass\w*=([^&]+)", url):
            reason = reason.replace(secret, "…").replace(unquote(secret), "…")
        raise UserError(f"--storage {shown(url)}: {what} ({reason})") from None


def connect(url: str, heartbeat: int) -> optuna.storages.BaseStorage:
    """The storage that a URL names: journal:FILE, or a database. In a database each worker gives a sign of life every
    `heartbeat` seconds; without four, its trial is run again by another. Raises: what Optuna and the driver raise."""
    if url.startswith("journal:"):
        return JournalStorage(JournalFileBackend(url.removeprefix("journal:")))
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
    return RDBStorage(url, waiting, heartbeat_interval=heartbeat, heartbeat_stale_trial_callback=retry,
                      grace_period=SILENT_BEATS * heartbeat)  # fmt: skip


def open_study(url: str, name: str, fixed: dict, heartbeat: int) -> optuna.Study:
    """A new study, or an earlier one to go on with if it was begun with the same `fixed`. Raises: UserError."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    threading.excepthook = lambda _: None  # of the heartbeat: what it cannot write, the trial will say as well
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1)
    with explained(url, "cannot be opened", (Exception,)):
        try:
            storage = connect(url, heartbeat)
        except Exception:  # perhaps another worker was making the tables at this moment
            time.sleep(1)
            storage = connect(url, heartbeat)
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


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to a score, or to where they were pruned, in their order."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def run_trial(study: optuna.Study, score: Callable) -> None:
    """Score one trial. A lost connection or Ctrl-C comes out, which Optuna hides behind errors of its own where it
    cannot write how the trial ended. It is left to another worker who has ended it meanwhile: as this one had been
    silent, or, in SQLite, which locks no rows, as both had taken the same."""
    with suppress(UpdateFinishedTrialError):
        try:
            study.optimize(score, n_trials=1)
        except (AssertionError, UnboundLocalError) as error:
            hidden = error.__context__ or error
            raise hidden from hidden.__cause__
        except ValueError as error:
            if not str(error).startswith("Cannot tell a "):
                raise


def optimise(study: optuna.Study, total: int, score: Callable, seed: int) -> None:
    """Score trials until the study holds `total` finished ones, whoever scored them. What a trial samples depends on
    the seed, on its number and on the trials finished before: workers do not repeat each other, nor does a search that
    goes on (Optuna issue 3255). score: takes a trial and returns its value; may raise TrialPruned."""

    def seeded(trial: optuna.Trial) -> float:
        own = int(np.random.SeedSequence([seed, trial.number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=own)
        return score(trial)

    while len(finished(study)) < total:
        run_trial(study, seeded)


def score_all(study: optuna.Study, settings: list[dict], score: Callable) -> list[FrozenTrial]:
    """Score each setting once, whoever scores it; the last perhaps twice, for nobody waits for another worker.
    Returns: a trial of each."""

    def by_setting(*states: TrialState) -> dict[str, FrozenTrial]:
        trials = study.get_trials(deepcopy=False, states=states)
        return {str(trial.system_attrs.get("fixed_params", trial.params)): trial for trial in trials}

    while missing := [setting for setting in settings if str(setting) not in by_setting(*FINISHED)]:
        begun = by_setting(TrialState.RUNNING, TrialState.WAITING)
        free = [setting for setting in missing if str(setting) not in begun]
        study.enqueue_trial(secrets.choice(free or missing))  # unseeded: workers who come together rarely meet
        run_trial(study, score)
    scored = by_setting(*FINISHED)
    return [scored[str(setting)] for setting in settings]


def importances(study: optuna.Study, names) -> dict[str, float]:
    """What share of the variation among good settings each searched setting explains (PED-ANOVA, Watanabe et al., IJCAI
    2023): {name: share}, the largest first, sum 1; empty where there are too few complete trials to say."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < IMPORTANCE_TRIALS or len(names) < 2:
        return {}
    return optuna.importance.get_param_importances(study, params=list(names))
