"""Write the network-only file for OpenCV, ncnn, TFLite and CoreML: the networks of a run, without preparation.

The inputs have a fixed size. Converters take all operators in the file.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

from common import phantom
from common.calibration import Calibration, sigmoid
from common.deploy import graph, modelfile, onnxfile, parity, sidecar
from common.errors import UserError
from common.model import BreastResNet, Predictor, TwoLooks, mirrored
from common.run.folders import Run

OPSET, IR_VERSION = 17, 8  # versions of ONNX that older converters read
PICTURES = {"square": ["square"], "frame": ["frame"], "lesion": ["window", "frame"]}  # inputs by view
SHOWS = {"square": "the middle square", "frame": "the whole frame", "window": "the window around the lesion"}
EXTENTS = (
    "; extents: float32 [1, 2], the natural logarithms of the box's width and height, each divided by the longer side "
    "of the frame"
)
OPERATORS = {
    "Add", "AveragePool", "Conv", "ConvTranspose", "Div", "Flatten", "Gemm", "MatMul", "MaxPool", "Mul", "Relu",
    "Reshape", "Sigmoid", "Sub",
}  # fmt: skip
TEST_EXTENTS = np.log(np.array([[0.25, 0.25], [0.5, 0.25], [0.25, 0.5]], np.float32))  # of the tests in the JSON
BOUNDS = {"max_difference": 1e-5, "logit_difference": 1e-4}  # from the complete file: of a probability, of a logit


def logit_and_heat(network: BreastResNet, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the logit [1, 1] of a picture, float [1, 1, size, size] in [0, 1], and the heat map of a finder or None.

    The heat map is float [1, 1, side, side] in [0, 1]. The pool has a fixed size, because torch exports the pool of
    `BreastResNet.logits_and_heat` with a Gather.
    """
    last, heat = network.later_stages(network.first_stage(picture))
    logit = network.trunk.fc(F.avg_pool2d(last, last.shape[-1]).flatten(1))
    return logit, None if heat is None else heat.sigmoid()


def mean(values: list[torch.Tensor]) -> torch.Tensor:
    """Return the mean of tensors, without the operator Concat."""
    return sum(values[1:], values[0]) / len(values)


class Plain(nn.Module):
    """Networks of a run as in the network-only file. Members and mirrored views are averaged as in `Predictor`.

    Inputs: a picture per look, float [1, 1, size, size] in [0, 1]; in the view lesion also extents of the box, float
    [1, 2]. Outputs: calibrated logit [1, 1]; in the view lesion heat map [1, 1, side, side].
    """

    def __init__(self, predictor: Predictor, calibration: Calibration):
        super().__init__()
        self.predictor, self.calibration = predictor, calibration
        first = predictor.members[0]
        picture = torch.zeros(1, 1, first.size, first.size)
        _, heat = logit_and_heat(first.frame if isinstance(first, TwoLooks) else first, picture)
        for maps in (picture, heat):
            if maps is not None:  # a buffer, because torch does not export `mirrored` as a constant from 64 pixels on
                self.register_buffer(f"mirror_{maps.shape[-1]}", mirrored(torch.eye(maps.shape[-1])))

    def flipped(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps, float [1, 1, side, side], mirrored left-right, as `mirrored` does."""
        return maps @ getattr(self, f"mirror_{maps.shape[-1]}")

    def forward(self, first: torch.Tensor, second=None, extents=None) -> tuple[torch.Tensor, ...]:
        logits, heats = [], []
        flips: list[Callable] = [torch.clone, self.flipped] if self.predictor.mirror else [torch.clone]
        for member in self.predictor.members:
            networks = [member.window, member.frame] if isinstance(member, TwoLooks) else [member]
            for network, picture in zip(networks, (first, second)):
                for flip in flips:
                    logit, heat = logit_and_heat(network, flip(picture))
                    logits.append(logit)
                    heats += [] if heat is None else [flip(heat)]
        logit = mean(logits)
        if extents is not None:  # the box adds to the logit of the window, which is half of the logit
            logit = logit + mean([member.box(extents) for member in self.predictor.members]) / 2
        logit = logit / self.calibration.temperature + self.calibration.offset
        return (logit, mean(heats)) if heats else (logit,)


def export(run: Run) -> onnx.ModelProto:
    """Export the model of a network-only file. run: with a predictor of `graph.as_shipped`."""
    size, view = run.data["size"], run.data["view"]
    inputs, outputs = {name: (torch.zeros(1, 1, size, size), None) for name in PICTURES[view]}, ["logit"]
    if view == "lesion":
        inputs, outputs = inputs | {"extents": (torch.zeros(1, 2), None)}, ["logit", "heat"]
    exported = graph.export(Plain(run.predictor, run.calibration), inputs, outputs)
    model = onnx.version_converter.convert_version(exported, OPSET)
    model.ir_version = IR_VERSION
    for node in model.graph.node:
        if node.op_type == "Reshape":  # no shape has a 0, and some converters do not know the attribute allowzero
            del node.attribute[:]
    model.graph.name, model.producer_name = "breastmnist_plain", "breastmnist-resnet18"
    return model


def describe(about: dict[str, str]) -> dict[str, str]:
    """Return the metadata of a network-only file, without typicality. about: metadata of the complete file."""
    size, view = about["input_size"], about["view"]
    kept = {key: text for key, text in about.items() if not key.startswith("typicality")}
    pictures = [f"{name}: float32 [1, 1, {size}, {size}], {SHOWS[name]}" for name in PICTURES[view]]
    heat = (
        "; heat: how sure the finder is of a lesion at each position of the frame, 0 to 1, float32 [1, 1, side, side]"
    )
    return kept | {
        "input": "; ".join([*pictures, "each from 0 to 1: the grey level / 255"]) + EXTENTS * (view == "lesion"),
        "outputs": "logit: calibrated log-odds of malignant, float32 [1, 1]" + heat * (view == "lesion"),
        "preparation": f"not in the graph: cut, resize to {size}x{size} (bilinear, antialiased), divide by 255",
    }


def answer(path: Path, inputs: dict[str, np.ndarray], threads: int) -> np.ndarray:
    """Return the logits, float32 [n], of a network-only file.

    Args: inputs: pictures, uint8 [n, size, size]; "extents", float32 [n, 2], only in the view lesion.
    """
    session = onnxfile.open_session(str(path), threads)
    fed = {
        name: values[:, None] if name == "extents" else (values / np.float32(255))[:, None, None]
        for name, values in inputs.items()
    }
    rows = zip(*fed.values())
    return np.concatenate([session.run(["logit"], dict(zip(fed, row)))[0][0] for row in rows])


def answer_tests(path: Path, threads: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return test pictures, {input: uint8 [n, size, size]}, and extents and answers, {name: [n, ...]}.

    Inputs get other pictures.
    """
    inputs = onnxfile.open_session(str(path), threads).get_inputs()
    images = phantom.generate(sidecar.PICTURES, inputs[0].shape[-1], seed=0, malignant_share=0.5)[0]
    names = [given.name for given in inputs if given.name != "extents"]
    pictures = {name: np.roll(images, i, 0) for i, name in enumerate(names)}
    extents = {"extents": TEST_EXTENTS[: len(images)]} if len(names) < len(inputs) else {}
    logits = answer(path, pictures | extents, threads)
    return pictures, extents | {"logit": logits, "probability": sigmoid(logits)}


def write(run: Run, about: dict[str, str], path: Path) -> None:
    """Write a network-only file with fp32 weights. run: as for `export`; about: metadata of the complete file."""
    model = export(run)
    onnx.helper.set_model_props(model, describe(about))
    modelfile.save(model, path)


def check(path: Path, whole: onnxfile.OnnxModel, expected: parity.Expected, threads: int) -> list[dict]:
    """Compare a network-only file with the complete file, on the training images as the run cuts the images.

    Args: whole: complete file; expected: of train. Returns: rows for parity.json. Raises: UserError when both
    files disagree, or when converters may not take an operator.
    """
    if others := {node.op_type for node in onnx.load(path).graph.node} - OPERATORS:
        raise UserError(f"--plain: converters may refuse {', '.join(sorted(others))}. Nothing is written.")
    images, names = expected.look.images, PICTURES[whole.view]
    inputs: dict = {name: images.windows if name == "window" else images.pixels for name in names}
    inputs |= {"extents": expected.look.extents} if whole.view == "lesion" else {}
    found = answer(path, inputs, threads)
    logits, probabilities = parity.answer(whole, ["logit", "probability"], expected)
    apart = {"max_difference": np.abs(sigmoid(found) - probabilities), "logit_difference": np.abs(found - logits)}
    rows = [{"split": "train", "n": len(found)} | {name: float(values.max()) for name, values in apart.items()}]
    parity.require(rows, BOUNDS)
    return rows
