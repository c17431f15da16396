"""The network-only file for OpenCV, ncnn, TFLite and CoreML: the networks of a run, and nothing before or after them.

Its inputs have a fixed size, its operators are those that converters take.
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

OPSET, IR_VERSION = 17, 8  # of ONNX: older converters read them
INPUTS = {"square": ["square"], "frame": ["frame"], "lesion": ["window", "frame"]}  # by view
SHOWS = {"square": "the middle square", "frame": "the whole frame", "window": "the window around the lesion"}
OPERATORS = {
    "Add", "AveragePool", "Conv", "ConvTranspose", "Div", "Flatten", "Gemm", "MatMul", "MaxPool", "Mul", "Relu",
    "Reshape", "Sigmoid", "Sub",
}  # fmt: skip
BOUNDS = {"max_difference": 1e-5, "logit_difference": 1e-4}  # from the whole file: of a probability, of a logit


def look(network: BreastResNet, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As `BreastResNet.look`, but by a pool of fixed size: torch exports the other one with a Gather.

    picture: float [1, 1, size, size] in [0, 1]. Returns: the logit [1, 1], and the heat map [1, 1, side, side] or None.
    """
    last, heat = network.later_stages(network.first_stage(picture))
    logit = network.trunk.fc(F.avg_pool2d(last, last.shape[-1]).flatten(1))
    return logit, None if heat is None else heat.sigmoid()


def mean(values: list[torch.Tensor]) -> torch.Tensor:
    """The mean, without a Concat."""
    return sum(values[1:], values[0]) / len(values)


class Plain(nn.Module):
    """A picture for each look, float [1, 1, size, size] in [0, 1], to the calibrated logit [1, 1], and in the view
    lesion the heat map [1, 1, side, side]. Members and mirrored views are averaged as `Predictor` averages them."""

    def __init__(self, predictor: Predictor, calibration: Calibration):
        super().__init__()
        self.predictor, self.calibration = predictor, calibration
        first = predictor.members[0]
        picture = torch.zeros(1, 1, first.size, first.size)
        _, heat = look(first.frame if isinstance(first, TwoLooks) else first, picture)
        for maps in (picture, heat):
            if maps is not None:  # a constant: torch exports `mirrored` as one only below 64 pixels
                self.register_buffer(f"mirror_{maps.shape[-1]}", mirrored(torch.eye(maps.shape[-1])))

    def flipped(self, maps: torch.Tensor) -> torch.Tensor:
        """As `mirrored`. maps: float [1, 1, side, side]."""
        return maps @ getattr(self, f"mirror_{maps.shape[-1]}")

    def forward(self, first: torch.Tensor, second: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        logits, heats = [], []
        flips: list[Callable] = [torch.clone, self.flipped] if self.predictor.mirror else [torch.clone]
        for member in self.predictor.members:
            networks = [member.window, member.frame] if isinstance(member, TwoLooks) else [member]
            for network, picture in zip(networks, (first, second)):
                for flip in flips:
                    logit, heat = look(network, flip(picture))
                    logits.append(logit)
                    heats += [] if heat is None else [flip(heat)]
        logit = mean(logits) / self.calibration.temperature + self.calibration.offset
        return (logit, mean(heats)) if heats else (logit,)


def export(run: Run) -> onnx.ModelProto:
    """The model of a network-only file. run: with a predictor of `graph.as_shipped`."""
    size, view = run.data["size"], run.data["view"]
    inputs = {name: (torch.zeros(1, 1, size, size), None) for name in INPUTS[view]}
    outputs = ["logit", "heat"] if view == "lesion" else ["logit"]
    exported = graph.export(Plain(run.predictor, run.calibration), inputs, outputs)
    model = onnx.version_converter.convert_version(exported, OPSET)
    model.ir_version = IR_VERSION
    for node in model.graph.node:
        if node.op_type == "Reshape":  # to shapes without 0; not every converter knows the attribute allowzero
            del node.attribute[:]
    model.graph.name, model.producer_name = "breastmnist_plain", "breastmnist-resnet18"
    return model


def describe(about: dict[str, str]) -> dict[str, str]:
    """The metadata of a network-only file. about: of the whole file."""
    size, view = about["input_size"], about["view"]
    kept = {key: text for key, text in about.items() if not key.startswith("typicality")}
    pictures = [f"{name}: float32 [1, 1, {size}, {size}], {SHOWS[name]}" for name in INPUTS[view]]
    heat = (
        "; heat: how sure the finder is of a lesion at each position of the frame, 0 to 1, float32 [1, 1, side, side]"
    )
    return kept | {
        "input": "; ".join([*pictures, "each from 0 to 1: the grey level / 255"]),
        "outputs": "logit: calibrated log-odds of malignant, float32 [1, 1]" + heat * (view == "lesion"),
        "preparation": f"not in the graph: cut, resize to {size}x{size} (bilinear, antialiased), divide by 255",
    }


def answer(path: Path, pictures: list[np.ndarray], threads: int) -> np.ndarray:
    """Logits [n] of a network-only file. pictures: uint8 [n, size, size] for each input."""
    session = onnxfile.open_session(str(path), threads)
    names = [given.name for given in session.get_inputs()]
    scaled = [(given / np.float32(255))[:, np.newaxis, np.newaxis] for given in pictures]
    return np.concatenate([session.run(["logit"], dict(zip(names, given)))[0][0] for given in zip(*scaled)])


def answer_tests(path: Path, threads: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """As `sidecar.answer_tests`, of a network-only file. Each input has other pictures, to tell inputs apart."""
    inputs = onnxfile.open_session(str(path), threads).get_inputs()
    images = phantom.generate(sidecar.PICTURES, inputs[0].shape[-1], seed=0, malignant_share=0.5)[0]
    pictures = {given.name: np.roll(images, i, 0) for i, given in enumerate(inputs)}
    logits = answer(path, list(pictures.values()), threads)
    return pictures, {"logit": logits, "probability": sigmoid(logits)}


def write(run: Run, about: dict[str, str], path: Path) -> None:
    """Save the model of `export`, with all weights as fp32. run: as `export`; about: the metadata of the whole file."""
    model = export(run)
    onnx.helper.set_model_props(model, describe(about))
    modelfile.save(model, path)


def check(path: Path, whole: onnxfile.OnnxModel, expected: parity.Expected, threads: int) -> list[dict]:
    """Hold a network-only file to the whole file, on training images as the run cuts them: the rows that parity.json
    keeps. Raises: UserError where they disagree, or for an operator that converters may not take."""
    if others := {node.op_type for node in onnx.load(path).graph.node} - OPERATORS:
        raise UserError(f"--plain: converters may refuse {', '.join(sorted(others))}. Nothing is written.")
    found = answer(path, [expected.images.look(name) for name in INPUTS[whole.view]], threads)
    logits, probabilities = parity.answer(whole, ["logit", "probability"], expected)
    apart = {"max_difference": np.abs(sigmoid(found) - probabilities), "logit_difference": np.abs(found - logits)}
    rows = [{"split": "train", "n": len(found)} | {name: float(values.max()) for name, values in apart.items()}]
    parity.require(rows, BOUNDS)
    return rows
