"""Open an .onnx file of export.py, and predict: images in, calibrated P(malignant) out.

Needs numpy and onnxruntime, but no torch.
"""

import json
import os
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state

from common import fingerprints
from common.answer import Answer, whole_windows
from common.boxes import in_shares
from common.calibration import Calibration
from common.description import describes_data
from common.errors import FORMAT_ERRORS, UserError, one_line, reading
from common.files import as_json

# The exceptions of onnxruntime on a damaged file have no common base class.
RUNTIME_ERRORS = tuple(
    kind for kind in vars(onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
) + FORMAT_ERRORS  # fmt: skip
# Inputs and outputs of a file: {name: (type, number of dimensions)}.
REQUIRED = {"image": ("tensor(uint8)", 3), "evidence": ("tensor(float)", 3), "window": ("tensor(float)", 2)}
REQUIRED |= dict.fromkeys(("probability", "logit", "typicality", "found"), ("tensor(float)", 1))
OPTIONAL = {"evidence_frame": ("tensor(float)", 3), "box": ("tensor(float)", 2)}  # only in the view lesion


@dataclass(frozen=True)
class OnnxModel:
    """An open .onnx file, which predicts like a `Run`, with onnxruntime."""

    path: Path
    session: onnxruntime.InferenceSession
    calibration: Calibration
    data: dict  # `data.Found.describe` of the exported run, and "trained_on", names of splits
    dataset: str  # name of the data set for people; says PHANTOM for phantoms
    intended_use: str
    typicality_threshold: np.float32  # below this value, an image is unlike the training images
    typicality_rule: str  # what the threshold means
    trained_on: np.ndarray  # fingerprints of the training images, uint8 [n, 32]
    chosen_on: np.ndarray  # fingerprints of images that chose epoch, calibration or threshold, uint8 [m, 32]

    @property
    def view(self) -> str:
        """View of the networks: square, frame or lesion."""
        return self.data["view"]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return calibrated P(malignant), float32 [n], of uint8 images [n, h, w]. Raises: as `run`."""
        return self.run(["probability"], images)[0]

    def evidence(self, images) -> tuple[np.ndarray, np.ndarray]:
        """Return evidence maps of the first look, float32 [n, rows, columns], and their windows, float32 [n, 4].

        The evidence at a position is what the position adds to the logit. A window is x, y, width, height in shares of
        the picture that `Images.pixels` shows. Args: images: `data.Images`. Raises: as `run_images`.
        """
        if self.view != "lesion":
            return self.run(["evidence"], images.pixels)[0], whole_windows(len(images))
        evidence, windows = self.run_images(["evidence", "window"], images)
        return evidence, in_shares(windows, images.sizes)

    def answer(self, images, given: bool = False) -> Answer:
        """Predict `data.Images`. given: use the boxes of the images where known. Raises: as `run_images`."""
        boxes = images.boxes.astype(np.float32) if given else None
        outputs = ["probability", "typicality", "window", "found"]
        probabilities, typicality, windows, found = self.run_images(outputs, images, boxes=boxes)
        windows = in_shares(windows, images.sizes) if self.view == "lesion" else whole_windows(len(images))
        return Answer(probabilities, windows, found, typicality, self.typicality_threshold)

    def run_images(self, outputs: list[str], images, batch: int | None = None, boxes=None) -> list[np.ndarray]:
        """Return the named outputs for `data.Images`, as `run`. Image files are read at their full size.

        Args: batch: None for 1 with image files, and for 64 without files; boxes: as for `run`.
        Raises: UserError, as `run`, and when an image file cannot be read.
        """
        from common.preparation import frames  # predict.py imports this module and must not need pandas
        from common.progress import shown

        batch = batch or (1 if (images.files != "").any() else 64)
        found = []
        pairs = zip(shown(frames(images), "predicted", len(images)), [None] * len(images) if boxes is None else boxes)
        for _, alike in groupby(pairs, key=lambda pair: pair[0].shape):
            while some := list(islice(alike, batch)):
                stacked, placed = zip(*some)
                found.append(self.run(outputs, np.stack(stacked), batch, None if boxes is None else np.stack(placed)))
        return [np.concatenate(parts) for parts in zip(*found)]

    def run(self, outputs: list[str], images: np.ndarray, batch: int = 64, boxes=None) -> list[np.ndarray]:
        """Return the named outputs, float32 [n, ...] each, of uint8 images [n, h, w]; h and w are 8 or more.

        Args: boxes: float32 [n, 4] in pixels, nan where the file must find the box; only for a file with a finder.
        Raises: UserError when onnxruntime fails, or when an output is not one finite value or map for each image.
        """
        fed = {"image": images} | ({} if boxes is None else {"box": boxes})
        starts = range(0, len(images), batch)
        try:
            made = [self.session.run(outputs, {n: v[s : s + batch] for n, v in fed.items()}) for s in starts]
            found = [np.concatenate(given) for given in zip(*made)]
        except RUNTIME_ERRORS as error:
            reason = one_line(str(error))
            raise UserError(f"{self.path}: cannot be computed ({reason}). Export the run again.") from None
        for output, values in zip(outputs, found):
            if values.shape[:1] != (len(images),) or not values.size or not np.isfinite(values).all():
                raise UserError(f"{self.path}: is damaged, because {output} is missing. Export the run again.")
        return found


def open_session(model: str | Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """Open a session of onnxruntime on the CPU. model: a path, or a serialised model; threads: number."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # fatal messages only: users cannot act on warnings, and errors are raised
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load(path: str | Path, threads: int) -> OnnxModel:
    """Open an .onnx file that export.py wrote. Raises: UserError if the file is absent, damaged or another kind."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: there is no such file. Make the file from a run folder with export.py.")
    with reading(path, "is not an ONNX file, or is damaged", "export the run again", RUNTIME_ERRORS):
        session = open_session(path, threads)
        ends = (*session.get_inputs(), *session.get_overridable_initializers(), *session.get_outputs())
        found = {end.name: (end.type, len(end.shape)) for end in ends}  # a damaged name may not be UTF-8
    if not REQUIRED.items() <= found.items() <= (REQUIRED | OPTIONAL).items():
        raise UserError(
            f"{path}: has other inputs and outputs than a file of export.py. Give FILE.onnx, not FILE.plain.onnx, or "
            "export the run again."
        )
    with reading(path, "has no metadata of this project", "give a file that export.py wrote"):
        props = session.get_modelmeta().custom_metadata_map
        unlike = np.float32(props["typicality_threshold"])
        about, rule = (props["dataset"], props["intended_use"]), props["typicality_rule"]
        marks = [fingerprints.decode(props[f"fingerprints_{name}"]) for name in ("trained_on", "chosen_on")]
        return OnnxModel(Path(path), session, read_calibration(props), read_data(props), *about, unlike, rule, *marks)


def describe_calibration(chosen: Calibration) -> dict[str, str]:
    """Return a calibration as metadata, which `read_calibration` reads."""
    numbers = ("temperature", "offset", "threshold", "found_threshold")
    return {name: repr(getattr(chosen, name)) for name in numbers} | {
        "threshold_rule": chosen.threshold_rule,
        "chosen_on": json.dumps(chosen.chosen_on),
        "achieved": json.dumps(as_json(chosen.achieved)),
        "calibrated_on": " + ".join(chosen.chosen_on.get("hospitals", [])),
        "calibrated_on_n": str(chosen.chosen_on.get("n", 0)),
    }


def read_calibration(props: dict) -> Calibration:
    """Read the calibration from the metadata of a file. Raises: ValueError, KeyError or TypeError on bad metadata."""
    return Calibration.read(props | {name: json.loads(props[name]) for name in ("chosen_on", "achieved")})


def read_data(props: dict) -> dict:
    """Read the description of the data of the run from the metadata of a file. Raises: ValueError or KeyError."""
    data = json.loads(props["dataset_source"])
    if not describes_data(data):
        raise ValueError("dataset_source")
    return data
