"""Run folders: what train.py and crossval.py leave behind, and every other script reads.

A folder with model.pt is one model; one with fold_1.pt, fold_2.pt, … is an ensemble. Beside them stand calibration.json
(temperature and operating point), predictions.csv, metrics.json, and whatever the script adds.
"""

import csv
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from common.calibration import Calibration
from common.data import Source
from common.errors import UserError
from common.model import BreastResNet, Predictor
from common.settings import Settings

FORMAT = "breastmnist-resnet18 v1"
PACKAGES = ("numpy", "torch", "torchvision", "medmnist")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write beside `path`, and rename it there if all goes well: `path` is old or new, never half.
    Raises: UserError when the disk refuses."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise UserError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
    finally:
        beside.unlink(missing_ok=True)


def create(folder: str, foreign: str) -> Path:
    """Make an output folder and prove that it can be written, before hours of work rather than after.

    Args: foreign: a glob of files that this kind of run must not mix with.
    Raises: UserError.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be made ({error.strerror}); choose another folder") from None
    if any(path.glob(foreign)):
        raise UserError(f"--out {folder}: holds a run of another kind ({foreign}); choose another folder")
    with replacing(path / ".writable") as probe:
        probe.write_text("")
    (path / ".writable").unlink()
    return path


def as_json(value):
    """A copy fit for strict JSON: numpy numbers become plain ones, nan and infinity null."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: dict) -> None:
    with replacing(path) as beside:
        beside.write_text(json.dumps(as_json(value), indent=2) + "\n")


def write_csv(path: Path, rows: list[dict]) -> None:
    """Rows with the same keys, which become the header; floats keep every digit."""
    with replacing(path) as beside, open(beside, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


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
    """The rows of a predictions.csv, typed; `fold` is None where empty or absent. Raises: UserError."""
    try:
        with open(path, newline="") as file:
            rows = [
                {
                    "split": row["split"],
                    "index": int(row["index"]),
                    "label": {"0": 0, "1": 1}[row["label"]],
                    "probability": float(row["probability"]),
                    "fold": int(row["fold"]) if row.get("fold") else None,
                }
                for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (KeyError, ValueError, TypeError, csv.Error):
        raise UserError(f"{path}: no predictions file; it needs the columns split,index,label,probability") from None
    if not rows or not all(0 <= row["probability"] <= 1 for row in rows):
        raise UserError(f"{path}: holds no predictions, or probabilities outside 0 to 1")
    return rows


def command(*words: str) -> str:
    """What a small program prints; "" if it is not there or fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def provenance(source: Source, threads: int) -> dict:
    """With what a run was made: code, packages, processor, data, command. Nothing here changes from one run of the same
    command to the next."""
    return {
        "commit": command("git", "rev-parse", "HEAD"),
        "uncommitted_changes": bool(command("git", "status", "--porcelain", "--untracked-files=no")),
        "command": shlex.join(["python", *sys.argv]),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "cpu": cpu_name(),
        "threads": threads,
        "data": {"name": source.name, "size": source.size, "md5": source.md5, "synthetic": source.synthetic},
    }


def save_model(path: Path, model: BreastResNet, settings: Settings, seed: int, source: Source) -> None:
    """A checkpoint of tensors and plain values only, so that it can be read without unpickling code."""
    content = {
        "format": FORMAT,
        "state": {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()},
        "size": model.size,
        "stages": model.stages,
        "mirror": settings.mirror == "on",
        "settings": asdict(settings),
        "seed": seed,
        "data": {"name": source.name, "md5": source.md5, "synthetic": source.synthetic},
    }
    with replacing(path) as beside:
        torch.save(content, beside)


def read_checkpoint(path: Path) -> dict:
    """What `save_model` wrote. Raises: UserError when the file is anything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception:  # torch.load raises anything on a file that is not its own
        raise UserError(f"{path}: not a checkpoint, or a damaged one; train the run again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of this project; give a folder that train.py or crossval.py wrote")
    return content


def build_model(content: dict, path: Path) -> BreastResNet:
    """The model of a checkpoint, ready to predict. Raises: UserError when its tensors do not fit."""
    try:
        model = BreastResNet(content["size"], content["stages"])
        model.load_state_dict(content["state"])
    except (RuntimeError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: its tensors do not fit its description; train the run again") from None
    return model.eval()


@dataclass(frozen=True)
class Run:
    """A run folder, read: the predictor, and what it was trained and calibrated with."""

    path: Path
    predictor: Predictor
    calibration: Calibration
    size: int
    data: dict  # name, md5, synthetic


def load(folder: str | Path) -> Run:
    """Read a run folder: one model, or an ensemble of folds. Raises: UserError."""
    path = Path(folder)
    files = sorted(path.glob("fold_*.pt"), key=lambda file: int(file.stem.split("_")[1])) or [path / "model.pt"]
    if not files[0].exists():
        raise UserError(f"{folder}: no run folder (no model.pt or fold_*.pt in it); train.py and crossval.py make one")
    contents = [read_checkpoint(file) for file in files]
    members = [build_model(content, file) for content, file in zip(contents, files)]
    first = contents[0]
    if any(content[key] != first[key] for content in contents for key in ("size", "mirror", "data")):
        raise UserError(f"{folder}: its fold_*.pt are of different runs; run crossval.py again")
    calibration = read_calibration(path / "calibration.json")
    return Run(path, Predictor(members, first["mirror"], calibration.temperature), calibration, first["size"], first["data"])


def read_calibration(path: Path) -> Calibration:
    """Raises: UserError when the file is damaged; absent, it means an uncalibrated run."""
    if not path.exists():
        return Calibration()
    try:
        return Calibration(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        raise UserError(f"{path}: damaged; train the run again") from None
