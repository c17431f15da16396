"""The training loop that train.py, tune.py and crossval.py share."""

import copy
import math
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common import augment, lesion, looks, loss, metrics
from common.boxes import in_shares
from common.calibration import negative_log_likelihood
from common.data import Images
from common.errors import UserError, reading
from common.model import Predictor, TwoLooks, explain, predict
from common.progress import Progress
from common.settings import Settings
from common.weights import initial_model, read_tensors, write_tensors


class Diverged(UserError):
    """Error of a training run with a loss that is no longer a number."""


@dataclass
class Fit:
    """A training run so far.

    model: has the weights of the best epoch; best_epoch: number of this epoch, from 1; 0 before the first epoch;
    history: one dict per epoch. In the view lesion, the key "network" of an epoch says frame or window, and the best
    epoch is that of the network of the window.
    """

    model: Any  # a BreastResNet or a TwoLooks
    best_epoch: int = 0
    history: list[dict] = field(default_factory=list)

    @property
    def deciding_epochs(self) -> list[dict]:
        """Epochs of the only network or, in the view lesion, of the network of the window."""
        return [epoch for epoch in self.history if epoch.get("network") != "frame"]

    def has_ended(self, epochs: int, patience: int) -> bool:
        """Return whether all epochs are done, or the best epoch is at least `patience` epochs ago."""
        done = len(self.history)
        return done == epochs or done - self.best_epoch >= patience


class LesionTargets(NamedTuple):
    """Lesions in images, for the training of a finder.

    boxes: float32 [n, 4], in shares, nan if there is none; annotated: bool [n], whether the lesion, or its absence, is
    known.
    """

    boxes: torch.Tensor
    annotated: torch.Tensor

    def heat(self, batch, side: int) -> torch.Tensor:
        """Return heat maps to train on, [len(batch), side, side]; all nan if not annotated. batch: indices."""
        heat = lesion.ellipses(self.boxes[batch], side)
        return heat.masked_fill(~self.annotated[batch, None, None], math.nan)


class Examples(NamedTuple):
    """Images and labels that train one network.

    pixels: uint8 [n, size, size]; labels: uint8 [n], 1 for malignant; lesions: None for a network without a finder.
    """

    pixels: np.ndarray
    labels: np.ndarray
    lesions: LesionTargets | None = None


def frames_of(images: Images) -> Examples:
    """Return frames with labels and boxes, for the network that finds and classifies lesions in frames."""
    boxes = torch.from_numpy(in_shares(images.boxes, images.sizes))
    return Examples(images.pixels, images.labels, LesionTargets(boxes, torch.from_numpy(images.annotated)))


def windows_of(images: Images) -> Examples:
    """Return windows with labels, for the network that classifies lesions in windows."""
    assert images.windows is not None  # `looks.look` places windows
    return Examples(images.windows, images.labels)


def fit(
    train: Images,
    val: Images | None,
    settings: Settings,
    seed: int,
    device: torch.device,
    name: str = "train",
    checkpoint: Path | None = None,
) -> Fit:
    """Train one model: one network or, in the view lesion, a network of frames and then a network of windows.

    A training image has its window around its box, or around a found box if the image has none. The network of frames
    finds the boxes. Images of `val` always have their windows around found boxes.

    Args: as for `fit_network`. Raises: as `fit_network`; UserError if the view lesion has no training image with a box.
    """
    if settings.view != "lesion":
        chooser = None if val is None else Examples(val.pixels, val.labels)
        return fit_network(Examples(train.pixels, train.labels), chooser, settings, seed, device, name, checkpoint)
    if not (boxed := int(train.boxed.sum())):
        raise UserError("--view lesion: no training image has a box. Give data with boxes, or give --view frame.")
    found, unknown = len(train) - boxed, int((~train.annotated).sum())
    said = f"{name}: {boxed} windows around given boxes, {found} around found ones"
    print(said + f"; {unknown} images do not teach the finder" * bool(unknown), file=sys.stderr)

    def fit_look(look: str, train: Examples, val: Examples | None) -> Fit:
        kept = checkpoint and checkpoint.with_stem(f"{checkpoint.stem}_{look}")
        fitted = fit_network(train, val, settings, seed, device, f"{name} {look}", kept)
        return replace(fitted, history=[{"network": look} | epoch for epoch in fitted.history])

    frame = fit_look("frame", frames_of(train), None if val is None else frames_of(val))
    finder = Predictor([frame.model], settings.mirror)
    looked = looks.look(finder, train, given=True)
    chooser = None if val is None else windows_of(looks.look(finder, val).images)
    window = fit_look("window", windows_of(looked.images), chooser)
    box = lesion.fit_box(looked.extents[train.boxed], train.labels[train.boxed]).to(device)
    model = TwoLooks.of_trained(window.model, frame.model, box)
    return Fit(model, window.best_epoch, frame.history + window.history)


def fit_network(
    train: Examples,
    val: Examples | None,
    settings: Settings,
    seed: int,
    device: torch.device,
    name: str,
    checkpoint: Path | None = None,
) -> Fit:
    """Train one network.

    With `val` and patience above 0, the epoch with the lowest validation loss is kept. Training stops after
    `settings.patience` epochs without a lower loss. Otherwise all epochs run, and the last epoch is kept.
    Cross-validation gives no `val`, because the held-out fold must not choose an epoch.

    Args:
        seed: seed of everything random: initial layers, order of the images, augmentation.
        name: name in the progress.
        checkpoint: file that keeps the training after every epoch. Training continues from the file if the file exists.

    Raises: Diverged when the learning rate is too high; UserError on a damaged checkpoint or unusable weights.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(train.pixels).to(device), torch.from_numpy(train.labels).to(device)
    lesions = train.lesions and LesionTargets(*(part.to(device) for part in train.lesions))
    class_weights = loss.class_weights(labels, settings.class_weights)
    usual = augment.FINDING if lesions else augment.Strength(zoom=settings.zoom)
    strength = replace(usual, scanners=settings.varies_scanners)
    mixup = 0 if lesions else settings.mixup  # mixup of frames harms finding and classification (results/lesion.md)
    steps = settings.epochs * math.ceil(len(images) / settings.batch_size)

    model = initial_model(images.shape[-1], settings, finds=bool(lesions)).to(device)
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
                planes, targets = images[batch][:, None].float() / 255, labels[batch].float()
                if lesions:  # the heat map moves with the image
                    planes = torch.cat([planes, lesions.heat(batch, images.shape[-1])[:, None]], 1)
                if settings.augment:
                    planes = augment.augment(planes, strength, generator)
                planes, targets = augment.mixup((planes, targets), mixup, generator)
                with autocast(device, settings.precision):
                    logits, heat = model.logits_and_heat(planes[:, 0])
                batch_loss = loss.training_loss(
                    logits.float(), targets, settings.loss, settings.label_smoothing, class_weights
                )
                if heat is not None:
                    batch_loss = batch_loss + lesion.heat_loss(heat.float(), planes[:, 1])
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
                raise Diverged(f"training diverged at lr {settings.lr:g}: the loss is no longer a number. Lower --lr.")
            epoch["seconds"] = time.perf_counter() - began
            if not chooser or all(epoch["val_loss"] < earlier["val_loss"] for earlier in result.history):
                result.best_epoch = epoch["epoch"]
                result.model.load_state_dict(average.module.state_dict())  # copies the values
            result.history.append(epoch)
            if checkpoint:
                ended = result.has_ended(settings.epochs, patience)
                save_checkpoint(checkpoint, result, None if ended else state, generator)
            progress.show(epoch)
    return result


def autocast(device: torch.device, wanted: str) -> torch.autocast:
    """Return the autocast context of training: bf16 if `precision` returns bf16, otherwise off. wanted: the setting."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision(device, wanted) == "bf16")


def precision(device: torch.device, wanted: str) -> str:
    """Return the number format of training on a device, bf16 or fp32. wanted: the setting.

    "auto" is bf16 on a GPU and on CPUs with AVX512-BF16 or AMX units. Otherwise "auto" is fp32, because CPUs without
    these units emulate bf16 slowly.
    """
    if wanted != "auto":
        return wanted
    able = torch.cpu.get_capabilities()
    return "bf16" if device.type == "cuda" or able.get("avx512_bf16") or able.get("amx_tile") else "fp32"


def learning_rate(step: int, steps: int, warmup: float) -> float:
    """Return the learning rate of a step as a share of the peak: a linear rise, then a half cosine to 0.

    Args: step: from 0; warmup: share of the steps in which the rate rises.
    Source: Smith, 2018; Loshchilov & Hutter, ICLR 2017, eq. 5.
    """
    climb = warmup * steps
    if step < climb:
        return (step + 1) / (climb + 1)
    return (1 + math.cos(math.pi * (step - climb) / max(steps - climb, 1))) / 2


def make_optimiser(model: torch.nn.Module, settings: Settings) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter, ICLR 2019) with weight decay of matrices and filters, not biases and norms."""
    learning = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in learning if p.ndim > 1]
    free = [p for p in learning if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.wd}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def validate(model: torch.nn.Module, val: Examples, settings: Settings) -> dict:
    """Return the validation loss, the accuracy at 0.5 and the AUC of a model, with the predictions of `Predictor`.

    The loss is plain cross-entropy; a network with a finder adds `lesion.heat_loss`.
    """
    predictor = Predictor([model], settings.mirror)
    if val.lesions is None:
        logits, heat_loss = predict(predictor, val.pixels), 0.0
    else:
        explained = explain(predictor, val.pixels)
        assert explained.heat is not None  # a network with lesions has a finder
        logits, heat = explained.logits.double().numpy(), explained.heat.clamp(1e-6, 1 - 1e-6).logit()
        heat_loss = float(lesion.heat_loss(heat, val.lesions.heat(range(len(val.labels)), len(val.pixels[0]))))
    return {
        "val_loss": negative_log_likelihood(val.labels, logits) + heat_loss,
        "val_accuracy": float(metrics.rates(val.labels, logits >= 0)["accuracy"]),
        "val_auc": float(metrics.auc(val.labels, logits)),
    }


def save_checkpoint(path: Path, result: Fit, state: dict | None, generator: torch.Generator) -> None:
    """Write the best weights and the state of a training run. state: None after the last epoch. Raises: UserError."""
    content = {"history": result.history, "best_epoch": result.best_epoch, "best": result.model.state_dict()}
    if state:
        chance = {"generator": generator.get_state(), "torch": torch.get_rng_state()}
        state = {name: part.state_dict() for name, part in state.items()} | chance
    write_tensors(path, content | {"state": state})


def restore(path: Path, result: Fit, state: dict, generator: torch.Generator) -> None:
    """Load a file of `save_checkpoint` into `result`, `state` and `generator`, in place. Raises: UserError."""
    way_out = "remove --resume to start again"
    stored = read_tensors(path, "a checkpoint", way_out)
    with reading(path, way_out=way_out):
        result.model.load_state_dict(stored["best"])
        result.history, result.best_epoch = list(stored["history"]), int(stored["best_epoch"])
        if (before := stored["state"]) is not None:
            for name, part in state.items():
                part.load_state_dict(before[name])
            generator.set_state(before["generator"])
            torch.set_rng_state(before["torch"])
