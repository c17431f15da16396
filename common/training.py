"""The training loop that train.py, tune.py and crossval.py share."""

import copy
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common import augment, loss, metrics
from common.calibration import negative_log_likelihood
from common.data import Images
from common.errors import UserError, reading
from common.model import BreastResNet, Predictor, predict
from common.progress import Progress
from common.settings import Settings
from common.weights import initial_model, read_tensors, write_tensors


class Diverged(UserError):
    """Training came to a loss that is no number."""


@dataclass
class Fit:
    """A training run so far. `history`: one dict an epoch; `best_epoch`: the one whose weights `model` has."""

    model: BreastResNet
    best_epoch: int = 0
    history: list[dict] = field(default_factory=list)

    def has_ended(self, epochs: int, patience: int) -> bool:
        """Whether the last epoch is done, or `patience` epochs brought no better one."""
        done = len(self.history)
        return done == epochs or done - self.best_epoch >= patience


def fit(
    train: Images,
    val: Images | None,
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

    Raises: Diverged when the learning rate is too high; UserError of a damaged checkpoint.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(train.pixels).to(device), torch.from_numpy(train.labels).to(device)
    class_weights = loss.class_weights(labels, settings.class_weights)
    strength = augment.Strength(scale=settings.zoom)
    steps = settings.epochs * math.ceil(len(train) / settings.batch_size)

    model = initial_model(train.pixels.shape[-1], settings).to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
    optimiser = make_optimiser(model, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(step, steps, settings.warmup))
    state = {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}
    result = Fit(copy.deepcopy(model))
    if checkpoint and checkpoint.exists():
        restore(checkpoint, result, state, generator)

    chooser = val if settings.patience else None
    patience = settings.patience if chooser else settings.epochs
    with Progress(name, settings.epochs, len(result.history)) as progress:
        while not result.has_ended(settings.epochs, patience):
            began, total = time.perf_counter(), 0.0
            epoch: dict = {"epoch": len(result.history) + 1, "lr": schedule.get_last_lr()[0]}
            model.train()
            for batch in torch.randperm(len(images), generator=generator).split(settings.batch_size):
                inputs, targets = images[batch].float() / 255, labels[batch].float()
                if settings.augment:
                    inputs = augment.augment(inputs, strength, generator)
                inputs, targets = augment.mixup(inputs, targets, settings.mixup, generator)
                with autocast(device, settings.precision):
                    logits = model(inputs)
                batch_loss = loss.training_loss(
                    logits.float(), targets, settings.loss, settings.label_smoothing, class_weights
                )
                optimiser.zero_grad()
                batch_loss.backward()
                optimiser.step()
                schedule.step()
                average.update_parameters(model)
                total += batch_loss.item() * len(batch)

            epoch["train_loss"] = total / len(images)
            if chooser:
                epoch |= validate(average.module, chooser, settings)
            if not math.isfinite(epoch["train_loss"]) or math.isnan(epoch.get("val_loss", 0)):
                raise Diverged(f"training diverged at lr {settings.lr:g}: its loss is no longer a number; lower --lr")
            epoch["seconds"] = time.perf_counter() - began
            if not chooser or all(epoch["val_loss"] < earlier["val_loss"] for earlier in result.history):
                result.best_epoch = epoch["epoch"]
                result.model.load_state_dict(average.module.state_dict())  # copies values: no alias
            result.history.append(epoch)
            if checkpoint:
                ended = result.has_ended(settings.epochs, patience)
                save_checkpoint(checkpoint, result, None if ended else state, generator)
            progress.show(epoch)
    return result


def autocast(device: torch.device, wanted: str) -> torch.autocast:
    """bf16 autocast, or none. wanted: the setting."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision(device, wanted) == "bf16")


def precision(device: torch.device, wanted: str) -> str:
    """What a device trains in: of "auto", bf16 on a GPU and on CPUs with AVX512-BF16 or AMX units, else fp32, since to
    emulate bf16 would only cost time."""
    if wanted != "auto":
        return wanted
    able = torch.cpu.get_capabilities()
    return "bf16" if device.type == "cuda" or able.get("avx512_bf16") or able.get("amx_tile") else "fp32"


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


def validate(model: torch.nn.Module, val: Images, settings: Settings) -> dict:
    """Validation loss (plain cross-entropy), accuracy and AUC of a model as it would be used."""
    logits = predict(Predictor([model], settings.mirror), val.pixels)
    return {
        "val_loss": negative_log_likelihood(val.labels, logits),
        "val_accuracy": float(metrics.rates(val.labels, logits >= 0)["accuracy"]),
        "val_auc": float(metrics.auc(val.labels, logits)),
    }


def save_checkpoint(path: Path, result: Fit, state: dict | None, generator: torch.Generator) -> None:
    """The training so far: the best weights and, unless it has ended (None), the state of all that changes.
    Raises: UserError."""
    content = {"history": result.history, "best_epoch": result.best_epoch, "best": result.model.state_dict()}
    if state:
        chance = {"generator": generator.get_state(), "torch": torch.get_rng_state()}
        state = {name: part.state_dict() for name, part in state.items()} | chance
    write_tensors(path, content | {"state": state})


def restore(path: Path, result: Fit, state: dict, generator: torch.Generator) -> None:
    """Take over what `save_checkpoint` wrote, in place. Raises: UserError."""
    way_out = "begin anew without --resume"
    stored = read_tensors(path, "a checkpoint", way_out)
    with reading(path, way_out=way_out):
        result.model.load_state_dict(stored["best"])
        result.history, result.best_epoch = list(stored["history"]), int(stored["best_epoch"])
        if (before := stored["state"]) is not None:
            for name, part in state.items():
                part.load_state_dict(before[name])
            generator.set_state(before["generator"])
            torch.set_rng_state(before["torch"])
