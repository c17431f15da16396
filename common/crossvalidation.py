"""k-fold cross-validation of a training recipe, stratified by class and with near-duplicates kept together; crossval.py
reports it, tune.py scores with it."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common import metrics, parallel, training, twins
from common.calibration import sigmoid
from common.data import Split
from common.errors import UserError
from common.model import BreastResNet, Predictor, predict
from common.seed import set_seed
from common.settings import Settings


def assign_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deal whole groups to folds so that every fold holds nearly the same number of images of each class.

    Greedy: groups in random order, largest first, each to the fold where it leaves the class counts most even (the idea
    of scikit-learn's StratifiedGroupKFold). With every image its own group this is plain stratified k-fold.

    Args:
        labels: [n] of 0 or 1.
        groups: [n], the same value for images that must share a fold.
        folds: number of folds, 2 or above.

    Returns: int [n], the fold of each image, 0 to folds - 1.
    Raises: UserError when a class has fewer groups than there are folds.
    """
    names, member_of = np.unique(groups, return_inverse=True)
    counts = np.stack([np.bincount(member_of[labels == c], minlength=len(names)) for c in (0, 1)], 1)  # [groups, 2]
    if (fewest := int((counts > 0).sum(0).min())) < folds:
        raise UserError(f"{folds} folds need at least {folds} separate images of each class; there are {fewest}")
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    filled = np.zeros((folds, 2))
    fold_of_group = np.empty(len(names), int)
    for g in order:
        cost = (((filled + counts[g]) ** 2 - filled**2) / counts.sum(0)).sum(1)  # growth of the sum of squares
        fold_of_group[g] = fold = int(np.argmin(cost))
        filled[fold] += counts[g]
    return fold_of_group[member_of]


@dataclass(frozen=True)
class Scheme:
    """How to cross-validate: `repeats` times over, with other folds and seeds from `seed` on, `folds` models each.

    groups: "twins" keeps near-duplicates in one fold, "none" deals every image by itself. refit: train one more model,
    on all images. jobs: models trained at once, sharing `threads`.
    """

    groups: str
    folds: int
    repeats: int
    seed: int
    refit: bool
    jobs: int
    threads: int
    device: torch.device


@dataclass(frozen=True)
class CrossValidation:
    """models: one a fold, repeats x folds of them; fold: int [repeats, n], the index in `models` of the one that has
    not seen an image; logits: [repeats, n], that model's, not calibrated; refit: the model trained on all images."""

    models: list[BreastResNet]
    fold: np.ndarray
    logits: np.ndarray
    refit: BreastResNet | None = None

    @property
    def mean_logits(self) -> np.ndarray:
        """[n], the mean over repeats."""
        return self.logits.mean(0)

    def score_folds(self, labels: np.ndarray) -> list[dict]:
        """`metrics.summary` of each fold by itself, with its number from 1. labels: [n]."""
        held_out = [(self.fold == i).nonzero() for i in range(len(self.models))]
        return [
            {"fold": i + 1} | metrics.summary(labels[where[1]], sigmoid(self.logits[where]))
            for i, where in enumerate(held_out)
        ]

    def score_repeats(self, labels: np.ndarray) -> list[dict]:
        """`metrics.summary` of each repeat's pooled predictions, with its number from 1. labels: [n]."""
        return [{"repeat": i + 1} | metrics.summary(labels, sigmoid(z)) for i, z in enumerate(self.logits)]


def train_fold(
    pool: Split,
    unseen: np.ndarray,
    settings: Settings,
    seed: int,
    device: torch.device,
    name: str,
    checkpoint: Path | None = None,
):
    """Train on a fixed schedule on all images but the unseen: they never choose their own model's epoch.

    Args: unseen: bool [n]. checkpoint: as `training.fit` takes it.
    Returns: (model on the CPU, its logits [unseen.sum()] of the unseen).
    """
    model = training.fit(pool[~unseen], None, settings, seed, device, name, checkpoint).model
    logits = predict(Predictor([model], settings.mirror), pool.images[unseen])
    return model.cpu(), logits


def cross_validate(pool: Split, settings: Settings, scheme: Scheme, partial: Path | None = None) -> CrossValidation:
    """Train the models of a scheme, each on all images but those of its fold, and predict those.

    Args: partial: a folder that keeps a checkpoint of each model, and from which the training goes on.
    Raises: UserError when there are too few images for so many folds.
    """
    together = twins.find_groups(pool.images) if scheme.groups == "twins" else np.arange(len(pool))
    fold = np.stack(
        [
            assign_folds(pool.labels, together, scheme.folds, scheme.seed + repeat) + repeat * scheme.folds
            for repeat in range(scheme.repeats)
        ]
    )
    unseen = {f"fold {i + 1}": (fold == i).any(0) for i in range(scheme.repeats * scheme.folds)}
    nothing = {"refit": np.zeros(len(pool), bool)} if scheme.refit else {}
    tasks = [
        (pool, mask, settings, scheme.seed + i, scheme.device, name, checkpoint_of(partial, scheme.groups, name))
        for i, (name, mask) in enumerate((unseen | nothing).items())
    ]
    threads = max(scheme.threads // scheme.jobs, 1)
    results = list(parallel.run(train_fold, tasks, scheme.jobs, functools.partial(set_seed, scheme.seed, threads)))
    logits = np.empty(fold.shape)
    for i, (mask, (_, held_out)) in enumerate(zip(unseen.values(), results)):
        logits[i // scheme.folds, mask] = held_out
    models = [model for model, _ in results]
    return CrossValidation(models[: len(unseen)], fold, logits, models[-1] if scheme.refit else None)


def checkpoint_of(partial: Path | None, groups: str, name: str) -> Path | None:
    """The file that keeps the training of a model: twins_3.pt of "fold 3"."""
    return partial and partial / f"{groups}_{name.split()[-1]}.pt"
