from contextlib import nullcontext

import numpy as np
import onnx
import pytest

from common.deploy import graph, int8, onnxfile, parity
from common.errors import UserError


def test_convolutions_but_the_stem_are_int8(network, quantized):
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    weights = {name: value for name, value in values.items() if value.dtype == np.int8 and value.ndim == 4}
    convolutions = {node.input[1] for node in network.graph.node if node.op_type == "Conv"}
    assert len(weights) == len(convolutions) - 2  # two members, a stem each; both views share weights
    assert all(np.abs(value.astype(int)).max() <= 64 for value in weights.values())  # seven bits
    scales = [node.input[1] for node in quantized.graph.node if node.input and node.input[0] in weights]
    assert all(values[scale].ndim == 1 for scale in scales)  # per channel
    activations = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert {values[node.input[2]].dtype for node in activations} == {np.dtype(np.uint8)}
    assert quantized.ByteSize() < 0.4 * network.ByteSize()


def test_answers_follow_fp32(onnx_model, quantized, fitted, phantoms):
    session = onnxfile.open_session(graph.assemble({"frame": quantized}, 28, "square", fitted).SerializeToString(), 1)
    (rough,) = session.run(["logit"], {"image": phantoms.pixels})
    exact = onnx_model.run(["logit"], phantoms.pixels)[0]
    assert 0.9 < np.corrcoef(exact, rough)[0, 1] and np.abs(exact - rough).max() > 0


def test_straight_line():
    logits = np.array([-2.0, 0.0, 1.0, 3.0])
    assert int8.straight_line(logits, 1.1 * logits - 0.2) == pytest.approx((1.1, -0.2))
    assert int8.straight_line(np.full(4, 2.0), logits) == (1.0, -1.5)
    assert int8.straight_line(logits, -logits)[0] == 1.0  # the order of images stays


def test_agreement_and_what_is_lost():
    labels, expected = np.array([1] * 50 + [0] * 150), np.linspace(0.9, 0.1, 200)
    found = expected.copy()
    found[[0, 1, 2]] = 0.05  # two more of 200 than 99 % allow one of
    row = int8.compare_split("train+val", labels, expected, found, (0.5, 0.07))
    assert row["agreement"] == 1 - 3 / 200 and row["auc_loss"] == pytest.approx(3 / 50)


@pytest.fixture
def reference(untrained, phantoms):
    """Three splits of the same images."""
    return dict.fromkeys(("train", "val", "test"), parity.expect(untrained, {"all": phantoms})["all"])


def test_train_and_val_decide_together_and_test_does_not(onnx_model, reference, monkeypatch):
    other = reference["test"]._replace(probabilities=1 - reference["test"].probabilities)
    checked = int8.check(onnx_model, reference | {"test": other}, (1.0, 0.0))
    assert [(row["split"], row["n"]) for row in checked["rows"]] == [
        ("train", 48), ("val", 48), ("test", 48), (int8.DECIDING, 96)
    ]  # fmt: skip
    assert checked["rows"][2]["max_difference"] > 0 and checked["rows"][3]["agreement"] == 1
    compared = dict(checked["rows"][3])
    monkeypatch.setattr(int8, "compare_split", lambda *_: compared)
    for agreement, loss, refused in ((0.99, 0.005, False), (0.99, np.nan, False), (0.98, 0, True), (1, 0.006, True)):
        compared |= {"agreement": agreement, "auc_loss": loss}
        with pytest.raises(UserError, match=f"train.val, {agreement:.2%} of 96") if refused else nullcontext():
            int8.check(onnx_model, reference, (1.0, 0.0))


def test_the_mean_of_the_evidence_is_the_logit_or_nothing_is_written(onnx_model, reference, monkeypatch):
    monkeypatch.setattr(parity, "mean_from_logit", lambda *_: 2 * parity.MEAN_BOUND["mean_from_logit"])
    with pytest.raises(UserError, match="mean_from_logit"):
        int8.check(onnx_model, reference, (1.0, 0.0))
