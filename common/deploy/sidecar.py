"""Write NAME.json next to NAME.onnx, for callers that cannot read the metadata in the .onnx file.

The JSON has what a caller must know, the SHA-256 of the file, and test pictures with answers. Needs no torch.
"""

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from common import phantom
from common.deploy import onnxfile
from common.files import write_json

NUMBERS = ("threshold", "typicality_threshold", "found_threshold", "temperature", "offset", "input_size")
TEXTS = (
    "threshold_rule", "positive_class", "view", "input", "outputs", "calibrated_on", "dataset", "version", "license",
    "intended_use",
)  # fmt: skip
OUTPUTS = ("probability", "typicality", "window", "found")
PICTURES, HEIGHT, WIDTH = 3, 96, 128  # of generated images, which show no patient
TOLERANCE = 1e-3  # largest difference of a probability in another runtime


def path_of(file: Path) -> Path:
    """Return the path of the JSON of an .onnx file."""
    return file.with_suffix(".json")


def answer_tests(file: Path, threads: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return {"png": test pictures, uint8 [n, h, w]}, {output: answers of the file, [n, ...]}. Raises: UserError."""
    model = onnxfile.load(file, threads)
    images = phantom.generate(PICTURES, WIDTH, seed=0, malignant_share=0.5)[0][:, :HEIGHT]
    return {"png": images}, dict(zip(OUTPUTS, model.run([*OUTPUTS], images)))


def describe(file: Path, name: str, threads: int, answers: Callable = answer_tests) -> dict:
    """Return the content of the JSON of an .onnx file. name: later name of the file; answers: like `answer_tests`."""
    about = onnxfile.open_session(str(file), threads).get_modelmeta().custom_metadata_map
    found = {key: float(about[key]) for key in NUMBERS if key in about}  # a network-only file has no typicality
    found |= {key: about[key] for key in TEXTS}
    pictures, said = answers(file, threads)
    columns = {key: map(as_png, images) for key, images in pictures.items()}
    columns |= {output: values.tolist() for output, values in said.items()}
    tests = [dict(zip(columns, row)) for row in zip(*columns.values())]
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"file": name, "sha256": sha256} | found | {"tolerance": TOLERANCE, "tests": tests}


def as_png(image: np.ndarray) -> str:
    """Return a picture, uint8 [h, w], as a PNG in base64."""
    with io.BytesIO() as buffer:
        Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode("ascii")


def write(file: Path, beside: Path, name: str, threads: int, answers: Callable = answer_tests) -> None:
    """Write the JSON of an .onnx file. beside: path to write; name, answers: as for `describe`. Raises: UserError."""
    write_json(beside, describe(file, name, threads, answers))
