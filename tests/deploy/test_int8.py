from dataclasses import replace

import numpy as np
import onnx
import pytest

from common.deploy import int8


def test_convolutions_but_the_stem_are_int8(network, quantized):
    types = {tensor.name: tensor.data_type for tensor in quantized.graph.initializer}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    weights = [name for name, kind in types.items() if kind == onnx.TensorProto.INT8 and values[name].ndim == 4]
    convolutions = {node.input[1] for node in network.graph.node if node.op_type == "Conv"}
    assert len(weights) == len(convolutions) - 2  # two members, a stem each; both views share weights
    assert all(np.abs(values[name].astype(int)).max() <= 64 for name in weights)  # seven bits
    scales = [node.input[1] for node in quantized.graph.node if node.input and node.input[0] in weights]
    assert all(values[scale].ndim == 1 for scale in scales)  # per channel
    zero_points = [node.input[2] for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert {types[name] for name in zero_points} == {onnx.TensorProto.UINT8}
    assert quantized.ByteSize() < 0.4 * network.ByteSize()


def test_answers_follow_fp32(network, quantized, phantoms):
    exact, rough = (int8.logits(model, phantoms.images, 1) for model in (network, quantized))
    assert 0.9 < np.corrcoef(exact, rough)[0, 1] and np.abs(exact - rough).max() > 0


def test_straight_line():
    logits = np.array([-2.0, 0.0, 1.0, 3.0])
    assert int8.straight_line(logits, 1.1 * logits - 0.2) == pytest.approx((1.1, -0.2))
    assert int8.straight_line(np.full(4, 2.0), logits) == (1.0, -1.5)
    assert int8.straight_line(logits, -logits)[0] == 1.0  # the order of images stays


def test_agreement_and_bounds():
    labels, expected = np.array([1] * 50 + [0] * 150), np.linspace(0.9, 0.1, 200)
    found = expected.copy()
    found[[0, 1, 2]] = 0.05  # two more of 200 than 99 % allow one of
    row = int8.compare(int8.DECIDING, labels, expected, found, (0.5, 0.07))
    assert row.agreement == 1 - 3 / 200 and row.auc_loss == pytest.approx(3 / 50) and not row.acceptable
    assert replace(row, agreement=0.99, auc_loss=0.005).acceptable
    assert not replace(row, auc_loss=0.0).acceptable and not replace(row, agreement=1.0).acceptable
    assert replace(row, split="test").acceptable and replace(row, split="val").acceptable  # which decide nothing alone
    assert "98.50% of 200 labels" in int8.refusal([row])
