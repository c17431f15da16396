"""Measure networks that find the lesion and look at it, at a hospital that trained neither of the two networks.

    python -m results.lesion                                            prints the tables of lesion.csv
    python -m results.lesion --busi DIR --breast DIR --splits CSV --weights FILE "window 2" --seeds 0 1     adds rows

Models of BUSI are scored on BrEaST, and models of BrEaST on BUSI. BUSI's images in BreastMNIST's test (a split in CSV)
and BUS-BRA are not read. The names are in FINDERS, CLASSIFIERS and MIXES of results/lesion.py. `--keep DIR` holds heat
maps, models and logits, so that no finder is trained twice. A mix trains nothing.
"""

import csv
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common import augment, imagefile, imagetable, metrics, training
from common.boxes import holds_centre, overlap
from common.folds import assign_folds
from common.images import of_arrays
from common.lesion import box_around, ellipses, heat_loss, hottest_part
from common.model import BreastResNet, Predictor, predict
from common.run import flags
from common.settings import Settings
from common.tablefile import BOX
from common.weights import initial_model
from common.window import frame_box, square_around, square_box, window
from results import log

CPU = torch.device("cpu")
COLUMNS = (
    "name,differs,boxes,trained_on,scored_on,seed,n,auc,specificity_95,n_lesions,auc_lesions,specificity_95_lesions,"
    "iou,iou_below_0.3,centre_inside,side_ratio,side_ratio_10,side_ratio_90,auc_presence,seconds,precision,commit,command"
).split(",")

TABLES = (
    (["iou", "iou_below_0.3", "centre_inside", "side_ratio"], "IoU | IoU below 0.3 | centre inside | side"),
    (["auc_lesions", "auc", "specificity_95_lesions"], "AUC of lesions | AUC of all | specificity of lesions"),
)


@dataclass(frozen=True)
class Finder:
    """Settings of a ResNet-18 with three stages that finds lesions: frame in, heat map of an eighth of the side out."""

    size: int = 128  # side of the frame that the network sees, in pixels
    letterbox: bool = False  # otherwise the frame is squashed to a square
    zoom: float = 0.5  # augmentation scales by up to this share
    shift: float = 0.2  # augmentation shifts by up to this share of the side
    gain: float = 1.0  # factor on contrast and brightness of the project's augmentation
    epochs: int = 20
    rate: float = 3e-4
    classifies: bool = False  # four stages, with a logit of malignant in addition to the heat map
    mixup: bool = True  # for a finder that classifies


@dataclass(frozen=True)
class Classifier:
    """Settings of the project's classifier, and what the classifier looks at."""

    view: str = "window"  # or square, or frame
    factor: float = 2.0  # side of the window, as a multiple of the longer side of the box
    trained: tuple[str, ...] = ("true",)  # training windows: true, jittered or found (out-of-fold), or several
    normals: bool = False  # train on frames without a lesion, too, at a found box
    gain: bool = False  # give all windows the same mean and deviation of grey levels
    size: int = 128
    epochs: int = 12
    zoom: float = 0.15


FINDERS = {
    "finder": Finder(),
    "finder, weak augmentation": Finder(zoom=0.15, shift=0.1),
    "finder, letterbox": Finder(letterbox=True),
    "finder, gain x2": Finder(gain=2),
    "finder, rate 1e-3": Finder(rate=1e-3),
    "finder, 40 epochs": Finder(epochs=40),
    "finder, 192 px": Finder(size=192),
    "finder, 256 px": Finder(size=256),
    "finder, 12 epochs": Finder(epochs=12),
    "both": Finder(classifies=True),
    "both, weak augmentation": Finder(classifies=True, zoom=0.15, shift=0.1),
    "both, 40 epochs": Finder(classifies=True, epochs=40),
    "both, zoom 0.3": Finder(classifies=True, zoom=0.3, shift=0.15),
    "both, rate 1e-3": Finder(classifies=True, rate=1e-3),
    "both, no mixup": Finder(classifies=True, mixup=False),
    "both, no mixup, gain x2": Finder(classifies=True, mixup=False, gain=2),
    "both, no mixup, 40 epochs": Finder(classifies=True, mixup=False, epochs=40),
    "both, no mixup, letterbox": Finder(classifies=True, mixup=False, letterbox=True),
    "both, no mixup, zoom 0.3": Finder(classifies=True, mixup=False, zoom=0.3, shift=0.15),
}
CLASSIFIERS = {
    "square": Classifier("square"),
    "frame": Classifier("frame"),
    "window 1.5": Classifier(factor=1.5),
    "window 2": Classifier(factor=2.0),
    "window 2.5": Classifier(factor=2.5),
    "window 2, normals": Classifier(normals=True),
    "window 2, jittered": Classifier(trained=("jittered",)),
    "window 2, zoom 0.3": Classifier(zoom=0.3),
    "found 1.5": Classifier(factor=1.5, trained=("found",), normals=True),
    "found 2": Classifier(trained=("found",), normals=True),
    "true and found 2": Classifier(trained=("true", "found"), normals=True, epochs=6),
    "window 2, gain": Classifier(gain=True),
    "window 2, 160 px": Classifier(size=160),
}
MIXES = {  # {name: classifiers}, for the mean of their logits
    "frame + window 2": ("frame", "window 2"),
    "frame + found 2": ("frame", "found 2"),
    "window 1.5 + window 2": ("window 1.5", "window 2"),
    "found 1.5 + found 2": ("found 1.5", "found 2"),
    "window 2 + found 2": ("window 2", "found 2"),
    "frame + window 2 + found 2": ("frame", "window 2", "found 2"),
    "square + window 2": ("square", "window 2"),
    "square + found 2": ("square", "found 2"),
    "frame + square": ("frame", "square"),
}


@dataclass(frozen=True)
class Hospital:
    """Frames as stored, labels [n], 1 for malignant, and boxes, float [n, 4] in pixels, nan without a lesion."""

    name: str
    frames: list[torch.Tensor]
    labels: np.ndarray
    boxes: torch.Tensor

    @property
    def lesions(self) -> np.ndarray:
        return ~torch.isnan(self.boxes[:, 0]).numpy()

    def view(self, boxes: torch.Tensor, side: int, clip: bool = False) -> torch.Tensor:
        """Return a window of each frame, uint8 [n, side, side]. boxes: [n, 4] in pixels; clip: as in `window`."""
        pairs = zip(self.frames, boxes)
        return torch.cat([window(frame[None], box[None], side, clip).byte() for frame, box in pairs])

    def frame_boxes(self, of: Callable = frame_box) -> torch.Tensor:
        return torch.cat([of(*frame.shape) for frame in self.frames])


def read_hospital(name: str, folder: str, splits: str | None = None) -> Hospital:
    """Read a public set. splits: a table; images in its split test are not read."""
    listed = imagetable.list_images(Path(folder))
    table = listed.table
    if splits:
        with open(splits, encoding="utf-8", newline="") as file:
            test = {row["image"].split("/", 1)[1] for row in csv.DictReader(file) if row["split"] == "test"}
        table = table[~table["image"].isin(test)]
        assert len(listed.table) - len(table) == len(test) == 156
    frames = [torch.from_numpy(next(imagefile.frames(listed.folder / image)).copy()) for image in table["image"]]
    boxes = torch.tensor(table[list(BOX)].to_numpy(np.float32))
    return Hospital(name, frames, table["label"].to_numpy(np.uint8), boxes)


def freeze(model: BreastResNet) -> BreastResNet:
    """Freeze the stem and the first stage of each candidate, so that a training step takes 40 % less time."""
    for part in (model.trunk.conv1, model.trunk.bn1, model.trunk.layer1):
        part.requires_grad_(False)
    return model


# ---- the finder


def train_finder(images, boxes, labels: np.ndarray, finder: Finder, weights: str, seed: int) -> BreastResNet:
    """Train a finder. images: uint8 [n, size, size]; boxes: [n, 4] in shares of the side; labels: [n]."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    settings = Settings(weights=weights, stages=4 if finder.classifies else 3, lr=finder.rate)
    model = freeze(initial_model(finder.size, settings, finds=True))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
    optimiser = training.make_optimiser(model, settings)
    steps = finder.epochs * -(-len(images) // settings.batch_size)
    rate = partial(training.learning_rate, steps=steps, warmup=settings.warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    usual = augment.Strength()
    contrast, brightness = finder.gain * usual.contrast, finder.gain * usual.brightness
    strength = replace(usual, zoom=finder.zoom, shift=finder.shift, contrast=contrast, brightness=brightness)
    targets = ellipses(boxes, finder.size)
    model.train()
    for _ in range(finder.epochs):
        for batch in torch.randperm(len(images), generator=generator).split(settings.batch_size):
            planes = torch.stack([images[batch].float() / 255, targets[batch]], 1)
            planes = augment.augment(planes, strength, generator)
            malignant = torch.from_numpy(labels)[batch].float()
            if finder.classifies and finder.mixup:
                planes, malignant = augment.mixup((planes, malignant), settings.mixup, generator)
            inputs, heat = planes.unbind(1)
            with training.autocast(CPU, settings.precision):
                logit, heat_logits = model.logits_and_heat(inputs)
            assert heat_logits is not None  # the model finds lesions
            loss = heat_loss(heat_logits.float(), heat)
            if finder.classifies:
                loss = loss + F.binary_cross_entropy_with_logits(logit.float(), malignant)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
    return cast(BreastResNet, average.module.eval())


@torch.inference_mode()
def logits_of(model: BreastResNet, images: torch.Tensor) -> np.ndarray:
    """Return logits of malignant, [n], means of image and mirror image. images: uint8 [n, size, size]."""
    parts = (part.float() / 255 for part in images.split(64))
    return torch.cat([(model(x) + model(x.flip(-1))) / 2 for x in parts]).double().numpy()


@torch.inference_mode()
def heat_of(model: BreastResNet, images: torch.Tensor) -> np.ndarray:
    """Return heat maps in [0, 1], by mean logits of image and mirror image. images: uint8 [n, size, size]."""

    def logits(x: torch.Tensor) -> torch.Tensor:
        _, heat = model.logits_and_heat(x)
        assert heat is not None  # the model finds lesions
        return heat

    parts = (part.float() / 255 for part in images.split(64))
    return torch.cat([((logits(x) + logits(x.flip(-1)).flip(-1)) / 2).sigmoid() for x in parts]).numpy()


def largest_part(heat: torch.Tensor, share: float = 0.5) -> torch.Tensor:
    """Return heat [n, s, s] in the connected part with the most heat, above a share of the maximum; 0 outside."""
    n, side, _ = heat.shape
    hot = (heat >= share * heat.amax((1, 2), keepdim=True)).float()
    label = (torch.arange(side * side) + 1.0).reshape(1, side, side) * hot
    for _ in range(4 * side):  # numbers spread until each part has one number, its largest
        label = F.max_pool2d(label[:, None], 3, 1, 1)[:, 0] * hot
    same = label.flatten(1)[:, :, None] == label.flatten(1)[:, None, :]
    mass = (same * (heat * hot).flatten(1)[:, None, :]).sum(2).reshape(n, side, side)
    return heat * hot * (mass >= mass.amax((1, 2), keepdim=True) - 1e-6)


RULES = {
    "hottest part": lambda heat: box_around(hottest_part(heat, 0.5)),
    "hottest part above 0.3": lambda heat: box_around(hottest_part(heat, 0.3)),
    "whole map": box_around,
    "squared map": lambda heat: box_around(heat.square()),
    "largest part": lambda heat: box_around(largest_part(heat)),
    "largest part above 0.3": lambda heat: box_around(largest_part(heat, 0.3)),
}


def in_pixels(shares: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
    """Turn boxes in shares of a view into pixels of the frame. views: [n, 4], the boxes of the views."""
    return torch.cat([views[:, :2] + shares[:, :2] * views[:, 2:], shares[:, 2:] * views[:, 2:]], 1)


def in_shares(boxes: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
    """Turn boxes in pixels of the frame into shares of a view: the inverse of `in_pixels`."""
    return torch.cat([(boxes[:, :2] - views[:, :2]) / views[:, 2:], boxes[:, 2:] / views[:, 2:]], 1)


def score_boxes(hospital: Hospital, found: torch.Tensor, heat: np.ndarray) -> dict:
    """Return how well found boxes fit lesions, and the AUC of the highest heat for images with a lesion."""
    lesions = hospital.lesions
    found, true = found[lesions], hospital.boxes[lesions]
    iou = overlap(found.numpy(), true.numpy())
    inside = holds_centre(found.numpy(), true.numpy()).mean()
    ratio = (found[:, 2:].amax(1) / true[:, 2:].amax(1)).numpy()
    low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
    values = {"iou": np.median(iou), "iou_below_0.3": np.mean(iou < 0.3), "centre_inside": float(inside)}
    values |= {"side_ratio": middle, "side_ratio_10": low, "side_ratio_90": high, "n_lesions": len(iou)}
    return values | {"auc_presence": metrics.auc(lesions.astype(np.uint8), heat.max((1, 2)))}


# ---- what a candidate needs, trained once


@dataclass(frozen=True)
class Placement:
    """Rule that places windows without given boxes: mean heat of a finder's seeds. wider: factors to score, too."""

    finder: str = "finder"
    rule: str = "largest part"
    seeds: tuple[int, ...] = (0,)
    wider: tuple[float, ...] = ()


@dataclass(frozen=True)
class Bench:
    """The hospitals, the initial weights, and the folder that keeps all that has been trained."""

    hospitals: dict[str, Hospital]
    weights: str
    keep: Path

    def once(self, name: str, make: Callable[[], dict]) -> dict:
        """Return the arrays that `make` gives, and `seconds`, from a file if `make` has run before."""
        path = self.keep / f"{name.replace(' ', '_')}.npz"
        if not path.exists():
            began = time.perf_counter()
            made = make()
            np.savez(path, **made, seconds=time.perf_counter() - began)
        with np.load(path) as kept:
            return dict(kept)

    def finder_views(self, hospital: Hospital, finder: Finder) -> torch.Tensor:
        frames = hospital.frame_boxes()
        return square_around(frames, 1.0) if finder.letterbox else frames

    def heat(self, name: str, trained_on: Hospital, scored_on: Hospital, seed: int) -> dict:
        """Return heat maps of a hospital by a finder of the other; if both are the same, out-of-fold over 3 folds."""
        finder, held_out = FINDERS[name], trained_on is scored_on

        def make() -> dict:
            views = self.finder_views(trained_on, finder)
            images, shares = trained_on.view(views, finder.size), in_shares(trained_on.boxes, views)
            if not held_out:
                model = train_finder(images, shares, trained_on.labels, finder, self.weights, seed)
                seen = scored_on.view(self.finder_views(scored_on, finder), finder.size)
                return {"heat": heat_of(model, seen)} | (
                    {"logits": logits_of(model, seen)} if finder.classifies else {}
                )
            squares = trained_on.view(trained_on.frame_boxes(square_box), 128, clip=True).numpy()
            groups = of_arrays(squares, trained_on.labels, "train", trained_on.name).groups
            fold = assign_folds(trained_on.labels, groups, 3, seed)
            heat = np.empty((len(images), finder.size // 8, finder.size // 8), np.float32)
            for k in range(3):
                rest = fold != k
                model = train_finder(images[rest], shares[rest], trained_on.labels[rest], finder, self.weights, seed)
                heat[fold == k] = heat_of(model, images[fold == k])
            return {"heat": heat}

        return self.once(f"heat {name} {trained_on.name} {scored_on.name} {seed}", make)

    def found(self, placed: Placement, trained_on: Hospital, scored_on: Hospital):
        """Find the lesions of a hospital, as in `heat`. Returns: boxes [n, 4] in pixels, heat [n, s, s], seconds."""
        made = [self.heat(placed.finder, trained_on, scored_on, seed) for seed in placed.seeds]
        heat = np.mean([one["heat"] for one in made], axis=0)
        views = self.finder_views(scored_on, FINDERS[placed.finder])
        boxes = in_pixels(RULES[placed.rule](torch.from_numpy(heat)), views)
        return boxes, heat, sum(float(one["seconds"]) for one in made)

    def logits(self, name: str, trained_on: Hospital, scored_on: Hospital, seed: int, placed: Placement) -> dict:
        """Return {boxes that place windows, "" without boxes: logits [n]} of a classifier at the other hospital."""
        classifier = CLASSIFIERS[name]
        member = self.model(name, trained_on, seed, placed)
        say = partial(predict, Predictor([member], Settings.mirror))
        if classifier.view != "window":
            return self.once(f"logits {name} {trained_on.name} {seed}", lambda: {"": say(look(classifier, scored_on))})

        def make_given() -> dict:
            given, with_box = np.full(len(scored_on.labels), np.nan), subset(scored_on, scored_on.lesions)
            given[scored_on.lesions] = say(look(classifier, with_box, with_box.boxes))
            return {"given": given}

        def make_found(kind: str, boxes: torch.Tensor) -> dict:
            return {kind: say(look(classifier, scored_on, boxes))}

        kept = f"logits {name} {trained_on.name} {seed}"
        said = self.once(f"{kept} given", make_given)
        boxes, _, _ = self.found(placed, trained_on, scored_on)
        for scale in (1.0, *placed.wider):
            kind = f"found by {placed.finder}, {placed.rule}, {'+'.join(map(str, placed.seeds))}"
            kind, wide = (f"{kind}, x {scale:g}", square_around(boxes, scale)) if scale != 1 else (kind, boxes)
            said = said | self.once(f"{kept} {kind}", partial(make_found, kind, wide))
        return said

    def model(self, name: str, trained_on: Hospital, seed: int, placed: Placement) -> BreastResNet:
        """Return a classifier, read from its file or else trained."""
        classifier, settings = CLASSIFIERS[name], Settings(weights=self.weights)
        path = self.keep / f"model {name} {trained_on.name} {seed}.pt".replace(" ", "_")
        if not path.exists():
            began = time.perf_counter()
            pixels, labels = training_windows(self, classifier, trained_on, placed.finder, seed)
            images = of_arrays(pixels, labels, "train", trained_on.name)
            settings = replace(settings, epochs=classifier.epochs, zoom=classifier.zoom)
            training.initial_model = lambda *of: freeze(initial_model(*of))
            model = training.fit(images, None, settings, seed, CPU, f"{name}, {trained_on.name}, {seed}").model
            torch.save({"model": model.state_dict(), "seconds": time.perf_counter() - began}, path)
        model = BreastResNet(classifier.size)
        model.load_state_dict(torch.load(path)["model"])
        return model


def subset(hospital: Hospital, chosen: np.ndarray) -> Hospital:
    rows = np.flatnonzero(chosen)
    return Hospital(hospital.name, [hospital.frames[i] for i in rows], hospital.labels[rows], hospital.boxes[rows])


def look(classifier: Classifier, hospital: Hospital, boxes: torch.Tensor | None = None) -> np.ndarray:
    """Return what a classifier sees, uint8 [n, size, size]. boxes: of the lesions, in the view "window"."""
    if boxes is not None:
        pixels = hospital.view(square_around(boxes, classifier.factor), classifier.size)
    elif classifier.view == "square":
        pixels = hospital.view(hospital.frame_boxes(square_box), classifier.size, clip=True)
    else:
        pixels = hospital.view(hospital.frame_boxes(), classifier.size)
    return (same_gain(pixels) if classifier.gain else pixels).numpy()


def same_gain(pixels: torch.Tensor) -> torch.Tensor:
    """Give each image a mean of 80 and a standard deviation of 50 grey levels."""
    values = pixels.float()
    mean, deviation = values.mean((1, 2), keepdim=True), values.std((1, 2), keepdim=True)
    return ((values - mean) / (deviation + 1) * 50 + 80).clamp(0, 255).byte()


def jitter(boxes: torch.Tensor, seed: int) -> torch.Tensor:
    """Move boxes by up to 15 % of the longer side, and scale them by 0.75 to 1.33, as a finder might."""
    generator = torch.Generator().manual_seed(seed)
    longer = boxes[:, 2:].amax(1, keepdim=True)
    move = (torch.rand(len(boxes), 2, generator=generator) - 0.5) * 0.3 * longer
    scale = (4 / 3) ** (2 * torch.rand(len(boxes), 1, generator=generator) - 1)
    size = boxes[:, 2:] * scale
    return torch.cat([boxes[:, :2] + boxes[:, 2:] / 2 + move - size / 2, size], 1)


def training_windows(bench: Bench, classifier: Classifier, hospital: Hospital, finder: str, seed: int):
    """Return the training images of a classifier, uint8 [n, size, size], and their labels [n]."""
    if classifier.view != "window":
        return look(classifier, hospital), hospital.labels
    pixels, labels = [], []
    for kind in classifier.trained:
        boxes = jitter(hospital.boxes, seed) if kind == "jittered" else hospital.boxes.clone()
        if kind == "found" or classifier.normals:
            found, _, _ = bench.found(Placement(finder), hospital, hospital)
            replaced = torch.from_numpy(np.ones(len(boxes), bool) if kind == "found" else ~hospital.lesions)
            boxes[replaced] = found[replaced]
        chosen = subset(hospital, hospital.lesions | classifier.normals)
        pixels.append(look(classifier, chosen, boxes[torch.from_numpy(hospital.lesions | classifier.normals)]))
        labels.append(chosen.labels)
    return np.concatenate(pixels), np.concatenate(labels)


# ---- rows


def score(hospital: Hospital, logits: np.ndarray) -> dict:
    """Return the AUC and the specificity at a sensitivity of 95 %, of all images and of images with a lesion."""
    row: dict = {}
    for suffix, chosen in (("", np.isfinite(logits)), ("_lesions", hospital.lesions)):
        if suffix == "" and not chosen.all():
            continue
        labels, values = hospital.labels[chosen], logits[chosen]
        threshold = np.quantile(values[labels == 1], 0.05, method="lower")
        row |= {f"n{suffix}": len(labels), f"auc{suffix}": metrics.auc(labels, values)}
        row |= {f"specificity_95{suffix}": np.mean(values[labels == 0] < threshold)}
    return row


def differs(candidate) -> str:
    """Return the fields of a candidate that differ from the defaults, as text."""
    usual = type(candidate)()
    return "; ".join(f"{k} {v}" for k, v in vars(candidate).items() if v != getattr(usual, k)).replace(",", " ")


def rows_of(bench: Bench, name: str, ways: list[str], seeds: list[int], placed: Placement) -> list[dict]:
    """Return the rows of a candidate: for each way, for each seed, and for the mean of several seeds."""
    rows = []
    several = [[seed] for seed in seeds] + ([seeds] if len(seeds) > 1 else [])
    for way in ways:
        trained_on = bench.hospitals[way]
        (scored_on,) = (hospital for hospital in bench.hospitals.values() if hospital.name != way)
        for chosen in several:
            about = {"name": name, "trained_on": trained_on.name, "scored_on": scored_on.name}
            about["seed"] = "+".join(map(str, chosen))
            if name in FINDERS:
                for rule in RULES:
                    boxes, heat, seconds = bench.found(Placement(name, rule, tuple(chosen)), trained_on, scored_on)
                    row = about | {"differs": differs(FINDERS[name]), "boxes": rule, "seconds": seconds}
                    row |= score_boxes(scored_on, boxes, heat)
                    if FINDERS[name].classifies:
                        made = [bench.heat(name, trained_on, scored_on, seed)["logits"] for seed in chosen]
                        row |= score(scored_on, np.mean(made, axis=0))
                    rows.append(row)
                continue
            parts = [name] if name in CLASSIFIERS else MIXES[name]
            made = [bench.logits(part, trained_on, scored_on, seed, placed) for part in parts for seed in chosen]
            kinds = dict.fromkeys(k for one in made for k in one if k != "seconds")
            for kind in [k for k in kinds if k] or [""]:
                logits = np.mean([one[kind if kind in one else ""] for one in made], axis=0)
                what = differs(CLASSIFIERS[name]) if name in CLASSIFIERS else "mean of the logits"
                files = [
                    bench.keep / f"model {p} {trained_on.name} {s}.pt".replace(" ", "_") for p in parts for s in chosen
                ]
                seconds = sum(torch.load(file)["seconds"] for file in files)
                row = about | {"differs": what, "boxes": kind, "seconds": seconds}
                rows.append(row | score(scored_on, logits))
    return rows


def written(value) -> str:
    return f"{value:.4f}" if isinstance(value, float | np.floating) else str(value)


def add(rows: list[dict], command: str) -> None:
    """Add rows to lesion.csv. Each row replaces a row of the same candidate, boxes, way and seed."""
    git = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(git, cwd=log.FOLDER, capture_output=True, encoding="utf-8").stdout[:10]
    more = {"precision": training.precision(CPU, "auto"), "commit": commit, "command": command}
    with suppress(FileNotFoundError):
        key = ("name", "boxes", "trained_on", "seed")
        new = {tuple(str(row[column]) for column in key) for row in rows}
        rows = [row for row in log.read("lesion.csv") if tuple(row[c] for c in key) not in new] + [
            row | more for row in rows
        ]
        more = {}
    with open(log.FOLDER / "lesion.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            row = {**row, **more}
            row["seconds"] = f"{float(row['seconds']):.0f}"
            writer.writerow({column: written(row.get(column, "")) for column in COLUMNS})


def table(columns: list[str], header: str) -> str:
    """Return mean ± standard deviation over seeds for each candidate and way; means of seeds are separate rows."""
    found: dict[tuple, dict] = {}
    for row in log.read("lesion.csv"):
        if all(row[column] for column in columns[:1]):
            many = "mean of " + row["seed"] if "+" in row["seed"] else "one"
            cells = found.setdefault((row["name"], row["boxes"], many), {})
            for column in columns:
                if row[column]:
                    cells.setdefault((row["trained_on"], column), []).append(float(row[column]))
    lines = []
    for (name, boxes, many), cells in found.items():
        values = [log.spread(cells[way, c]) if (way, c) in cells else "" for way in ("busi", "breast") for c in columns]
        lines.append([name, boxes, many, *values])
    return log.markdown("candidate | boxes | seeds | " + header, lines)


def details(bench: Bench, way: str, placed: Placement, names: list[str]) -> str:
    """Return where a finder fails and what failures cost, in Markdown, by size of the lesion and by IoU.

    Rows have n, malignant, the share of boxes with an IoU below 0.3, and the AUC of classifiers by given and found
    boxes. Last comes the AUC with which the share of heat in the largest part, and the highest heat, tell an IoU below
    0.3.
    """
    (scored_on,) = (hospital for hospital in bench.hospitals.values() if hospital.name != way)
    boxes, heat, _ = bench.found(placed, bench.hospitals[way], scored_on)
    chosen = np.flatnonzero(scored_on.lesions)
    iou = overlap(boxes[chosen].numpy(), scored_on.boxes[chosen].numpy())
    longer = [max(scored_on.frames[i].shape) for i in chosen]
    size = (scored_on.boxes[chosen, 2:].amax(1) / torch.tensor(longer)).numpy()
    seed = placed.seeds[0]
    said = {name: bench.logits(name, bench.hospitals[way], scored_on, seed, placed) for name in names}
    lines, labels = [], scored_on.labels[chosen]
    for title, values, edges in (("longer side / frame", size, (0, 0.2, 0.3, 0.5, 1)), ("IoU", iou, (0, 0.3, 0.5, 1))):
        for low, high in zip(edges, edges[1:]):
            part = (values >= low) & (values < high)
            aucs = [
                f"{kind.split(' by ')[0] or name} {metrics.auc(labels[part], logits[chosen][part]):.3f}"
                for name, kinds in said.items()
                for kind, logits in kinds.items()
                if kind != "seconds"
            ]
            cells = [f"{title} {low:g} to {high:g}", str(part.sum()), str(labels[part].sum())]
            lines.append([*cells, f"{np.mean(iou[part] < 0.3):.2f}", ", ".join(aucs)])
    inside = largest_part(torch.from_numpy(heat)).sum((1, 2)).numpy() / heat.sum((1, 2))
    missed = (iou < 0.3).astype(np.uint8)
    signs = {"share of the heat in the largest part": inside[chosen], "highest heat": heat[chosen].max((1, 2))}
    words = [f"{name}: {metrics.auc(missed, -sign):.3f}" for name, sign in signs.items()]
    header = "images | n | malignant | IoU below 0.3 | AUC"
    made = log.markdown(header, lines) + "\n\nAUC for IoU below 0.3: " + ", ".join(words)
    return made + "\n" + compare_switches(scored_on, said, inside) if "frame" in said else made


def compare_switches(hospital: Hospital, said: dict[str, dict], sure: np.ndarray) -> str:
    """Return the AUC of the mean logit of frame and window, with the frame alone where the finder is least sure.

    The logits are standardised over the hospital first, which makes switches look better.
    """

    def standard(logits: np.ndarray) -> np.ndarray:
        return (logits - logits.mean()) / logits.std()

    frame, lines = standard(said["frame"][""]), []
    for name, kinds in said.items():
        for kind in (kind for kind in kinds if kind.startswith("found")):
            mean = (frame + standard(kinds[kind])) / 2
            for share in (0, 0.1, 0.2, 0.5):
                unsure = sure < np.quantile(sure, share)
                auc = metrics.auc(hospital.labels, np.where(unsure, frame, mean))
                lines.append(f"{name}, {kind}: frame alone for {share:.0%}, mean for the others: AUC {auc:.4f}")
    return "\n".join(lines)


def main():
    parser = log.parser(__doc__)
    parser.add_argument("names", nargs="*", help="of candidates")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    for name in ("busi", "breast", "splits", "weights"):
        parser.add_argument(f"--{name}", help="where it lies")
    parser.add_argument("--trained-on", nargs="+", default=["busi", "breast"], help="of the two ways, one or both")
    parser.add_argument("--keep", default="runs/lesion", help="folder of heat maps and logits")
    parser.add_argument("--finder", default="finder", choices=FINDERS, help="that places windows")
    parser.add_argument("--rule", default="largest part", choices=RULES, help="from its heat to a box")
    parser.add_argument("--finder-seeds", nargs="+", type=int, default=[0], help="whose mean heat is taken")
    parser.add_argument("--wider", nargs="+", type=float, default=[], help="score with larger boxes too")
    parser.add_argument("--details", action="store_true", help="print where the finder fails; adds no row")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(args.keep, exist_ok=True)
    if args.names:
        pairs = (("busi", args.busi, args.splits), ("breast", args.breast, None))
        hospitals = {name: read_hospital(name, folder, splits) for name, folder, splits in pairs}
        bench = Bench(hospitals, args.weights, Path(args.keep))
    placed = Placement(args.finder, args.rule, tuple(args.finder_seeds), tuple(args.wider))
    if args.details:
        for way in args.trained_on:
            print(f"trained on {way}\n\n{details(bench, way, placed, args.names)}\n")
        return
    for name in args.names:
        add(
            rows_of(bench, name, args.trained_on, args.seeds, placed),
            "python -m results.lesion " + shlex.join(sys.argv[1:]),
        )
    for columns, header in TABLES:
        print(
            table(columns, " | ".join(f"{way}: {header}" for way in ("BUSI to BrEaST", "BrEaST to BUSI"))), end="\n\n"
        )


if __name__ == "__main__":
    flags.run(main)
