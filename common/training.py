"""The training loop that train.py, tune.py and crossval.py share."""

import copy
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common import augment, loss, metrics, runs
from common.calibration import negative_log_likelihood
from common.data import Split
from common.errors import UserError
from common.model import BreastResNet, Predictor, initial_model, predict, read_tensors
from common.progress import Progress
from common.settings import Settings

DIVERGED = "training diverged at lr {:g}: its loss is no longer a number; lower --lr"


class Diverged(UserError):
    """Training came to a loss that is no number."""


@dataclass
class Fit:
    """A finished training run. `history`: one dict an epoch; `best_epoch`: the one whose weights `model` has."""

    model: BreastResNet
    best_epoch: int
    history: list[dict] = field(default_factory=list)


def autocast(device: torch.device) -> torch.autocast:
    """bf16 autocast where the processor multiplies bf16 natively; elsewhere emulation would only cost time."""
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


def learning_rate(step: int, steps: int, warmup: float) -> float:
    """The rate as a share of its peak: a linear climb over the first `warmup` of the steps, then a half cosine to 0
    (Smith, 2018; Loshchilov & Hutter, ICLR 2017, eq. 5)."""
    climb = warmup * steps
    if step < climb:
        return (step + 1) / (climb + 1)
    return (1 + math.cos(math.pi * (step - climb) / max(steps - climb, 1))) / 2


def make_optimiser(model: torch.nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, ICLR 2019) with weight decay on matrices and filters, not on biases and norms."""
    learning = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in learning if p.ndim > 1]
    free = [p for p in learning if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.wd}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def validate(model: torch.nn.Module, val: Split, settings: Settings) -> dict:
    """Validation loss (plain cross-entropy), accuracy and AUC of a model as it would be used."""
    logits = predict(Predictor([model], settings.mirror == "on"), val.images)
    return {
        "val_loss": negative_log_likelihood(val.labels, logits),
        "val_accuracy": float(metrics.accuracy(val.labels, logits >= 0)),
        "val_auc": float(metrics.auc(val.labels, logits)),
    }


@dataclass
class State:
    """Everything that changes while a model trains. `average` is the exponential moving average of `model`."""

    model: BreastResNet
    average: AveragedModel
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator

    def state_dict(self) -> dict:
        """Tensors and plain values with which `load_state_dict` lets training go on as if it had not stopped."""
        parts = ("model", "average", "optimiser", "schedule")
        chance = {"generator": self.generator.get_state(), "torch": torch.get_rng_state()}
        return {part: getattr(self, part).state_dict() for part in parts} | chance

    def load_state_dict(self, stored: dict) -> None:
        """Take over what `state_dict` gave, in place."""
        for part in ("model", "average", "optimiser", "schedule"):
            getattr(self, part).load_state_dict(stored[part])
        self.generator.set_state(stored["generator"])
        torch.set_rng_state(stored["torch"])


def start(size: int, steps: int, settings: Settings, seed: int, device: torch.device) -> State:
    """A model with its initial weights, and an optimiser scheduled over `steps` batches."""
    torch.manual_seed(seed)
    model = initial_model(size, settings).to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
    optimiser = make_optimiser(model, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(step, steps, settings.warmup))
    return State(model, average, optimiser, schedule, torch.Generator().manual_seed(seed))


def train_epoch(state: State, images, labels, class_weights, settings: Settings) -> float:
    """One pass over uint8 images [n, size, size] and labels [n] in random order. Returns the mean training loss.
    Raises: Diverged."""
    state.model.train()
    total = 0.0
    for batch in torch.randperm(len(images), generator=state.generator).split(settings.batch_size):
        inputs, targets = images[batch].float() / 255, labels[batch].float()
        if settings.augment == "on":
            inputs = augment.augment(inputs, augment.Strength(), state.generator)
        inputs, targets = augment.mixup(inputs, targets, settings.mixup, state.generator)
        with autocast(inputs.device):
            logits = state.model(inputs)
        batch_loss = loss.weighted_loss(logits.float(), targets, settings.loss, settings.label_smoothing, class_weights)
        update(state, batch_loss)
        total += batch_loss.item() * len(batch)
    if not math.isfinite(total):
        raise Diverged(DIVERGED.format(settings.lr))
    return total / len(images)


def update(state: State, batch_loss: torch.Tensor) -> None:
    """One step down the gradient, along the schedule, and of the weight average."""
    state.optimiser.zero_grad()
    batch_loss.backward()
    state.optimiser.step()
    state.schedule.step()
    state.average.update_parameters(state.model)


def run_epoch(state: State, images, labels, class_weights, judge: Split | None, settings: Settings) -> dict:
    """Train for an epoch, and validate the average if there is a split to `judge` it. Returns: what the history says
    of it. Raises: Diverged."""
    began = time.perf_counter()
    entry = {"lr": state.schedule.get_last_lr()[0]}
    entry["train_loss"] = train_epoch(state, images, labels, class_weights, settings)
    if judge is not None:
        entry |= validate(state.average.module, judge, settings)
        if math.isnan(entry["val_loss"]):
            raise Diverged(DIVERGED.format(settings.lr))
    return entry | {"seconds": time.perf_counter() - began}


def record(result: Fit, entry: dict, state: State, selecting: bool) -> None:
    """Add an epoch to the history, and keep its weights if it is the best so far; without `selecting` the last is."""
    if not selecting or all(entry["val_loss"] < earlier["val_loss"] for earlier in result.history):
        result.best_epoch = entry["epoch"]
        result.model.load_state_dict(state.average.module.state_dict())  # copies values: no alias
    result.history.append(entry)


def ended(result: Fit, settings: Settings, selecting: bool) -> bool:
    """Whether training is over: at the last epoch, or with `selecting` when `patience` epochs brought no better one."""
    epochs = len(result.history)
    return epochs == settings.epochs or (selecting and epochs - result.best_epoch >= settings.patience)


def save_checkpoint(path: Path, result: Fit, state: State | None) -> None:
    """The training so far; a finished one needs no `state`. Raises: UserError."""
    content = {"history": result.history, "best_epoch": result.best_epoch, "best": result.model.state_dict()}
    runs.write_tensors(path, content | {"state": state and state.state_dict()})


def restore(path: Path, result: Fit, state: State) -> None:
    """Take over what `save_checkpoint` wrote, in place. Raises: UserError."""
    way_out = "begin anew without --resume"
    stored = read_tensors(path, "a checkpoint", way_out)
    try:
        result.model.load_state_dict(stored["best"])
        if stored["state"] is not None:
            state.load_state_dict(stored["state"])
        result.history, result.best_epoch = list(stored["history"]), int(stored["best_epoch"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise UserError(f"{path}: damaged; {way_out}") from None


def fit(
    train: Split,
    val: Split | None,
    settings: Settings,
    seed: int,
    device: torch.device,
    name: str = "train",
    checkpoint: Path | None = None,
) -> Fit:
    """Train one model.

    With `val` and patience above 0, the epoch with the lowest validation loss is kept and training stops when
    `settings.patience` epochs bring no lower one. Otherwise the schedule runs to its end and the last epoch is kept:
    so in cross-validation, where the held-out fold must not choose.

    Args:
        seed: of everything random here: initial layers, order, augmentation.
        name: shown with the progress.
        checkpoint: a file that keeps the training after every epoch, and from which it goes on if it is there.

    Raises: Diverged when the learning rate is too high.
    """
    steps = settings.epochs * math.ceil(len(train) / settings.batch_size)
    state = start(train.images.shape[-1], steps, settings, seed, device)
    images, labels = torch.from_numpy(train.images).to(device), torch.from_numpy(train.labels).to(device)
    class_weights = loss.class_weights(labels, settings.class_weights)
    judge = val if settings.patience else None
    selecting = judge is not None
    result = Fit(copy.deepcopy(state.model), 0)
    if checkpoint and checkpoint.exists():
        restore(checkpoint, result, state)
    with Progress(name, settings.epochs, len(result.history)) as progress:
        while not ended(result, settings, selecting):
            entry = {"epoch": len(result.history) + 1}
            entry |= run_epoch(state, images, labels, class_weights, judge, settings)
            record(result, entry, state, selecting)
            if checkpoint:
                save_checkpoint(checkpoint, result, None if ended(result, settings, selecting) else state)
            progress.show(entry)
    return result
