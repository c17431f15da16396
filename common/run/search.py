"""What a search may vary, from where to where, and which of the settings that it found is chosen.

On a few hundred images the best mean of many settings owes much to luck. The choice is therefore the simplest setting
that chance alone could have kept from being best: the one-standard-error rule (Breiman et al., Classification and
Regression Trees, 1984, section 3.4.3; Hastie et al., The Elements of Statistical Learning, 2nd ed., section 7.10).
"""

import argparse
import math
from dataclasses import dataclass

import numpy as np


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


# Settings are compared row by row: the first row in which two differ says which is simpler.
RANGES: dict[str, Span | Choice] = {
    "stages": Choice((2, 3, 4)),  # a smaller network is simpler; ResNet-18 has no more
    "wd": Span(1.0, 1e-5, log=True),  # stronger decay is simpler: smaller weights; below 1e-5 it does nothing
    "lr": Span(1e-5, 1e-2, log=True),  # slower stays nearer to the first weights; AdamW diverges above 1e-2
    "epochs": Span(5, 60, log=True),  # fewer cost less; the default is 20
    "loss": Choice(("cross-entropy", "focal")),  # cross-entropy has no further parameter
    "class_weights": Choice(("none", "balanced")),
    "label_smoothing": Span(0.0, 0.3),  # 0 is off; 0.3 leaves targets of 0.15 and 0.85
    "mixup": Span(0.0, 1.0),  # 0 is off; at 1 every mixture is as likely
    "augment": Choice((False, True)),
    "ema": Span(0.9, 0.999),  # 0.9 averages ten steps, 0.999 more than a default run has
    "warmup": Span(0.0, 0.5),  # 0 is none
    "batch_size": Span(128, 8, log=True),  # fewer steps; above 128 an epoch has too few
    "mirror": Choice((False, True)),  # on doubles the price of a prediction
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
