"""Run folders: what train.py and crossval.py leave behind, and every other script reads.

A folder with model.pt is one model; one with fold_1.pt, fold_2.pt, … is an ensemble. Beside them stand calibration.json
(temperature and operating point), predictions.csv, metrics.json, and whatever the script adds.
"""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_type_hints

import numpy as np
import torch

from common.calibration import Calibration, deciding, logit, sigmoid
from common.data import Source, Split, image_rows
from common.errors import UserError, reading
from common.files import read_json, write_csv, write_json
from common.model import BreastResNet, Predictor, explain, predict
from common.origin import describes_data
from common.settings import Settings
from common.weights import read_tensors, write_tensors

FORMAT = "breastmnist-resnet18 v1"
IMAGES = "images.csv"
WORK = ".breastmnist"  # in the folder of a run at work (`resume`)
FILES = ["calibration.json", "metrics.json", "predictions.csv", IMAGES]  # of every run, beside its models


def kept_images(folder: Path) -> Path | None:
    """Where a run folder says which image file is in which split; None of a run of no image files."""
    return folder / IMAGES if (folder / IMAGES).exists() else None


def prediction_rows(split: Split, probabilities, fold=None) -> list[dict]:
    """Rows of predictions.csv, label 1 is malignant. fold: [n], which held an image out, in cross-validation."""
    rows = []
    for i, (known, label, probability) in enumerate(zip(split.rows, split.labels, probabilities)):
        row = {"split": known["split"], "index": known["index"], "label": int(label), "probability": float(probability)}
        row |= {} if fold is None else {"fold": fold[i]}
        rows.append(row | ({"image": known["image"]} if "image" in known else {}))
    return rows


def read_predictions(path: Path) -> list[dict]:
    """The rows of a predictions.csv, typed, an image once: {"split", "index", "label", "out_of_fold", "image" (None of
    what is no file), "probability"}.

    The predictions of an image in several repeats are averaged as logits, as `Predictor` does; `out_of_fold` says that
    a fold held the image out. Raises: UserError.
    """
    names = ("split", "index", "label", "out_of_fold", "image")
    repeats: dict[tuple, list[float]] = {}
    needed = "it needs the columns split,index,label,probability, and probabilities from 0 to 1"
    with reading(path, "no predictions file", needed), open(path, newline="") as file:
        for row in csv.DictReader(file):
            probability = float(row["probability"])
            if not 0 <= probability <= 1 or None in row:  # more cells than columns, of a decimal comma
                raise ValueError(row)
            label, held_out = {"0": 0, "1": 1}[row["label"]], bool(row.get("fold"))
            image = (row["split"], int(row["index"]), label, held_out, row.get("image"))
            repeats.setdefault(image, []).append(probability)
        if not repeats:
            raise ValueError("no rows")
    rows = []
    for image, found in repeats.items():
        mean = found[0] if len(found) == 1 else float(sigmoid(logit(found).mean()))  # one stays, to the last digit
        rows.append(dict(zip(names, image)) | {"probability": mean})
    return rows


def calibrating_rows(rows: list[dict]) -> list[dict]:
    """The rows that calibrate a run: those of another hospital where there are such, else out-of-fold, else val."""
    elsewhere, val = ([row for row in rows if row["split"] == name] for name in ("elsewhere", "val"))
    return elsewhere or [row for row in rows if row["out_of_fold"]] or val


def columns(rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """(labels [n], probabilities [n]) of prediction rows, in order of index."""
    rows = sorted(rows, key=lambda row: row["index"])
    return np.array([row["label"] for row in rows], int), np.array([row["probability"] for row in rows])


def save_results(out: Path, source: Source, calibration: Calibration, rows: list[dict], metrics: dict) -> None:
    """Write what every run has beside its models; rows and metrics are of predictions.csv and metrics.json. Raises:
    UserError."""
    if source.of_files:  # for who reads the run later
        write_csv(out / IMAGES, image_rows(source))
    write_json(out / "calibration.json", asdict(calibration), source.notice)
    write_csv(out / "predictions.csv", rows, source.notice)
    write_json(out / "metrics.json", metrics, source.notice)


def save_model(
    path: Path, model: BreastResNet, settings: Settings, seed: int, source: Source, trained_on: list
) -> None:
    """A checkpoint of tensors and plain values only, so that it can be read without unpickling code.

    Args: trained_on: names of the splits whose images fitted the weights of this model or of its ensemble.
    """
    content = {
        "format": FORMAT,
        "state": {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()},
        **model.architecture,
        "mirror": settings.mirror,
        "settings": settings.as_dict(),
        "seed": seed,
        "data": source.describe() | {"trained_on": trained_on},
    }
    write_tensors(path, content)


def read_checkpoint(path: Path) -> tuple[dict, BreastResNet]:
    """What `save_model` wrote, and the model of it, ready to predict. Raises: UserError when the file is anything
    else."""
    content = read_tensors(path, "a checkpoint", "train the run again")
    kinds = {"mirror": bool, "settings": dict, "seed": int}
    with reading(path, "not a checkpoint of this project, or a damaged one"):
        known = content["format"] == FORMAT and describes_data(content["data"])
        if not known or any(type(content[key]) is not kind for key, kind in kinds.items()):
            raise ValueError("not what save_model writes")
        with torch.device("meta"):  # no time or chance for weights that are replaced
            model = BreastResNet(content["data"]["size"], content["stages"], content["upsample"])
        model.to_empty(device="cpu").load_state_dict(content["state"])
        if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
            raise ValueError("weights that are no numbers")
    return content, model.eval()


@dataclass(frozen=True)
class Run:
    """A run folder, read: the predictor, and what it was trained and calibrated with.

    `data` is the `describe()` of its source, and "trained_on", the names of the splits that fitted the weights.
    """

    path: Path
    predictor: Predictor
    calibration: Calibration
    data: dict

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated P(malignant), float64 [n], of uint8 images [n, size, size]. Raises: UserError on another size."""
        size, (height, width) = self.data["size"], images.shape[1:]
        if (height, width) != (size, size):
            raise UserError(f"{self.path}: takes images of {size}×{size}, not {height}×{width}")
        return sigmoid(predict(self.predictor, images))

    @property
    def held_out(self) -> dict:
        """Its metrics at the operating point on the images that chose it; empty where they are of another."""
        return deciding(at_threshold(read_metrics(self.path), self.calibration))[1]

    def evidence(self, images: np.ndarray) -> np.ndarray:
        """What each position adds to the logit, float32 [n, rows, columns], of uint8 images [n, size, size]."""
        return explain(self.predictor, images)[0]


def load(folder: str | Path, device: torch.device | str = "cpu") -> Run:
    """Read a run folder: one model, or an ensemble of folds, on a device. Raises: UserError."""
    path = Path(folder)
    if (path / WORK / "finished").exists():
        raise UserError(
            f"{folder}: a new run was cut off while it replaced this one; --resume of its command ends that"
        )
    files = sorted(path.glob("fold_*.pt"), key=lambda file: (len(file.name), file.name)) or [path / "model.pt"]
    if not files[0].exists():
        raise UserError(f"{folder}: no run folder (no model.pt or fold_*.pt in it); train.py and crossval.py make one")
    checkpoints, members = zip(*map(read_checkpoint, files))
    first = checkpoints[0]
    if any(content[key] != first[key] for content in checkpoints for key in ("mirror", "settings", "data")):
        raise UserError(f"{folder}: its fold_*.pt are of different runs; run crossval.py again")
    calibration = read_calibration(path / "calibration.json")
    predictor = Predictor(members, first["mirror"], calibration.temperature).to(device)
    return Run(path, predictor, calibration, first["data"])


def read_metrics(folder: Path) -> dict:
    """The metrics.json of a run. Raises: UserError when it is absent, damaged or without "splits"."""
    path = folder / "metrics.json"
    metrics = read_json(path)
    kinds = {"config": dict, "splits": dict, "operating_point": dict, "folds": list}
    if "splits" not in metrics or not all(isinstance(metrics.get(name, kind()), kind) for name, kind in kinds.items()):
        raise UserError(f"{path}: holds no metrics of a run; train the run again")
    return metrics


def at_threshold(metrics: dict, calibration: Calibration) -> dict:
    """{split: metrics at the operating point} of a metrics.json; empty where that is of another threshold."""
    point = metrics.get("operating_point", {})
    return point.get("splits", {}) if point.get("threshold") == calibration.threshold else {}


def read_calibration(path: Path) -> Calibration:
    """Raises: UserError when the file is damaged; absent, it means an uncalibrated run."""
    if not path.exists():
        return Calibration()
    stored = read_json(path)
    with reading(path):
        return Calibration(**{name: kind(stored[name]) for name, kind in get_type_hints(Calibration).items()})
