"""The ONNX file: uint8 images in, calibrated P(malignant) out, with all that its caller must know inside."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from common.calibration import Calibration
from common.errors import UserError
from common.model import Predictor
from common.runs import Run, check_size, describes_data

VERSION = "1"
OPSET = 20


class Graph(torch.nn.Module):
    """What is exported: a Predictor with both outputs."""

    def __init__(self, predictor: Predictor):
        super().__init__()
        self.predictor = predictor

    def forward(self, image: torch.Tensor):
        """image: uint8 [batch, size, size]. Returns: probability [batch], logit [batch], calibrated."""
        logit = self.predictor(image)
        return logit.sigmoid(), logit


def metadata(run: Run, metrics: dict) -> dict[str, str]:
    """The file's metadata_props, all text."""
    return {
        "classes": json.dumps(["normal or benign", "malignant"]),
        "positive_class": "malignant",
        "threshold": repr(run.calibration.threshold),
        "threshold_rule": run.calibration.threshold_rule,
        "temperature": repr(run.calibration.temperature),
        "calibrated_on": run.calibration.fitted_on,
        "calibrated_on_n": str(run.calibration.n),
        "input_size": str(run.data["size"]),
        "dataset": "PHANTOM data (generated, not ultrasound)" if run.data["synthetic"] else run.data["name"],
        "dataset_source": json.dumps(run.data),
        "dataset_md5": run.data["md5"],
        "metrics": json.dumps(metrics),
        "version": VERSION,
        "license": "Apache-2.0",
        "intended_use": "research only, not a medical device",
    }


def write(run: Run, metrics: dict, path: Path) -> None:
    """Export a run to one file, batch dynamic, weights inside. metrics: the run's, kept in the metadata."""
    size = run.data["size"]
    program = torch.onnx.export(
        Graph(run.predictor).eval(),
        (torch.zeros(2, size, size, dtype=torch.uint8),),
        input_names=["image"],
        output_names=["probability", "logit"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata(run, metrics))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@dataclass(frozen=True)
class OnnxModel:
    """An .onnx file, open: predicts like a `Run`, with onnxruntime."""

    path: Path
    session: onnxruntime.InferenceSession
    calibration: Calibration
    data: dict  # of the run that it came from, as `Source.describe`

    def probabilities(self, images: np.ndarray, batch: int = 64) -> np.ndarray:
        """Calibrated P(malignant), float32 [n], of uint8 images [n, size, size]. Raises: UserError on another size."""
        check_size(images, self.data["size"], self.path)
        parts = [images[start : start + batch] for start in range(0, len(images), batch)]
        return np.concatenate([self.session.run(["probability"], {"image": part})[0] for part in parts])


def load(path: str | Path, threads: int) -> OnnxModel:
    """Open a file that export.py wrote. Raises: UserError."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; export.py makes one from a run folder")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises its own classes, all plain Exceptions
        raise UserError(f"{path}: not an ONNX file, or a damaged one; export the run again") from None
    try:
        props = session.get_modelmeta().custom_metadata_map
        rule, fitted_on, n = props["threshold_rule"], props["calibrated_on"], int(props["calibrated_on_n"])
        calibration = Calibration(float(props["temperature"]), float(props["threshold"]), rule, fitted_on, n)
        data = json.loads(props["dataset_source"])
        if not describes_data(data):
            raise ValueError("dataset_source")
        return OnnxModel(Path(path), session, calibration, data)
    except (KeyError, ValueError, RecursionError):
        raise UserError(f"{path}: an ONNX file without this project's metadata; export.py writes one with it") from None
