"""Cross-validation of a training recipe: stratified folds that keep groups together, or one fold per hospital.

crossval.py reports it, tune.py scores with it."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common import metrics, parallel, training
from common.calibration import sigmoid
from common.data import Images, require_both_classes
from common.folds import assign_folds
from common.looks import predict
from common.model import BreastResNet, Predictor, TwoLooks
from common.seed import set_seed
from common.settings import Settings


@dataclass(frozen=True)
class Scheme:
    """How to cross-validate: `repeats` times over, with other folds and seeds from `seed` on, `folds` models each.

    groups: "patient" keeps images of one patient, and near-duplicates, in one fold; "image" deals every image by
    itself; "hospital" makes each hospital a fold, whatever `folds` says. refit: train so many more models, on all
    images. jobs: models trained at once, sharing `threads`.
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
    not seen an image; logits: [repeats, n], that model's, not calibrated; found: [repeats, n], how sure its finder is
    of a lesion; refit: the models trained on all images."""

    models: list[BreastResNet | TwoLooks]
    fold: np.ndarray
    logits: np.ndarray
    found: np.ndarray
    refit: list[BreastResNet | TwoLooks]

    @property
    def used(self) -> list[BreastResNet | TwoLooks]:
        """The models of the run: the refit ones, or those of the folds as an ensemble."""
        return self.refit or self.models

    @property
    def mean_logits(self) -> np.ndarray:
        """[n], the mean over repeats."""
        return self.logits.mean(0)

    def look_at_boxes(self, pool: Images, mirror: bool) -> np.ndarray:
        """The same mean of the images that have a box, [boxed], when the models of the view lesion look there."""
        boxed = np.flatnonzero(pool.boxed)
        logits = np.empty((len(self.fold), len(boxed)))
        for i, model in enumerate(self.models):
            if (unseen := self.fold[:, boxed] == i).any():
                logits[unseen], _ = predict(Predictor([model], mirror), pool[boxed[unseen.any(0)]], given=True)
        return logits.mean(0)

    def score_folds(self, pool: Images) -> list[dict]:
        """`metrics.summary` of each fold by itself, with its number from 1 and its hospitals."""
        labels = np.broadcast_to(pool.labels, self.fold.shape)
        found = []
        for i, held_out in enumerate(self.fold == i for i in range(len(self.models))):
            hospitals = " + ".join(dict.fromkeys(pool.hospitals[held_out.any(0)]))
            summary = metrics.summary(labels[held_out], sigmoid(self.logits[held_out]))
            found.append({"fold": i + 1, "hospital": hospitals} | summary)
        return found

    def score_repeats(self, labels: np.ndarray) -> list[dict]:
        """`metrics.summary` of each repeat's pooled predictions, with its number from 1. labels: [n]."""
        return [{"repeat": i + 1} | metrics.summary(labels, sigmoid(z)) for i, z in enumerate(self.logits)]


def train_fold(
    pool: Images,
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
    Returns: (model on the CPU, its logits [unseen.sum()] of the unseen, how sure its finder is of a lesion in each).
    """
    model = training.fit(pool[trained], None, settings, seed, device, name, checkpoint).model
    return model.cpu(), *predict(Predictor([model], settings.mirror), pool[unseen])


def model_seed(seed: int, i: int) -> int:
    """The seed of model i: neighbouring seeds of two cross-validations share no model."""
    return int(np.random.SeedSequence([seed, i]).generate_state(1)[0])


def cross_validate(pool: Images, settings: Settings, scheme: Scheme, partial: Path | None = None) -> CrossValidation:
    """Train the models of a scheme, each on all images but those of its fold, and predict those.

    Args: partial: a folder that keeps a checkpoint of each model, and from which the training goes on.
    Raises: UserError when there are too few images for so many folds, or a hospital or the others lack a class.
    """
    groups = np.arange(len(pool)) if scheme.groups == "image" else pool.groups
    fold = assign_models(pool, groups, scheme)
    unseen = {f"fold {i + 1}": (fold == i).any(0) for i in range(fold.max() + 1)}
    unseen |= {f"refit {i + 1}": np.zeros(len(pool), bool) for i in range(scheme.refit)}
    tasks = []
    for i, (name, mask) in enumerate(unseen.items()):
        trained = trained_on(pool, groups, mask, name)
        checkpoint = partial and partial / f"{name.replace(' ', '_')}.pt"
        tasks.append((pool, trained, mask, settings, model_seed(scheme.seed, i), scheme.device, name, checkpoint))
    begin = functools.partial(set_seed, scheme.seed, max(scheme.threads // scheme.jobs, 1))
    models, predicted, sure = zip(*parallel.run(train_fold, tasks, scheme.jobs, begin))
    folds, logits, found = len(models) - scheme.refit, np.empty(fold.shape), np.empty(fold.shape, np.float32)
    for i in range(folds):
        logits[fold == i], found[fold == i] = predicted[i], sure[i]
    return CrossValidation(list(models[:folds]), fold, logits, found, list(models[folds:]))


def assign_models(pool: Images, groups: np.ndarray, scheme: Scheme) -> np.ndarray:
    """The number, from 0, of the model that does not see an image: int [repeats, n]. groups: [n], what stays together.
    Raises: UserError."""
    if scheme.groups == "hospital":
        names, hospital = np.unique(pool.hospitals, return_inverse=True)
        for i, name in enumerate(names):
            require_both_classes(pool.labels[hospital == i], f"--groups hospital: {name}")
        return hospital + np.arange(scheme.repeats)[:, None] * len(names)
    repeats = [assign_folds(pool.labels, groups, scheme.folds, scheme.seed + r) for r in range(scheme.repeats)]
    return np.stack(repeats) + np.arange(scheme.repeats)[:, None] * scheme.folds


def trained_on(pool: Images, groups: np.ndarray, unseen: np.ndarray, name: str) -> np.ndarray:
    """The images that a model is trained on, bool [n]: all but the unseen, and nothing that shares a group with these,
    as images of two hospitals may. Raises: UserError where a class is absent."""
    trained = ~np.isin(groups, groups[unseen])
    require_both_classes(pool.labels[trained], f"--groups hospital: what {name} is trained on")
    return trained
