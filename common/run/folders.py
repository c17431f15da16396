"""Run folders: what train.py and crossval.py leave behind, and every other script reads.

A folder with model.pt is one model; one with fold_1.pt, fold_2.pt, … is an ensemble. Beside them stand calibration.json
(temperature and operating point), predictions.csv, metrics.json, and whatever the script adds.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import numpy as np
import torch

from common.calibration import Calibration, logit, sigmoid
from common.data import SPLITS, Source, describes_data
from common.errors import UserError
from common.files import read_json, replacing
from common.model import BreastResNet, Predictor, predict
from common.settings import LARGEST_SIDE, Settings
from common.weights import read_tensors, write_tensors

FORMAT = "breastmnist-resnet18 v1"

# What train.py and crossval.py write, and what evaluate.py and export.py make of it: a new run replaces all of this.
FILES = ["model.pt", "fold_*.pt", "calibration.json", "predictions.csv", "metrics.json", "history.csv", "folds.csv"]
FILES += ["curves.png", "model.onnx", "model.int8.onnx", "parity.json", "report.html"]
FILES += ["report_train.html", "report_val.html", "evaluation_*.json", "breastmnist*_[[]AUC[]]*_[[]ACC[]]*@*.csv"]
FIGURES = "roc precision_recall reliability scores confusion grad_cam folds comparison".split()
FILES += [f"{figure}_{split}.png" for figure in FIGURES for split in SPLITS]
CLEARING, MOVING = ".clearing", ".moving"  # folders that are there only while a new run replaces an earlier one


def make_output(folder: str | Path, foreign: str | None = None) -> Path:
    """Make an output folder and prove that it can be written, before hours of work rather than after.

    Args: foreign: a glob of files that this kind of run must not mix with.
    Raises: UserError.
    """
    path = Path(folder)
    if not str(folder):
        raise UserError("--out: is empty; name a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be made ({error.strerror}); choose another folder") from None
    if foreign and any(path.glob(foreign)):
        raise UserError(f"--out {folder}: holds a run of another kind ({foreign}); choose another folder")
    with replacing(path / ".writable") as probe:
        probe.write_text("")
    (path / ".writable").unlink(missing_ok=True)  # two workers of one search may be here at once
    return path


def contents(folder: Path) -> list[Path]:
    """The files of the run in a folder, and what was made of them."""
    return sorted(file for pattern in FILES for file in folder.glob(pattern) if file.is_file())


def prediction_rows(split: str, labels, probabilities, index=None, fold=None) -> list[dict]:
    """Rows of predictions.csv. `index` [n]: the place of each image in its split, by default 0 to n - 1; `fold` [n]:
    the fold that held it out, where there is one; label 1 is malignant."""
    index = range(len(labels)) if index is None else index
    rows = [
        {"split": split, "index": int(i), "label": int(label), "probability": float(probability)}
        for i, label, probability in zip(index, labels, probabilities)
    ]
    return rows if fold is None else [row | {"fold": f} for row, f in zip(rows, fold)]


def read_predictions(path: Path) -> list[dict]:
    """The rows of a predictions.csv, typed, an image once: {"split", "index", "label", "probability", "out_of_fold"}.

    The predictions of an image in several repeats are averaged as logits, as `Predictor` does; `out_of_fold` says that
    a fold held the image out. Raises: UserError.
    """
    try:
        with open(path, newline="") as file:
            merged: dict[tuple, list] = {}
            for row in csv.DictReader(file):
                if None in row:
                    raise ValueError("more cells than columns")  # of a decimal comma
                image = (row["split"], int(row["index"]), {"0": 0, "1": 1}[row["label"]], bool(row.get("fold")))
                merged.setdefault(image, []).append(float(row["probability"]))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (KeyError, ValueError, TypeError, csv.Error):
        raise UserError(f"{path}: no predictions file; it needs the columns split,index,label,probability") from None
    if not merged or not all(0 <= p <= 1 for probabilities in merged.values() for p in probabilities):
        raise UserError(f"{path}: holds no predictions, or probabilities outside 0 to 1")
    return [
        dict(zip(("split", "index", "label", "out_of_fold"), image)) | {"probability": mean_probability(probabilities)}
        for image, probabilities in merged.items()
    ]


def mean_probability(probabilities: list[float]) -> float:
    """The probability of the mean logit; one by itself stays as it is, to the last digit."""
    return probabilities[0] if len(probabilities) == 1 else float(sigmoid(logit(probabilities).mean()))


def held_out(rows: list[dict]) -> list[dict]:
    """The rows that calibrate a run: out-of-fold where there are such, else val."""
    return [row for row in rows if row["out_of_fold"]] or [row for row in rows if row["split"] == "val"]


def columns(rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """(labels [n], probabilities [n]) of prediction rows, in order of index."""
    rows = sorted(rows, key=lambda row: row["index"])
    return np.array([row["label"] for row in rows], int), np.array([row["probability"] for row in rows])


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


def read_checkpoint(path: Path) -> dict:
    """What `save_model` wrote. Raises: UserError when the file is anything else."""
    content = read_tensors(path, "a checkpoint", "train the run again")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this project; give a folder that train.py or crossval.py wrote")
    if not describes_itself(content):
        raise UserError(f"{path}: damaged; train the run again")
    return content


def describes_itself(content: dict) -> bool:
    """Whether what stands beside the tensors of a checkpoint is there and possible: a model of it has a sane size."""
    kinds = {"stages": int, "upsample": int, "mirror": bool, "settings": dict, "seed": int, "state": dict}
    known = all(type(content.get(key)) is kind for key, kind in kinds.items()) and describes_data(content.get("data"))
    return known and content["stages"] in (2, 3, 4) and content["upsample"] in range(LARGEST_SIDE + 1)


def build_model(content: dict, path: Path) -> BreastResNet:
    """The model of a checkpoint, ready to predict. Raises: UserError when its tensors do not fit."""
    try:
        model = BreastResNet(content["data"]["size"], content["stages"], content["upsample"])
        model.load_state_dict(content["state"])
    except (RuntimeError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: its tensors do not fit its description; train the run again") from None
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise UserError(f"{path}: its weights are not all numbers; train the run again")
    return model.eval()


def check_size(images: np.ndarray, size: int, path: Path) -> None:
    """Raises: UserError when images [n, h, w] are not what the model at `path` takes."""
    if images.shape[1:] != (size, size):
        raise UserError(f"{path}: takes images of {size}×{size}, not {images.shape[1]}×{images.shape[2]}")


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
        check_size(images, self.data["size"], self.path)
        return sigmoid(predict(self.predictor, images))


def load(folder: str | Path, device: torch.device | str = "cpu") -> Run:
    """Read a run folder: one model, or an ensemble of folds, on a device. Raises: UserError."""
    path = Path(folder)
    if (path / CLEARING).exists() or (path / MOVING).exists():
        raise UserError(
            f"{folder}: a new run was cut off while it replaced this one; --resume of its command ends that"
        )
    files = sorted(path.glob("fold_*.pt"), key=lambda file: (len(file.name), file.name)) or [path / "model.pt"]
    if not files[0].exists():
        raise UserError(f"{folder}: no run folder (no model.pt or fold_*.pt in it); train.py and crossval.py make one")
    contents = [read_checkpoint(file) for file in files]
    members = [build_model(content, file) for content, file in zip(contents, files)]
    first = contents[0]
    if any(content[key] != first[key] for content in contents for key in ("mirror", "settings", "data")):
        raise UserError(f"{folder}: its fold_*.pt are of different runs; run crossval.py again")
    calibration = read_calibration(path / "calibration.json")
    predictor = Predictor(members, first["mirror"], calibration.temperature).to(device)
    return Run(path, predictor, calibration, first["data"])


def read_metrics(folder: Path) -> dict:
    """The metrics.json of a run. Raises: UserError when it is absent, damaged or without "splits"."""
    path = folder / "metrics.json"
    metrics = read_json(path)
    kinds = {"splits": dict, "operating_point": dict, "folds": list}
    if "splits" not in metrics or not all(isinstance(metrics.get(name, kind()), kind) for name, kind in kinds.items()):
        raise UserError(f"{path}: holds no metrics of a run; train the run again")
    return metrics


def read_calibration(path: Path) -> Calibration:
    """Raises: UserError when the file is damaged; absent, it means an uncalibrated run."""
    if not path.exists():
        return Calibration()
    stored = read_json(path)
    try:
        return Calibration(**{name: kind(stored[name]) for name, kind in get_type_hints(Calibration).items()})
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UserError(f"{path}: damaged ({error}); train the run again") from None
