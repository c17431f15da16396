"""Build the ONNX file from preparation, networks, head and typicality. PyTorch exports preparation and networks."""

import functools
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from common import lesion
from common.deploy import modelfile
from common.deploy.typicality import Typicality
from common.model import Predictor
from common.window import frame_box, square_box, window

VERSION = "4"  # of inputs, outputs, metadata. Version 1 took only the model's size; 2 had no evidence, 3 no box
OPSET, IR_VERSION = 18, 9  # versions of ONNX that onnxruntime 1.17 and later read
VERSIONS = f'<ir_version: {IR_VERSION}, opset_import: ["": {OPSET}]>'
BATCH, HEIGHT, WIDTH = (
    torch.export.Dim(name, min=least) for name, least in (("batch", 1), ("height", 8), ("width", 8))
)

# The straight line calibrates: slope is 1 / temperature, intercept is the offset. In an int8 file, the line also takes
# the logits of the int8 network to the logits of the fp32 network (common.deploy.int8). calibrate.py changes the line.
ONE_LOOK = """
head (float[batch, rows, columns] frame_evidence)
    => (float[batch] probability, float[batch] logit, float[batch, rows, columns] evidence)
<float slope = {{{slope!r}}}, float intercept = {{{intercept!r}}}, int64[2] positions = {{1, 2}}>
{{
    scaled_evidence = Mul (frame_evidence, slope)
    evidence = Add (scaled_evidence, intercept)
    logit = ReduceMean <keepdims = 0> (evidence, positions)
    probability = Sigmoid (logit)
}}
"""
TWO_LOOKS = """
head (float[batch, rows, columns] window_evidence, float[batch, one, one] box_evidence,
      float[batch, frame_rows, frame_columns] frame_evidence)
    => (float[batch] probability, float[batch] logit, float[batch, rows, columns] evidence,
        float[batch, frame_rows, frame_columns] evidence_frame)
<float slope = {{{slope!r}}}, float intercept = {{{intercept!r}}}, int64[2] positions = {{1, 2}}, float half = {{0.5}}>
{{
    window_and_box = Add (window_evidence, box_evidence)
    scaled_window = Mul (window_and_box, slope)
    scaled_frame = Mul (frame_evidence, slope)
    evidence = Add (scaled_window, intercept)
    evidence_frame = Add (scaled_frame, intercept)
    logit_of_window = ReduceMean <keepdims = 0> (evidence, positions)
    logit_of_frame = ReduceMean <keepdims = 0> (evidence_frame, positions)
    sum_of_logits = Add (logit_of_window, logit_of_frame)
    logit = Mul (sum_of_logits, half)
    probability = Sigmoid (logit)
}}
"""
# The input `box` is one box per image, or one box for all images. The default of `box` makes the input optional.
GIVEN_BOX = """
given (uint8[batch, height, width] image, float[boxes, 4] box) => (float[batch, 4] given_box)
<int64[1] four = {4}>
{
    images = Shape <start = 0, end = 1> (image)
    one_an_image = Concat <axis = 0> (images, four)
    given_box = Expand (box, one_an_image)
}
"""
NO_BOX = np.full((1, 4), np.nan, np.float32)


class Preparation(nn.Module):
    """Preparation of images for the first look: the frame or the middle square, resized.

    Input: `image`, uint8 [batch, height, width]. Outputs: the prepared images, uint8 [batch, size, size]; `window`,
    float32 [batch, 4] in pixels; `found`, float32 [batch], always 1. The view lesion uses only the first output.
    """

    def __init__(self, size: int, view: str):
        super().__init__()
        self.size, self.square = size, view == "square"

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        box = (square_box if self.square else frame_box)(image.shape[1], image.shape[2])
        prepared = window(image, box, self.size, clip=self.square).to(torch.uint8)
        boxes = box.expand(image.shape[0], 4).clone()
        return prepared, boxes, torch.ones_like(boxes[:, 0])


class Placement(nn.Module):
    """Preparation of images for the second look: the window around each lesion.

    Inputs: `image`, uint8 [batch, height, width]; heat of the finder, [batch, side, side]; given boxes, float32
    [batch, 4] in pixels; where a number is nan or a side is not above 0, the finder finds the box. Outputs: the
    windows, uint8 [batch, size, size];
    `window`, float32 [batch, 4] in pixels; `found`, float32 [batch], 1 for a given box; `extents`, float32 [batch, 2],
    of the boxes.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, image: torch.Tensor, heat: torch.Tensor, given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        size = frame_box(image.shape[1], image.shape[2])[:, 2:]
        scale = torch.cat([size, size], 1)
        thinnest = given[:, 2:].amin(1, keepdim=True)
        unknown = given.sum(1, keepdim=True).isnan() | (thinnest <= 0)  # a sum with nan is nan
        boxes = torch.where(unknown, lesion.in_pixels(lesion.box_of(heat), scale), given)
        placed = lesion.lesion_windows(boxes)
        sure = torch.where(unknown[:, 0], heat.amax((1, 2)), torch.ones_like(heat[:, 0, 0]))
        return window(image, placed, self.size).to(torch.uint8), placed, sure, lesion.extents_of(boxes, scale)


class Network(nn.Module):
    """Networks of one look, as exported. Input: uint8 [batch, size, size].

    Args: outputs: names of the outputs, among "evidence", [batch, rows, columns]; "features", [batch, d]; and, with a
    finder, "heat", [batch, side, side].
    """

    def __init__(self, predictor: Predictor, outputs: list[str]):
        super().__init__()
        self.predictor, self.outputs = predictor, outputs

    def forward(self, prepared: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        explained = self.predictor.explain(prepared)
        found = {"evidence": explained.evidence[0], "features": explained.texture, "heat": explained.heat}
        return tuple(found[name] for name in self.outputs)


class Box(nn.Module):
    """What the boxes add to the evidence of their windows, the mean over the members of a predictor.

    Input: `extents`, float32 [batch, 2]. Output: float32 [batch, 1, 1].
    """

    def __init__(self, predictor: Predictor):
        super().__init__()
        self.predictor = predictor

    def forward(self, extents: torch.Tensor) -> torch.Tensor:
        return torch.stack([member.box(extents) for member in self.predictor.members]).mean(0)[:, :, None]


def as_shipped(predictor: Predictor, fp16: bool) -> Predictor:
    """Return a streamlined copy, as the exported file computes. `fp16` rounds weights, except biases, to fp16."""
    shipped = Predictor([m.streamlined() for m in predictor.members], predictor.mirror).eval()
    for weights in shipped.parameters():
        if fp16 and weights.ndim > 1:
            weights.data = weights.data.half().float()
    return shipped


def export(module: nn.Module, inputs: dict[str, tuple], outputs: list[str]) -> onnx.ModelProto:
    """Export a module as an ONNX model. inputs: {name: (example, dynamic dimensions)}; outputs: names."""
    examples, shapes = zip(*inputs.values())
    program = torch.onnx.export(
        module.eval(),
        examples,
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes=shapes,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # torch returns None only when torch saves to a path
    model = program.model_proto  # torch makes a new model at each access
    model.ir_version = IR_VERSION
    graph = model.graph
    for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")  # the notes of the exporter have paths of this machine
        item.ClearField("doc_string")
    return model


def export_networks(predictor: Predictor, size: int) -> dict[str, onnx.ModelProto]:
    """Export the networks of a predictor: {look: model}, with "frame" and, in the view lesion, "window" and "box".

    The model "frame" takes `frame_prepared`, uint8 [batch, size, size]. The model gives `frame_evidence`,
    `frame_features` and, in the view lesion, `frame_heat`. The model "window" takes `window_prepared`, and gives
    `window_evidence`. The model "box" takes `extents`, and gives `box_evidence`.

    Args: predictor: from `as_shipped`; size: side of the prepared images in pixels.
    """
    looks = {"frame": Network(predictor, ["evidence", "features"])}
    if finder := predictor.finder:
        windows = Predictor([member.window for member in predictor.members], predictor.mirror)
        looks = {
            "frame": Network(finder, ["evidence", "features", "heat"]),
            "window": Network(windows, ["evidence"]),
        }
    prepared = torch.zeros(2, size, size, dtype=torch.uint8), {0: BATCH}
    exported = {
        look: export(network, {f"{look}_prepared": prepared}, [f"{look}_{name}" for name in network.outputs])
        for look, network in looks.items()
    }
    if finder:
        exported["box"] = export(Box(predictor), {"extents": (torch.zeros(2, 2), {0: BATCH})}, ["box_evidence"])
    return exported


@functools.cache
def preparation(size: int, view: str) -> onnx.ModelProto:
    """Return `Preparation` as a model: `image` to `frame_prepared` and, except for lesion, `window` and `found`."""
    image = torch.zeros(2, 60, 80, dtype=torch.uint8), {0: BATCH, 1: HEIGHT, 2: WIDTH}
    model = export(Preparation(size, view), {"image": image}, ["frame_prepared", "window", "found"])
    if view == "lesion":  # `placement` gives window and found
        del model.graph.output[1:]
    return model


@functools.cache
def placement(size: int, heat_side: int) -> onnx.ModelProto:
    """Return `Placement` as a model: `image`, `frame_heat` and `given_box` to four outputs."""
    inputs = {
        "image": (torch.zeros(2, 60, 80, dtype=torch.uint8), {0: BATCH, 1: HEIGHT, 2: WIDTH}),
        "frame_heat": (torch.rand(2, heat_side, heat_side), {0: BATCH}),
        "given_box": (torch.tensor([[10.0, 10, 30, 20], [5, 5, 60, 40]]), {0: BATCH}),
    }
    return export(Placement(size), inputs, ["window_prepared", "window", "found", "extents"])


def join(parts: dict[str, onnx.ModelProto], outputs: list[str]) -> onnx.ModelProto:
    """Join models into one model: an output feeds each later input with the same name.

    Args: parts: {name: model}, in order of computation; inner names get the prefix NAME_, unless the name of the part
    begins with "_"; outputs: names of the outputs of the joined model.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(onnx.parser.parse_model(VERSIONS + "whole () => () {}"))
    values: dict[str, onnx.ValueInfoProto] = {}
    inputs: dict[str, onnx.ValueInfoProto] = {}
    for name, part in parts.items():
        if not name.startswith("_"):
            part = onnx.compose.add_prefix(part, f"{name}_", rename_inputs=False, rename_outputs=False)
        inputs |= {value.name: value for value in part.graph.input if value.name not in values | inputs}
        values |= {value.name: value for value in part.graph.output}
        whole.graph.node.extend(part.graph.node)
        whole.graph.initializer.extend(part.graph.initializer)
        whole.graph.value_info.extend(part.graph.value_info)
    whole.graph.input.extend(inputs.values())
    whole.graph.output.extend(values[name] for name in outputs)
    return whole


def assemble(
    networks: dict[str, onnx.ModelProto],
    size: int,
    view: str,
    fitted: Typicality,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> onnx.ModelProto:
    """Return preparation, networks, head and typicality as one model, with the inputs and outputs of the file.

    Args: networks: from `export_networks`, in fp32 or int8; slope, intercept: the line that calibrates the logits.
    """
    parts = {"preparation": preparation(size, view), "frame": networks["frame"]}
    outputs, head = ["probability", "logit", "evidence"], ONE_LOOK
    if view == "lesion":
        heat_side = networks["frame"].graph.output[2].type.tensor_type.shape.dim[1].dim_value
        parts["_given"] = onnx.parser.parse_model(VERSIONS + GIVEN_BOX)
        parts |= {"placement": placement(size, heat_side), "window": networks["window"], "box": networks["box"]}
        outputs, head = [*outputs, "evidence_frame"], TWO_LOOKS
    parts["_head"] = onnx.parser.parse_model(VERSIONS + head.format(slope=slope, intercept=intercept))
    parts["_typicality"] = fitted.graph(VERSIONS)
    whole = join(parts, [*outputs, "typicality", "window", "found"])
    if view == "lesion":
        whole.graph.initializer.append(onnx.numpy_helper.from_array(NO_BOX, modelfile.BOX))
    whole.graph.name, whole.producer_name = "breastmnist", "breastmnist-resnet18"
    return whole


def write(model: onnx.ModelProto, about: dict[str, str], path: Path) -> None:
    """Write an assembled model with metadata as one file.

    An array of 256 or more float32 values is stored as fp16 if fp16 keeps all values. The graph casts the array back.
    """
    for tensor in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= 256 and (values == values.astype(np.float16)).all():
            name = f"{tensor.name}_fp16"
            model.graph.initializer.remove(tensor)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float16), name))
            cast = onnx.helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT)
            model.graph.node.insert(0, cast)
    onnx.helper.set_model_props(model, about)
    modelfile.save(model, path)
