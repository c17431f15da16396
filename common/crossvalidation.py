"""k-fold cross-validation of a training recipe; crossval.py reports it, tune.py scores with it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import metrics, parallel, training, twins
from common.calibration import sigmoid
from common.data import Split
from common.folds import assign_folds
from common.model import BreastResNet, Predictor, device_of, predict
from common.settings import Settings


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
    device: str,
    name: str,
    checkpoint: Path | None = None,
):
    """Train on a fixed schedule on all images but the unseen: they never choose their own model's epoch.

    Args: unseen: bool [n]. checkpoint: as `training.fit` takes it.
    Returns: (model on the CPU, its logits [unseen.sum()] of the unseen).
    """
    model = training.fit(pool[~unseen], None, settings, seed, device_of(device), name, checkpoint).model
    logits = predict(Predictor([model], settings.mirror == "on"), pool.images[unseen])
    return model.cpu(), logits


def cross_validate(
    pool: Split,
    groups: str,
    settings: Settings,
    folds: int,
    repeats: int,
    seed: int,
    jobs: int,
    threads: int,
    device: str,
    partial: Path | None = None,
    refit: bool = False,
) -> CrossValidation:
    """Train `folds` models, `repeats` times over with other folds and seeds.

    Args:
        groups: "twins" keeps near-duplicates in one fold, "none" deals every image by itself.
        jobs: models trained at once, sharing `threads`.
        partial: a folder that keeps a checkpoint of each model, and from which the training goes on.
        refit: train one more model, on all images.

    Raises: UserError when there are too few images for so many folds.
    """
    together = twins.find_groups(pool.images) if groups == "twins" else np.arange(len(pool))
    fold = np.stack([assign_folds(pool.labels, together, folds, seed + r) + r * folds for r in range(repeats)])
    unseen = [(fold == i).any(0) for i in range(repeats * folds)]
    masks = unseen + [np.zeros(len(pool), bool)] * refit
    names = [f"fold {i + 1}" for i in range(len(unseen))] + ["refit"]
    tasks = [
        (pool, mask, settings, seed + i, device, name, partial and partial / f"{groups}_{name.split()[-1]}.pt")
        for i, (mask, name) in enumerate(zip(masks, names))
    ]
    results = list(parallel.run(train_fold, tasks, jobs, seed, max(threads // jobs, 1)))
    models = [model for model, _ in results]
    logits = np.empty(fold.shape)
    for i, (mask, (_, held_out)) in enumerate(zip(unseen, results)):
        logits[i // folds, mask] = held_out
    return CrossValidation(models[: len(unseen)], fold, logits, models[-1] if refit else None)
