"""k-fold cross-validation of a training recipe, stratified by class and with near-duplicates kept together; crossval.py
reports it, tune.py scores with it."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common import metrics, parallel, training
from common.calibration import sigmoid
from common.data import Split, find_groups, require_both_classes
from common.folds import assign_folds
from common.model import BreastResNet, Predictor, predict
from common.seed import set_seed
from common.settings import Settings


@dataclass(frozen=True)
class Scheme:
    """How to cross-validate: `repeats` times over, with other folds and seeds from `seed` on, `folds` models each.

    groups: "twins" keeps near-duplicates, and images of one patient, in one fold, "none" deals every image by itself,
    "hospitals" makes each hospital a fold, whatever `folds` says. refit: train so many more models, on all images.
    jobs: models trained at once, sharing `threads`.
    """

    groups: str
    folds: int
    repeats: int
    seed: int
    refit: int
    jobs: int
    threads: int
    device: torch.device


@dataclass(frozen=True)
class CrossValidation:
    """models: one a fold, repeats x folds of them; fold: int [repeats, n], the index in `models` of the one that has
    not seen an image; logits: [repeats, n], that model's, not calibrated; refit: the models trained on all images."""

    models: list[BreastResNet]
    fold: np.ndarray
    logits: np.ndarray
    refit: list[BreastResNet]

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
    trained: np.ndarray,
    unseen: np.ndarray,
    settings: Settings,
    seed: int,
    device: torch.device,
    name: str,
    checkpoint: Path | None = None,
):
    """Train on a fixed schedule, and predict the unseen: they never choose their own model's epoch.

    Args: trained, unseen: bool [n]. checkpoint: as `training.fit` takes it.
    Returns: (model on the CPU, its logits [unseen.sum()] of the unseen).
    """
    model = training.fit(pool[trained], None, settings, seed, device, name, checkpoint).model
    logits = predict(Predictor([model], settings.mirror), pool.images[unseen])
    return model.cpu(), logits


def cross_validate(pool: Split, settings: Settings, scheme: Scheme, partial: Path | None = None) -> CrossValidation:
    """Train the models of a scheme, each on all images but those of its fold, and predict those.

    Args: partial: a folder that keeps a checkpoint of each model, and from which the training goes on.
    Raises: UserError when there are too few images for so many folds, or a hospital or the others lack a class.
    """
    fold = assign_all(pool, scheme)
    unseen = {f"fold {i + 1}": (fold == i).any(0) for i in range(fold.max() + 1)}
    masks = unseen | {f"refit {i + 1}": np.zeros(len(pool), bool) for i in range(scheme.refit)}
    trained = trained_on(pool, masks, scheme)
    files = {name: partial and partial / f"{scheme.groups}_{name.replace(' ', '_')}.pt" for name in masks}
    tasks = [
        (pool, trained[name], mask, settings, scheme.seed + i, scheme.device, name, files[name])
        for i, (name, mask) in enumerate(masks.items())
    ]
    threads = max(scheme.threads // scheme.jobs, 1)
    results = list(parallel.run(train_fold, tasks, scheme.jobs, functools.partial(set_seed, scheme.seed, threads)))
    logits = np.empty(fold.shape)
    for i, (mask, (_, held_out)) in enumerate(zip(unseen.values(), results)):
        logits[(fold == i).any(1).argmax(), mask] = held_out
    models = [model for model, _ in results]
    return CrossValidation(models[: len(unseen)], fold, logits, models[len(unseen) :])


def trained_on(pool: Split, unseen: dict[str, np.ndarray], scheme: Scheme) -> dict[str, np.ndarray]:
    """The images that each model is trained on, bool [n]: all but the unseen, and with hospitals as folds nothing that
    shares a group with these either. Raises: UserError where a class is absent."""
    if scheme.groups != "hospitals":
        return {name: ~mask for name, mask in unseen.items()}
    groups = find_groups(pool)
    trained = {name: ~np.isin(groups, groups[mask]) for name, mask in unseen.items()}
    for name, mask in trained.items():
        require_both_classes(pool.labels[mask], f"--groups hospitals: what {name} is trained on")
    return trained


def assign_all(pool: Split, scheme: Scheme) -> np.ndarray:
    """The number, from 0, of the model that does not see an image: int [repeats, n]. Raises: UserError."""
    if scheme.groups == "hospitals":
        names, hospital = np.unique(pool.hospitals, return_inverse=True)
        for i, name in enumerate(names):
            require_both_classes(pool.labels[hospital == i], f"--groups hospitals: {name or '--data'}")
        return hospital + np.arange(scheme.repeats)[:, None] * (hospital.max() + 1)
    together = find_groups(pool) if scheme.groups == "twins" else np.arange(len(pool))
    repeats = range(scheme.repeats)
    return np.stack(
        [assign_folds(pool.labels, together, scheme.folds, scheme.seed + r) + r * scheme.folds for r in repeats]
    )
