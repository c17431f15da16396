"""Writing an .onnx file so that every runtime can take its optional input."""

from pathlib import Path

import onnx

BOX = "box"


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model as `serialized`."""
    path.write_bytes(serialized(model))


def serialized(model: onnx.ModelProto) -> bytes:
    """The bytes of a file. Where the input `box` has a default, the default comes first, in a message of its own.

    Protocol buffers join both messages into one graph, so that Python callers may leave `box` out. JavaScript's
    onnxruntime takes no input that has a default: a page cuts the first message off, and `box` is an ordinary input.
    """
    rest, first = onnx.ModelProto(), onnx.ModelProto()
    rest.CopyFrom(model)
    for tensor in [tensor for tensor in rest.graph.initializer if tensor.name == BOX]:
        first.graph.initializer.append(tensor)
        rest.graph.initializer.remove(tensor)
    return first.SerializeToString() + rest.SerializeToString()
