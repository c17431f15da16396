"""Write an .onnx file so that every runtime can use the optional input `box`."""

from pathlib import Path

import onnx

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
