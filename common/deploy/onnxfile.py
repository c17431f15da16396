"""The ONNX file as its users have it: an image in, calibrated P(malignant) out. Reading it needs numpy and onnxruntime,
no torch."""

import json
import os
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state

from common import fingerprints
from common.answer import Answer, whole
from common.boxes import in_shares
from common.calibration import Calibration
from common.description import describes_data
from common.errors import FORMAT_ERRORS, UserError, one_line, reading

# What onnxruntime raises, of classes of its own that have no common base, of a damaged file.
RUNTIME_ERRORS = tuple(
    kind for kind in vars(onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
) + FORMAT_ERRORS  # fmt: skip
# What a file takes and gives: {name: (type, number of dimensions)}.
REQUIRED = {"image": ("tensor(uint8)", 3), "evidence": ("tensor(float)", 3), "window": ("tensor(float)", 2)}
REQUIRED |= dict.fromkeys(("probability", "logit", "typicality", "found"), ("tensor(float)", 1))
OPTIONAL = {"evidence_frame": ("tensor(float)", 3), "box": ("tensor(float)", 2)}  # of the view lesion


@dataclass(frozen=True)
class OnnxModel:
    """An .onnx file, open: predicts like a `Run`, with onnxruntime."""

    path: Path
    session: onnxruntime.InferenceSession
    calibration: Calibration
    data: dict  # of the run that it came from, as `data.Found.describe`, and "trained_on"
    dataset: str  # its name for people; says PHANTOM where it is one
    intended_use: str
    typicality_threshold: float  # below it an image is unlike those of training
    trained_on: np.ndarray  # fingerprints of the training images, uint8 [n, 32]
    chosen_on: np.ndarray  # and of the validation images, which trained nothing

    @property
    def view(self) -> str:
        """What the networks look at: square, frame or lesion."""
        return self.data["view"]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Calibrated log-odds of malignant, float32 [n], of uint8 images [n, h, w]. Raises: as `run`."""
        return self.run(["logit"], images)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated P(malignant), float32 [n], of uint8 images [n, h, w]. Raises: as `run`."""
        return self.run(["probability"], images)[0]

    def evidence(self, images) -> tuple[np.ndarray, np.ndarray]:
        """What each position of the first look adds to the logit, float32 [n, rows, columns], of `data.Images`, and the
        window that it is of, [n, 4], in shares of the picture that their pixels show. Raises: as `run_images`."""
        if self.view != "lesion":
            return self.run(["evidence"], images.pixels)[0], whole(len(images))
        evidence, windows = self.run_images(["evidence", "window"], images)
        return evidence, in_shares(windows, images.sizes)

    def answer(self, images, given: bool = False) -> Answer:
        """What the file says of `data.Images`. given: with the boxes that the images have. Raises: as `run_images`."""
        boxes = images.boxes.astype(np.float32) if given else None
        outputs = ["probability", "typicality", "window", "found"]
        probabilities, typicality, windows, found = self.run_images(outputs, images, boxes=boxes)
        windows = in_shares(windows, images.sizes) if self.view == "lesion" else whole(len(images))
        return Answer(probabilities, windows, found, typicality)

    def unlike(self, typicality):
        """Whether images are unlike those of training, bool of the shape of `typicality`, float32 as the file gives."""
        return typicality < np.float32(self.typicality_threshold)

    def run_images(self, outputs: list[str], images, batch: int | None = None, boxes=None) -> list[np.ndarray]:
        """The named outputs, as `run`, of `data.Images`: of image files at their full size. batch: None for one image
        file at a time, and for 64 images that are no files; boxes: as `run`.
        Raises: UserError, as `run` and for a file that cannot be read."""
        from common.preparation import frames  # predict.py, which needs no pandas, imports this file
        from common.progress import shown

        batch = batch or (1 if "_file" in images.table else 64)
        found = []
        pairs = zip(shown(frames(images), "predicted", len(images)), [None] * len(images) if boxes is None else boxes)
        for _, alike in groupby(pairs, key=lambda pair: pair[0].shape):
            while some := list(islice(alike, batch)):
                stacked, placed = zip(*some)
                found.append(self.run(outputs, np.stack(stacked), batch, None if boxes is None else np.stack(placed)))
        return [np.concatenate(parts) for parts in zip(*found)]

    def run(self, outputs: list[str], images: np.ndarray, batch: int = 64, boxes=None) -> list[np.ndarray]:
        """The named outputs, float32 [n, ...] each, of uint8 images [n, h, w]; h and w from 8 up. boxes: float32
        [n, 4], nan where the file finds it; only for a file that takes them. Raises: UserError for an output that a
        damaged file does not give."""
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
    """A session on the CPU with so many threads. model: a path, or the serialised model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # fatal ones only: users cannot act upon its warnings, and errors are raised
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load(path: str | Path, threads: int) -> OnnxModel:
    """Open a file that export.py wrote. Raises: UserError."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: there is no such file. Make the file from a run folder with export.py.")
    with reading(path, "is not an ONNX file, or is damaged", "export the run again", RUNTIME_ERRORS):
        session = open_session(path, threads)
        ends = (*session.get_inputs(), *session.get_overridable_initializers(), *session.get_outputs())
        found = {end.name: (end.type, len(end.shape)) for end in ends}  # a damaged name may be no UTF-8
    if not REQUIRED.items() <= found.items() <= (REQUIRED | OPTIONAL).items():
        raise UserError(
            f"{path}: has other inputs and outputs than a file of export.py. Give FILE.onnx, not FILE.plain.onnx, or "
            "export the run again."
        )
    with reading(path, "has no metadata of this project", "give a file that export.py wrote"):
        props = session.get_modelmeta().custom_metadata_map
        unlike = float(props["typicality_threshold"])
        about = props["dataset"], props["intended_use"]
        marks = [fingerprints.decode(props.get(f"fingerprints_{name}", "")) for name in ("trained_on", "chosen_on")]
        return OnnxModel(Path(path), session, read_calibration(props), read_data(props), *about, unlike, *marks)


def read_calibration(props: dict) -> Calibration:
    """The calibration out of a file's metadata. Raises: as `Calibration.read`."""
    return Calibration.read(props | {name: json.loads(props[name]) for name in ("chosen_on", "achieved")})


def read_data(props: dict) -> dict:
    """What a file says of the data of its run. Raises: ValueError or KeyError on what export.py does not write."""
    data = json.loads(props["dataset_source"])
    if not describes_data(data):
        raise ValueError("dataset_source")
    return data
