import numpy as np
import pytest

from common.calibration import sigmoid
from common.deploy import graph, onnxfile
from common.errors import UserError


def test_outputs_agree_with_each_other(onnx_model, phantoms):
    assert np.allclose(
        onnx_model.probabilities(phantoms.images), sigmoid(onnx_model.logits(phantoms.images)), atol=1e-6
    )


def test_what_is_no_model_of_ours_is_refused(network, tmp_path):
    for path, content in {"no.onnx": b"text", "bare.onnx": graph.assemble(network, 28).SerializeToString()}.items():
        (tmp_path / path).write_bytes(content)
    for path, message in {"absent": "no such", "no.onnx": "not an ONNX", "bare.onnx": "without this"}.items():
        with pytest.raises(UserError, match=message):
            onnxfile.load(tmp_path / path, 1)
