"""The ONNX file as its users have it: an image in, calibrated P(malignant) out. Reading it needs numpy and onnxruntime,
no torch."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from common import imagefile
from common.calibration import ELSEWHERE, Calibration, deciding
from common.errors import UserError, one_line, reading
from common.origin import describes_data

# What a file takes and gives: {name: (type, number of dimensions)}; earlier files give less.
REQUIRED = {"image": ("tensor(uint8)", 3), "probability": ("tensor(float)", 1), "logit": ("tensor(float)", 1)}
OPTIONAL = {"evidence": ("tensor(float)", 3), "typicality": ("tensor(float)", 1)}


@dataclass(frozen=True)
class OnnxModel:
    """An .onnx file, open: predicts like a `Run`, with onnxruntime."""

    path: Path
    session: onnxruntime.InferenceSession
    calibration: Calibration
    data: dict  # of the run that it came from, as `Source.describe`
    dataset: str  # its name for people; says PHANTOM where it is one
    intended_use: str
    typicality_threshold: float  # below it an image is unlike those of training; 0 where the file gives no typicality
    held_out: dict  # of the run at its operating point, where known: see `held_out_rates`
    held_out_of: str  # whose images these are: see `held_out_of`

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Calibrated log-odds of malignant, float32 [n], of uint8 images [n, h, w]. Raises: as `run`."""
        return self.run(["logit"], images)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated P(malignant), float32 [n], of uint8 images [n, h, w]. Raises: as `run`."""
        return self.run(["probability"], images)[0]

    def evidence(self, images: np.ndarray) -> np.ndarray:
        """What each position adds to the logit, float32 [n, rows, columns], of uint8 images [n, h, w]. Raises: as
        `run`."""
        return self.run(["evidence"], images)[0]

    def unlike(self, typicality):
        """Whether images are unlike those of training, bool of the shape of `typicality`, float32 as the file gives."""
        return typicality < np.float32(self.typicality_threshold)

    def gives(self, output: str) -> bool:
        """Whether the file has an output, which an earlier one may lack."""
        return output in (given.name for given in self.session.get_outputs())

    def require(self, output: str) -> None:
        """Raises: UserError for an output that an earlier file lacks."""
        if not self.gives(output):
            raise UserError(f"{self.path}: an earlier export, which gives no {output}; export the run again")

    def run_files(self, outputs: list[str], paths: Sequence[Path]) -> list[np.ndarray]:
        """The named outputs, as `run`, of image files at their full size, one after the other. Raises: UserError, as
        `run` and for a file that cannot be read."""
        from common.progress import shown  # predict.py, which needs no tqdm, imports this file

        found = []
        for path in shown(paths, "predicted"):
            try:
                (image,) = imagefile.frames(path)
            except UserError as error:
                raise UserError(f"{path} {error}") from None
            found.append(self.run(outputs, image[np.newaxis]))
        return [np.concatenate(given) for given in zip(*found)]

    def run(self, outputs: list[str], images: np.ndarray, batch: int = 64) -> list[np.ndarray]:
        """The named outputs, float32 [n, ...] each, of uint8 images [n, h, w]; h and w from 8 up. Raises: UserError for
        an output that an earlier file lacks, or that a damaged one does not give."""
        for output in outputs:
            self.require(output)
        parts = [images[start : start + batch] for start in range(0, len(images), batch)]
        try:
            found = [np.concatenate(given) for given in zip(*(self.session.run(outputs, {"image": p}) for p in parts))]
        except Exception as error:  # onnxruntime's own classes
            raise UserError(f"{self.path}: cannot be computed ({one_line(str(error))}); export the run again") from None
        for output, values in zip(outputs, found):
            if values.shape[:1] != (len(images),) or not values.size or not np.isfinite(values).all():
                raise UserError(f"{self.path}: gives no {output} for each image, it is damaged; export the run again")
        return found


def open_session(model: str | Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """A session on the CPU with so many threads. model: a path, or the serialised model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # fatal ones only: users cannot act upon its warnings, and errors are raised
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load(path: str | Path, threads: int) -> OnnxModel:
    """Open a file that export.py wrote. Raises: UserError."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; export.py makes one from a run folder")
    with reading(path, "not an ONNX file, or a damaged one", "export the run again"):
        session = open_session(path, threads)
        ends = (*session.get_inputs(), *session.get_outputs())
        found = {end.name: (end.type, len(end.shape)) for end in ends}  # a damaged name may be no UTF-8
    if not REQUIRED.items() <= found.items() <= (REQUIRED | OPTIONAL).items():
        raise UserError(
            f"{path}: an ONNX file that takes or gives something else than export.py's; export the run again"
        )
    with reading(path, "an ONNX file without this project's metadata", "export.py writes one with it"):
        props = session.get_modelmeta().custom_metadata_map
        rule, fitted_on, n = props["threshold_rule"], props["calibrated_on"], int(props["calibrated_on_n"])
        calibration = Calibration(float(props["temperature"]), float(props["threshold"]), rule, fitted_on, n)
        data = json.loads(props["dataset_source"])
        if not describes_data(data):
            raise ValueError("dataset_source")
        if not isinstance(at_threshold := json.loads(props.get("metrics_at_threshold", "{}")), dict):
            raise ValueError("metrics_at_threshold")
        split, kept = deciding(at_threshold)
        unlike = float(props["typicality_threshold"]) if "typicality" in found else 0.0
        held_out = held_out_rates(kept), held_out_of(split, fitted_on, props["dataset"])
        about = props["dataset"], props["intended_use"]
        return OnnxModel(Path(path), session, calibration, data, *about, unlike, *held_out)


def held_out_rates(kept: dict) -> dict:
    """Sensitivity ("recall") and specificity, with intervals, of the metrics that `deciding` gives; nan where
    undefined. Raises: what damaged ones do."""
    shapes = {"recall": (), "recall_ci95": (2,), "specificity": (), "specificity_ci95": (2,)} if kept else {}
    return {name: np.array(kept[name], float).reshape(shape).tolist() for name, shape in shapes.items()}


def held_out_of(split: str, fitted_on: str, dataset: str) -> str:
    """Whose images chose the operating point: another hospital's, the hospital's left out, or the model's own.
    split: of `deciding`; fitted_on: of the `Calibration`; dataset: what the model was trained on."""
    return fitted_on.removesuffix(ELSEWHERE.format("")) if split == "elsewhere" else split.partition(", ")[2] or dataset
