"""Cross-validation of a training recipe: stratified folds that keep groups together, or one fold per hospital.

crossval.py reports the predictions. tune.py uses them to score settings.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common import metrics, parallel, training
from common.calibration import sigmoid
from common.data import Images, require_both_classes
from common.errors import UserError
from common.folds import assign_folds
from common.looks import find_and_predict
from common.model import BreastResNet, Predictor, TwoLooks
from common.seed import set_seed
from common.settings import Settings


@dataclass(frozen=True)
class Scheme:
    """How to cross-validate: `repeats` times, with `folds` models each. Each repeat has other folds and seeds.

    groups: "patient" keeps images of one patient, and near-duplicates, in one fold; "image" treats every image alone;
    "hospital" makes each hospital a fold, and ignores `folds`.
    seed: seed of the folds and models. refit: number of additional models, trained on all images.
    jobs: models trained at once. threads: CPU threads that the jobs share.
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
    """The models of a cross-validation, and their out-of-fold predictions.

    models: repeats x folds models. fold: int [repeats, n], the index in `models` of the model that has not seen an
    image. logits: [repeats, n], predicted by this model, not calibrated. found: float32 [repeats, n], how sure the
    finder of this model is of a lesion. refit: the models trained on all images.
    """

    models: list[BreastResNet | TwoLooks]
    fold: np.ndarray
    logits: np.ndarray
    found: np.ndarray
    refit: list[BreastResNet | TwoLooks]

    @property
    def used(self) -> list[BreastResNet | TwoLooks]:
        """The models of the run: the refit models, or the models of the folds as an ensemble."""
        return self.refit or self.models

    @property
    def mean_logits(self) -> np.ndarray:
        """The mean of the logits over repeats, [n]."""
        return self.logits.mean(0)

    def look_at_boxes(self, pool: Images, mirror: bool) -> np.ndarray:
        """Return the mean logits [boxed] of the images with a box, when models of the view lesion look at the box."""
        boxed = np.flatnonzero(pool.boxed)
        logits = np.empty((len(self.fold), len(boxed)))
        for i, model in enumerate(self.models):
            if (unseen := self.fold[:, boxed] == i).any():
                logits[unseen], _ = find_and_predict(Predictor([model], mirror), pool[boxed[unseen.any(0)]], given=True)
        return logits.mean(0)

    def score_folds(self, pool: Images) -> list[dict]:
        """Return `metrics.summary` of each fold, not calibrated, with its number (from 1) and its hospitals."""
        labels = np.broadcast_to(pool.labels, self.fold.shape)
        found = []
        for i, held_out in enumerate(self.fold == i for i in range(len(self.models))):
            hospitals = " + ".join(dict.fromkeys(pool.hospitals[held_out.any(0)]))
            summary = metrics.summary(labels[held_out], sigmoid(self.logits[held_out]))
            found.append({"fold": i + 1, "hospital": hospitals} | summary)
        return found

    def score_repeats(self, labels: np.ndarray) -> list[dict]:
        """Return `metrics.summary` of each repeat, pooled and not calibrated, with its number (from 1). labels: [n]."""
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
    """Train a model on a fixed schedule, and predict the unseen images, which never choose the epoch of this model.

    Args: trained, unseen: bool [n]. checkpoint: as for `training.fit`.
    Returns: model on the CPU; logits of the m unseen images, [m]; how sure the finder is of a lesion, [m].
    """
    model = training.fit(pool[trained], None, settings, seed, device, name, checkpoint).model
    logits, sure = find_and_predict(Predictor([model], settings.mirror), pool[unseen])
    return model.cpu(), logits, sure


def model_seed(seed: int, i: int) -> int:
    """Return the seed of model i. Two cross-validations with neighbouring seeds share no model."""
    return int(np.random.SeedSequence([seed, i]).generate_state(1)[0])


def cross_validate(pool: Images, settings: Settings, scheme: Scheme, partial: Path | None = None) -> CrossValidation:
    """Train the models of a scheme, each on the images outside its fold, and predict the images of the fold.

    Args: partial: a folder for a checkpoint of each model, from which an interrupted training continues.
    Raises: UserError if there are too few images for the folds, or if a hospital or its training images lack a class,
        or, in the view lesion, a box.
    """
    groups = np.arange(len(pool)) if scheme.groups == "image" else pool.groups
    fold = assign_models(pool, groups, scheme)
    unseen = {f"fold {i + 1}": (fold == i).any(0) for i in range(fold.max() + 1)}
    unseen |= {f"refit {i + 1}": np.zeros(len(pool), bool) for i in range(scheme.refit)}
    tasks = []
    for i, (name, mask) in enumerate(unseen.items()):
        trained = trained_on(pool, groups, mask, settings.view, name)
        checkpoint = partial and partial / f"{name.replace(' ', '_')}.pt"
        tasks.append((pool, trained, mask, settings, model_seed(scheme.seed, i), scheme.device, name, checkpoint))
    begin = functools.partial(set_seed, scheme.seed, max(scheme.threads // scheme.jobs, 1))
    models, predicted, sure = zip(*parallel.run(train_fold, tasks, scheme.jobs, begin))
    folds, logits, found = len(models) - scheme.refit, np.empty(fold.shape), np.empty(fold.shape, np.float32)
    for i in range(folds):
        logits[fold == i], found[fold == i] = predicted[i], sure[i]
    return CrossValidation(list(models[:folds]), fold, logits, found, list(models[folds:]))


def assign_models(pool: Images, groups: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Return the index, from 0, of the model that does not see an image: int [repeats, n].

    Args: groups: [n], the same value for images that stay together. Raises: UserError, as `cross_validate`.
    """
    if scheme.groups == "hospital":
        names, hospital = np.unique(pool.hospitals, return_inverse=True)
        for i, name in enumerate(names):
            require_both_classes(pool.labels[hospital == i], f"--groups hospital: {name}")
        return hospital + np.arange(scheme.repeats)[:, None] * len(names)
    repeats = [assign_folds(pool.labels, groups, scheme.folds, scheme.seed + r) for r in range(scheme.repeats)]
    return np.stack(repeats) + np.arange(scheme.repeats)[:, None] * scheme.folds


def trained_on(pool: Images, groups: np.ndarray, unseen: np.ndarray, view: str, name: str) -> np.ndarray:
    """Return the images that a model is trained on, bool [n]: images that share no group with an unseen image.

    Images of two hospitals may share a group.
    Raises: UserError, with the model's name, if a class is absent, or if the view is lesion and no image has a box.
    """
    trained = ~np.isin(groups, groups[unseen])
    require_both_classes(pool.labels[trained], f"--groups hospital: what {name} is trained on")
    if view == "lesion" and not pool.boxed[trained].any():
        raise UserError(f"--view lesion: no image that {name} is trained on has a box. Give --view frame.")
    return trained
