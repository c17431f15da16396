"""A search for settings: their ranges, the choice among the settings tried, and the Optuna study that workers share.

On a few hundred images the best mean of many settings owes much to luck. The search therefore chooses the simplest
setting within one standard error of the best (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3;
Hastie et al., The Elements of Statistical Learning, 2nd ed., section 7.10).
"""

import argparse
import math
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import optuna
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from common.errors import UserError, one_line

STARTUP_TRIALS = 5  # random trials, before TPE can learn from trials and the pruner can compare trials
IMPORTANCE_TRIALS = 10  # with fewer complete trials the importance of settings is noise
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
AT_WORK = (OptunaError, SQLAlchemyError, OSError)  # what a storage raises when a connection or the disk fails
NOT_OPENED = (*AT_WORK, ImportError, RuntimeError, ValueError, LookupError, TypeError)  # no driver, or a damaged file


@dataclass(frozen=True)
class Span:
    """A range of numbers from the simplest to the other end. log: uniform in the logarithm.

    The numbers are integers if `simplest` is an integer.
    """

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
    """Values to choose from, the simplest first."""

    values: tuple

    def suggest(self, trial, name: str):
        return trial.suggest_categorical(name, self.values)

    def complexity(self, value) -> float:
        return self.values.index(value)


# Values are written as in files. The first row in which two settings differ decides which setting is simpler.
RANGES: dict[str, Span | Choice] = {
    "stages": Choice((2, 3, 4)),  # a smaller network is simpler; ResNet-18 has four
    "wd": Span(1.0, 1e-5, log=True),  # strong decay is simpler: small weights; below 1e-5 it does nothing
    "lr": Span(1e-5, 1e-2, log=True),  # a low rate stays near the first weights; AdamW diverges above 1e-2
    "epochs": Span(5, 60, log=True),  # fewer epochs cost less; the default is 20
    "loss": Choice(("cross-entropy", "focal")),  # cross-entropy has no parameter
    "class_weights": Choice(("none", "balanced")),
    "label_smoothing": Span(0.0, 0.3),  # 0 is off; 0.3 leaves targets of 0.15 and 0.85
    "mixup": Span(0.0, 1.0),  # 0 is off; at 1 all mixtures are equally likely
    "augment": Choice(("off", "on")),
    "ema": Span(0.9, 0.999),  # 0.9 averages 10 steps; 0.999 averages 1000, more than a default run
    "warmup": Span(0.0, 0.5),  # 0 is off
    "batch_size": Span(128, 8, log=True),  # large batches mean few steps; above 128 an epoch has too few
    "mirror": Choice(("off", "on")),  # on doubles the time of a prediction
}

RULE = "the simplest setting within one standard error of a paired difference of the best"


def names(text: str) -> tuple[str, ...]:
    """Return the settings to search that a text names, separated by commas, in the order of RANGES.

    Raises: argparse.ArgumentTypeError, because this function is the type of a flag.
    """
    given = [name.strip().replace("-", "_") for name in text.split(",")]
    unknown = [name for name in given if name not in RANGES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} has no range to search. Use {', '.join(RANGES)}")
    if len(set(given)) < len(given):
        raise argparse.ArgumentTypeError(f"{text!r} names a setting twice")
    return tuple(name for name in RANGES if name in given)


def paired_error(scores: np.ndarray) -> float:
    """Return the standard error of the difference between the mean scores of two settings.

    The error is sqrt(2 MS_residual / folds) of a randomised block design with folds as blocks (Montgomery, Design and
    Analysis of Experiments, section 4.1). In this design, a fold that is hard for all settings does not add to the
    error. The residuals of all settings are pooled, because a few folds say little about one pair. The error is too
    small rather than too large, because folds share training images (Nadeau & Bengio, Machine Learning 2003).

    Args: scores: [settings, folds]. Returns: nan with fewer than two settings or two folds.
    """
    settings, folds = scores.shape
    if min(settings, folds) < 2:
        return math.nan
    residuals = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    return float(np.sqrt(2 * (residuals**2).sum() / ((settings - 1) * (folds - 1)) / folds))


def choose(settings: list[dict], scores: np.ndarray) -> tuple[int, int, float]:
    """Return the simplest setting with a mean at most one `paired_error` below the best mean (RULE).

    Args: settings: dicts of searched values; scores: [settings, folds], higher is better.
    Returns: index of the chosen setting, index of the best by mean, the paired error. If the error is nan, only
    settings with the best mean count.
    """
    means, error = scores.mean(1), paired_error(scores)
    best = int(means.argmax())
    near = np.flatnonzero(means >= means[best] - np.nan_to_num(error)).tolist()

    def complexity(i: int) -> list:
        return [span.complexity(settings[i][name]) for name, span in RANGES.items() if name in settings[i]]

    return min(near, key=lambda i: (complexity(i), -means[i])), best, error


def storage_url(text: str) -> str:
    """Return the URL of a storage, as the type of a flag. Raises: argparse.ArgumentTypeError without a scheme."""
    if re.match(r"journal:|[\w+]+://", text):
        return text
    file = "FILE" if not text or "@" in text else text  # a URL without its scheme may hold a password
    journal = f"journal:{os.path.splitext(file)[0]}.journal"
    raise argparse.ArgumentTypeError(f"is no URL. Give sqlite:///{file} for a database file, or {journal}")


def shown(url: str) -> str:
    """Return the URL of a storage without user, password and the text after a question mark."""
    return re.sub(r"\?.*", "?…", re.sub(r"//.*@", "//…@", url))


@contextmanager
def explained(url: str, what: str, errors: tuple[type[Exception], ...] = AT_WORK) -> Iterator[None]:
    """Turn an error of the storage into one line, without the passwords of the URL. Raises: UserError."""
    try:
        yield
    except errors as error:
        cause: BaseException = error
        while cause.__cause__:  # the first cause has the message of the driver
            cause = cause.__cause__
        reason = one_line(str(cause)) or type(cause).__name__
        for secret in re.findall(r"//[^/]*?:(.+)@", url) + re.findall(r"[?&]\w*pass\w*=([^&]+)", url):
            reason = reason.replace(secret, "…").replace(unquote(secret), "…")
        raise UserError(f"--storage {shown(url)}: {what} ({reason})") from None


def connect(url: str) -> BaseStorage:
    """Open the storage of a URL: a journal file or a database. Raises: the exceptions in NOT_OPENED."""
    if not url.startswith("journal:"):
        return RDBStorage(url, {"pool_pre_ping": True})  # a connection may end while a model is trained
    path = url.removeprefix("journal:")
    return JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))  # Windows may forbid symbolic links


def open_study(url: str, name: str, fixed: dict) -> optuna.Study:
    """Begin a study, or continue an earlier study that was begun with the same `fixed`. Raises: UserError."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1)
    with explained(url, "cannot be opened", NOT_OPENED):
        study = optuna.create_study(
            storage=connect(url), study_name=name, pruner=pruner, direction="maximize", load_if_exists=True
        )
        if "fixed" not in study.user_attrs:
            study.set_user_attr("fixed", fixed)
        begun = study.user_attrs["fixed"]
    different = sorted(key for key in fixed | begun if fixed.get(key) != begun.get(key))
    if different:
        flags = "flags, and --precision" if "precision" in different else "flags"
        raise UserError(f"study {name!r} has other {', '.join(different)}. Give the same {flags}, or another --study.")
    return study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete and the pruned trials, in the order of their numbers.

    The trial of a dead worker stays unfinished.
    """
    return study.get_trials(deepcopy=False, states=FINISHED)


def run_trial(study: optuna.Study, trial: optuna.Trial, setting: dict, score: Callable) -> None:
    """Score a setting, and store in the trial its score, or that it was pruned."""
    try:
        study.tell(trial, score(trial, setting))
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)


def optimise(study: optuna.Study, total: int, names: tuple[str, ...], score: Callable, seed: int) -> None:
    """Search until the study holds `total` finished trials of all workers.

    The seed, the number of the trial and the trials finished before decide the setting of a trial. Workers therefore do
    not repeat each other, and a continued search does not repeat itself (Optuna issue 3255).

    Args: names: what to search; score: takes a trial and a setting and returns the value, or raises TrialPruned.
    """
    while len(finished(study)) < total:
        trial = study.ask()
        trial_seed = int(np.random.SeedSequence([seed, trial.number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=trial_seed)
        run_trial(study, trial, {name: RANGES[name].suggest(trial, name) for name in names}, score)


def score_all(study: optuna.Study, settings: list[dict], score: Callable) -> list[FrozenTrial]:
    """Score each setting once, together with other workers. Returns: a finished trial for each setting.

    No worker waits. If other workers have begun all remaining settings, a worker scores a begun setting again, because
    the other worker may have died. score: as in `optimise`.
    """

    def tried(*states: TrialState) -> dict[str, FrozenTrial]:
        trials = study.get_trials(deepcopy=False, states=states)
        return {str(trial.user_attrs.get("setting")): trial for trial in trials}

    while missing := [setting for setting in settings if str(setting) not in tried(*FINISHED)]:
        begun = tried(TrialState.RUNNING)
        free = [setting for setting in missing if str(setting) not in begun]
        setting = secrets.choice(free or missing)  # unseeded, so that workers rarely choose the same setting
        trial = study.ask()
        trial.set_user_attr("setting", setting)
        run_trial(study, trial, setting, score)
    scored = tried(*FINISHED)
    return [scored[str(setting)] for setting in settings]


def importances(study: optuna.Study, names) -> dict[str, float]:
    """Return which share of the variation among good settings each searched setting explains.

    By PED-ANOVA (Watanabe et al., IJCAI 2023). Returns: {name: share}, the largest first, sum 1; {} with fewer than
    IMPORTANCE_TRIALS complete trials or fewer than two names.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < IMPORTANCE_TRIALS or len(names) < 2:
        return {}
    return optuna.importance.get_param_importances(study, params=list(names))
