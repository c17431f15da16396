"""Change the calibration of an .onnx file: constants and metadata change, the network stays. Needs onnx, no torch."""

from pathlib import Path

import numpy as np
import onnx

from common import fingerprints
from common.calibration import Calibration
from common.deploy import modelfile, onnxfile
from common.errors import UserError
from common.images import Images
from common.preparation import frames

DISTANCE = "distance"  # inner value of the file: how unusual an image is, before the comparison with held-out images


def constant(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """Return a named constant of a file. Raises: UserError if export.py did not write the file."""
    found = [tensor for tensor in model.graph.initializer if tensor.name == name]
    if len(found) != 1:
        raise UserError(f"the file has no constant {name!r}, which calibration changes. Export the run again.")
    return found[0]


def replace_constant(model: onnx.ModelProto, name: str, value) -> None:
    """Replace a named constant by a value, as float32. Raises: UserError, as `constant`."""
    constant(model, name).CopyFrom(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata of a file, {key: text}."""
    return {entry.key: entry.value for entry in model.metadata_props}


def shift(model: onnx.ModelProto, temperature: float, offset: float) -> tuple[float, float]:
    """Change a model so that each log-odds of the model becomes log-odds / temperature + offset.

    Returns: for the metadata, the total temperature and offset of the logits of the network. Raises: UserError.
    """
    about = metadata(model)
    slope, intercept = (float(onnx.numpy_helper.to_array(constant(model, name))) for name in ("slope", "intercept"))
    replace_constant(model, "slope", slope / temperature)
    replace_constant(model, "intercept", intercept / temperature + offset)
    return float(about["temperature"]) * temperature, float(about["offset"]) / temperature + offset


def distances(model: onnx.ModelProto, images: Images, threads: int) -> np.ndarray:
    """Return how unusual images are, float32 [n]: the distances that typicality compares with held-out images.

    Raises: UserError when an image file cannot be read.
    """
    inside = onnx.ModelProto()
    inside.CopyFrom(model)
    inside.graph.output.append(onnx.helper.make_tensor_value_info(DISTANCE, onnx.TensorProto.FLOAT, ["batch", 1]))
    session = onnxfile.open_session(inside.SerializeToString(), threads)
    found = [session.run([DISTANCE], {"image": pixels[np.newaxis]})[0] for pixels in frames(images)]
    return np.concatenate(found)[:, 0]


def refit_typicality(model: onnx.ModelProto, unusual: np.ndarray) -> None:
    """Let typicality refer to other images than the training images. unusual: `distances` of the other images, [n]."""
    replace_constant(model, "held_out", unusual)
    replace_constant(model, "all", len(unusual) + 1.0)
    about = metadata(model)
    for key in ("outputs", "typicality_rule"):
        about[key] = about[key].replace("training images", "images that fitted the file")
    onnx.helper.set_model_props(model, about)


def describe(model: onnx.ModelProto, chosen: Calibration, used: Images | None) -> None:
    """Write a calibration, and the fingerprints of the images `used` for the calibration, if any, into the metadata."""
    about = metadata(model) | onnxfile.describe_calibration(chosen)
    if used is not None:
        known = fingerprints.decode(about["fingerprints_chosen_on"])
        marks = np.concatenate([known, fingerprints.fingerprint(used.squares)])
        about["fingerprints_chosen_on"] = fingerprints.encode(marks)
    onnx.helper.set_model_props(model, about)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Check a model and write the file. Raises: UserError if the ONNX checker refuses the model."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise UserError(f"the ONNX checker refuses the new file: {error}. Nothing is written.") from None
    modelfile.save(model, path)
