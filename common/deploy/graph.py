"""Building the ONNX file: MedMNIST's preparation, the network, and all that its caller must know, in one graph."""

import json
from pathlib import Path

import numpy as np
import onnx
import torch

from common import fingerprints
from common.deploy import typicality
from common.deploy.typicality import Typicality
from common.errors import UserError, one_line
from common.files import as_json
from common.model import Predictor
from common.run.folders import Run

VERSION = "3"  # of inputs, outputs and metadata; 1 took images of the model's size only, 2 no evidence
OPSET, IR_VERSION = 18, 9  # of ONNX: onnxruntime 1.17 and later read them
VERSIONS = f'<ir_version: {IR_VERSION}, opset_import: ["": {OPSET}]>'

# What common.imagefile.prepare does with Pillow. Resize computes on uint8 as Pillow does, in fixed point, and
# exclude_outside gives its weights at the borders; of the two, more than one grey level apart has not been seen.
PREPARATION = """
preparation (uint8[batch, height, width] image) => (uint8[batch, {size}, {size}] prepared)
<int64[1] channel_axis = {{1}}, int64[2] crop_axes = {{1, 2}}, int64[1] two = {{2}},
    int64[2] sides = {{{size}, {size}}}>
{{
    image_sides = Shape <start = 1, end = 3> (image)
    short_side = ReduceMin (image_sides)
    crop_spare = Sub (image_sides, short_side)
    crop_start = Div (crop_spare, two)
    crop_end = Add (crop_start, short_side)
    square = Slice (image, crop_start, crop_end, crop_axes)
    square_channel = Unsqueeze (square, channel_axis)
    prepared_channel = Resize <mode = "linear", antialias = 1, exclude_outside = 1,
        coordinate_transformation_mode = "half_pixel", axes = [2, 3]> (square_channel, , , sides)
    prepared = Squeeze (prepared_channel, channel_axis)
}}
"""

# The straight line calibrates: slope 1 / temperature, intercept the offset. Of an int8 network it also brings the
# logits back to those of the fp32 one (see common.deploy.int8). calibrate.py changes the line in the file.
HEAD = """
head (float[batch, rows, columns] network_evidence)
    => (float[batch] probability, float[batch] logit, float[batch, rows, columns] evidence)
<float slope = {{{slope!r}}}, float intercept = {{{intercept!r}}}, int64[2] positions = {{1, 2}}>
{{
    scaled_evidence = Mul (network_evidence, slope)
    evidence = Add (scaled_evidence, intercept)
    logit = ReduceMean <keepdims = 0> (evidence, positions)
    probability = Sigmoid (logit)
}}
"""


class Network(Predictor):
    """A predictor that gives what is exported of it."""

    forward = Predictor.evidence  # type: ignore[assignment]


def as_shipped(predictor: Predictor, fp16: bool) -> Predictor:
    """A copy that computes what a file does: streamlined, and filters rounded to fp16 if the file keeps them so."""
    shipped = Predictor([m.streamlined() for m in predictor.members], predictor.mirror).eval()
    for weights in shipped.parameters():
        if fp16 and weights.ndim > 1:
            weights.data = weights.data.half().float()
    return shipped


def export_network(predictor: Predictor, size: int) -> onnx.ModelProto:
    """The network of `as_shipped` alone: `prepared`, uint8 [batch, size, size], to what `Predictor.evidence` returns:
    `network_evidence`, float32 [batch, rows, columns], and `network_features`, float32 [batch, 134]."""
    program = torch.onnx.export(
        Network(predictor.members, predictor.mirror).eval(),
        (torch.zeros(2, size, size, dtype=torch.uint8),),
        input_names=["prepared"],
        output_names=["network_evidence", "network_features"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # it is None only for a path to save to
    network = program.model_proto  # made anew each time it is asked for
    network.ir_version = IR_VERSION
    graph = network.graph
    for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")  # the exporter's notes of the source lines behind it: paths of this machine
        item.ClearField("doc_string")
    return network


def preparation(size: int) -> onnx.ModelProto:
    """`image`, uint8 [batch, height, width], to `prepared`, uint8 [batch, size, size]."""
    return onnx.parser.parse_model(VERSIONS + PREPARATION.format(size=size))


def assemble(
    network: onnx.ModelProto, size: int, fitted: Typicality, slope: float = 1.0, intercept: float = 0.0
) -> onnx.ModelProto:
    """Preparation, network, head and typicality in one graph: `image` to the four outputs. slope, intercept: the
    straight line that calibrates the network's logits."""
    whole = preparation(size)
    head = onnx.parser.parse_model(VERSIONS + HEAD.format(slope=slope, intercept=intercept))
    parts = {"prepared": network, "network_evidence": head, "network_features": fitted.graph(VERSIONS)}
    for joint, part in parts.items():
        whole = onnx.compose.merge_models(whole, part, [(joint, joint)])
    del whole.opset_import[1:]  # merge_models repeats it
    whole.graph.name, whole.producer_name = "breastmnist", "breastmnist-resnet18"
    return whole


def metadata(run: Run, metrics: dict) -> dict[str, str]:
    """The file's metadata_props, all text. metrics: the run's metrics.json."""
    size, dataset = run.data["size"], " + ".join(one["hospital"] for one in run.data["sets"])
    return {
        "input": "image: uint8 [batch, height, width], grey, as stored; height and width from 8 up",
        "outputs": "probability: calibrated P(malignant), float32 [batch]; logit: its log-odds, float32 [batch]; "
        "evidence: what each position of the centre crop adds, float32 [batch, rows, columns], its mean the logit; "
        "typicality: about the share of training images that are at least as unusual, float32 [batch]",
        "preparation": f"in the graph: centre crop to the short side, antialiased bilinear resize to {size}x{size}",
        "input_size": str(size),
        "classes": json.dumps(["normal or benign", "malignant"]),
        "positive_class": "malignant",
        "threshold": repr(run.calibration.threshold),
        "threshold_rule": run.calibration.threshold_rule,
        "typicality_threshold": repr(typicality.THRESHOLD),
        "typicality_rule": typicality.RULE,
        "temperature": repr(run.calibration.temperature),
        "offset": repr(run.calibration.offset),
        "calibrated_on": " + ".join(run.calibration.chosen_on.get("hospitals", [])),
        "calibrated_on_n": str(run.calibration.chosen_on.get("n", 0)),
        "chosen_on": json.dumps(run.calibration.chosen_on),
        "achieved": json.dumps(as_json(run.calibration.achieved)),
        "fingerprints_trained_on": fingerprints.encode(run.trained_on),
        "fingerprints_chosen_on": fingerprints.encode(run.chosen_on),
        "members": str(len(run.predictor.members)),
        "mirror": "on" if run.predictor.mirror else "off",
        "dataset": "PHANTOM data (generated, not ultrasound)" if run.data["synthetic"] else dataset,
        "dataset_source": json.dumps(run.data),
        "dataset_md5": run.data["md5"],
        "metrics": json.dumps(metrics["splits"]),
        "results": json.dumps(metrics["results"]),
        "version": VERSION,
        "license": "Apache-2.0",
        "intended_use": "research only, not a medical device",
    }


def write(model: onnx.ModelProto, about: dict[str, str], path: Path) -> None:
    """Save an assembled model with its metadata, weights inside. Large weights that this does not change (see
    `as_shipped`) are kept as fp16, and cast back on loading."""
    for tensor in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= 256 and (values == values.astype(np.float16)).all():
            name = f"{tensor.name}_fp16"
            model.graph.initializer.remove(tensor)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float16), name))
            cast = onnx.helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT)
            model.graph.node.insert(0, cast)
    onnx.helper.set_model_props(model, about)
    onnx.save(model, path)


def check(path: Path) -> dict:
    """What the ONNX checker and shape inference say of a file, reloaded from disk.

    Returns: {"opset", "operator_sets", "external_data": number of tensors outside the file, "bytes"}.
    Raises: UserError on a fault, or on something that onnxruntime's web build could not take.
    """
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"the ONNX checker refuses the file, nothing is written: {one_line(str(error))}") from None
    model = onnx.load(path, load_external_data=False)
    found = {
        "opset": {entry.domain: entry.version for entry in model.opset_import}[""],
        "operator_sets": sorted({node.domain or "ai.onnx" for node in model.graph.node}),
        "external_data": sum(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer),
        "bytes": path.stat().st_size,
    }
    if found["external_data"] or found["operator_sets"] != ["ai.onnx"]:
        raise UserError(f"the file is not one of standard operators, nothing is written: {found}")
    return found
