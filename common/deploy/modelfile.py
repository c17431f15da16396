"""Write an .onnx file so that every runtime can use the optional input `box`, and check the file."""

from pathlib import Path

import onnx

from common.errors import UserError, one_line

BOX = "box"


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model to a path, as `serialized`."""
    path.write_bytes(serialized(model))


def serialized(model: onnx.ModelProto) -> bytes:
    """Return the bytes of an .onnx file. A default of the input `box` comes first, in a separate message.

    Protocol buffers join both messages into one graph, so Python callers can omit `box`. The onnxruntime of JavaScript
    takes no input with a default: a page cuts off the first message, and `box` is then an ordinary input.
    """
    rest, first = onnx.ModelProto(), onnx.ModelProto()
    rest.CopyFrom(model)
    for tensor in [tensor for tensor in rest.graph.initializer if tensor.name == BOX]:
        first.graph.initializer.append(tensor)
        rest.graph.initializer.remove(tensor)
    return first.SerializeToString() + rest.SerializeToString()


def check(path: Path) -> dict:
    """Check a file on disk with the ONNX checker and shape inference.

    Returns: {"opset", "operator_sets", "external_data": number of tensors outside the file, "bytes"}.
    Raises: UserError on a fault, non-standard operators or external data, which the web build of onnxruntime refuses.
    """
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"the ONNX checker refuses the file: {one_line(str(error))}. Nothing is written.") from None
    model = onnx.load(path, load_external_data=False)
    found = {
        "opset": {entry.domain: entry.version for entry in model.opset_import}[""],
        "operator_sets": sorted({node.domain or "ai.onnx" for node in model.graph.node}),
        "external_data": sum(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer),
        "bytes": path.stat().st_size,
    }
    if found["external_data"] or found["operator_sets"] != ["ai.onnx"]:
        raise UserError(f"the file has operators that are not standard: {found}. Nothing is written.")
    return found
