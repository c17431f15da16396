"""Another calibration for an .onnx file: constants and metadata change, the network stays. Needs onnx, no torch."""

import json
from pathlib import Path

import numpy as np
import onnx

from common import fingerprints
from common.calibration import Calibration
from common.deploy import modelfile, onnxfile
from common.errors import UserError
from common.files import as_json
from common.images import Images
from common.preparation import frames

DISTANCE = "distance"  # inside of the file: how unusual an image is, before it is compared with the held-out ones


def constant(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """A named constant of a file. Raises: UserError on a file that export.py did not write."""
    found = [tensor for tensor in model.graph.initializer if tensor.name == name]
    if len(found) != 1:
        raise UserError(f"the file has no constant {name!r}, which calibration changes. Export the run again.")
    return found[0]


def replace_constant(model: onnx.ModelProto, name: str, value) -> None:
    """Give a named constant another value, float32."""
    constant(model, name).CopyFrom(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))


def shift(model: onnx.ModelProto, temperature: float, offset: float) -> tuple[float, float]:
    """Change the file so that its log-odds become log-odds / temperature + offset. Returns: the temperature and offset
    that the network's own logits now have, for the metadata."""
    about = {entry.key: entry.value for entry in model.metadata_props}
    slope, intercept = (float(onnx.numpy_helper.to_array(constant(model, name))) for name in ("slope", "intercept"))
    replace_constant(model, "slope", slope / temperature)
    replace_constant(model, "intercept", intercept / temperature + offset)
    return float(about["temperature"]) * temperature, float(about.get("offset", "0")) / temperature + offset


def distances(model: onnx.ModelProto, images: Images, threads: int) -> np.ndarray:
    """How unusual images are to a file, float32 [n]: what it compares with its held-out training images."""
    inside = onnx.ModelProto()
    inside.CopyFrom(model)
    inside.graph.output.append(onnx.helper.make_tensor_value_info(DISTANCE, onnx.TensorProto.FLOAT, ["batch", 1]))
    session = onnxfile.open_session(inside.SerializeToString(), threads)
    found = [session.run([DISTANCE], {"image": pixels[np.newaxis]})[0] for pixels in frames(images)]
    return np.concatenate(found)[:, 0]


def refit_typicality(model: onnx.ModelProto, unusual: np.ndarray) -> None:
    """Let typicality be about the share of these images that are at least as unusual. unusual: of `distances`."""
    replace_constant(model, "held_out", unusual)
    replace_constant(model, "all", len(unusual) + 1.0)


def describe(model: onnx.ModelProto, chosen: Calibration, used: Images | None) -> None:
    """Write into the metadata what was chosen, and the fingerprints of the images that chose it."""
    about = {entry.key: entry.value for entry in model.metadata_props}
    about |= {"temperature": repr(chosen.temperature), "offset": repr(chosen.offset)}
    about |= {"threshold": repr(chosen.threshold), "threshold_rule": chosen.threshold_rule}
    about |= {"chosen_on": json.dumps(chosen.chosen_on), "achieved": json.dumps(as_json(chosen.achieved))}
    about |= {"calibrated_on": " + ".join(chosen.chosen_on["hospitals"]), "calibrated_on_n": str(chosen.chosen_on["n"])}
    if used is not None:
        known = fingerprints.decode(about.get("fingerprints_chosen_on", ""))
        marks = np.concatenate([known, fingerprints.fingerprint(used.squares)])
        about["fingerprints_chosen_on"] = fingerprints.encode(marks)
    onnx.helper.set_model_props(model, about)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Check and write the file. Raises: UserError where the ONNX checker refuses it."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise UserError(f"the ONNX checker refuses the new file: {error}. Nothing is written.") from None
    modelfile.save(model, path)
