"""The graph of the ONNX file: preparation, network and head against Pillow and PyTorch."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from common_fixtures import untrained_member
from conftest import REPO

from common import fingerprints, imagefile
from common.calibration import sigmoid
from common.deploy import graph, onnxfile
from common.errors import UserError
from common.model import Predictor, explain, predict


def test_streamlining_changes_no_answer(untrained, phantoms):
    members = untrained.predictor.members
    folded = Predictor([member.streamlined() for member in members], True)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in members.modules())  # a copy
    expected, found = (predict(predictor, phantoms.pixels) for predictor in (untrained.predictor, folded))
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5) and np.ptp(expected) > 1e-3


@pytest.mark.parametrize("size", [28, 64])
@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (29, 28), (64, 64), (90, 47), (333, 500), (500, 333)])
def test_preparation_is_pillow_s_to_one_grey_level(shape, size):
    session = onnxfile.open_session(graph.preparation(size, "square").SerializeToString(), 1)
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)  # noise: the hardest to resize
    (found,) = session.run(None, {"image": images})
    expected = np.stack([imagefile.prepare(image, size) for image in images])
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - expected).max() <= 1
    if shape == (size, size):
        assert np.array_equal(found, images)


def test_a_straight_line_moves_the_logit_and_its_probability(network, fitted, onnx_model, phantoms):
    session = onnxfile.open_session(graph.assemble({"frame": network}, 28, "square", fitted, 2.0, -0.25).SerializeToString(), 1)
    probability, logit, evidence, _ = session.run(None, {"image": phantoms.pixels})
    raw = (onnx_model.logits(phantoms.pixels) - 0.1) * 1.5, (onnx_model.evidence(phantoms.pixels) - 0.1) * 1.5
    expected = 2 * raw[0] - 0.25
    assert np.allclose(evidence, 2 * raw[1] - 0.25, atol=1e-4)
    assert np.allclose(evidence.mean((1, 2)), logit, atol=1e-5) and np.std(evidence, (1, 2)).min() > 0.02
    assert np.allclose(onnx_model.probabilities(phantoms.pixels), sigmoid(raw[0] / 1.5 + 0.1), atol=1e-6)
    assert np.allclose(logit, expected, atol=1e-4) and np.allclose(probability, sigmoid(expected), atol=1e-5)


def test_metadata_are_complete_and_of_no_machine(untrained, onnx_model):
    props = onnx_model.session.get_modelmeta().custom_metadata_map
    contract = "classes positive_class threshold threshold_rule temperature input_size dataset dataset_md5 metrics"
    assert set(props) >= {*contract.split(), "calibrated_on", "version", "license", "intended_use"}
    assert not {"metrics_at_threshold", "operating_points", "calibration"} & set(props)
    assert json.loads(props["metrics"]) == {"test": {"auc": 0.75}} and json.loads(props["results"]) == []
    assert json.loads(props["chosen_on"]) == untrained.calibration.chosen_on and props["members"] == "2"
    assert json.loads(props["achieved"]) == untrained.calibration.achieved
    assert (props["dataset"], props["calibrated_on"], props["calibrated_on_n"]) == ("own", "own", "12")
    assert str(REPO).encode() not in onnx_model.path.read_bytes()


def test_a_file_knows_what_it_was_trained_on_by_fingerprints_alone(onnx_model, phantoms):
    marks = fingerprints.fingerprint(phantoms.pixels)
    assert np.array_equal(onnx_model.trained_on, marks[:24]) and np.array_equal(onnx_model.chosen_on, marks[24:36])


def test_several_hospitals_are_named(untrained):
    sets = [{"spec": f"/data/{name}", "hospital": name, "md5": name} for name in ("busi", "breast")]
    several = replace(untrained, data=untrained.data | {"sets": sets})
    about = graph.metadata(several, {"splits": {}, "results": [{"auc": None}]})
    assert about["dataset"] == "busi + breast" and json.loads(about["dataset_source"])["sets"] == sets
    assert json.loads(about["results"]) == [{"auc": None}]


def test_file_stands_by_itself(onnx_model):
    found = graph.check(onnx_model.path)
    assert found["external_data"] == 0 and found["operator_sets"] == ["ai.onnx"]
    assert found["opset"] == graph.OPSET and found["bytes"] == onnx_model.path.stat().st_size
    (entry,) = onnx_model.session.get_inputs()
    assert (entry.name, entry.type, entry.shape) == ("image", "tensor(uint8)", ["batch", "height", "width"])
    outputs = [(output.name, output.type, output.shape) for output in onnx_model.session.get_outputs()]
    shapes = {"probability": ["batch"], "logit": ["batch"], "evidence": ["batch", 7, 7], "typicality": ["batch"]}
    assert outputs == [(name, "tensor(float)", shape) for name, shape in shapes.items()]


def test_what_the_checker_refuses_is_one_line(onnx_model, tmp_path):
    broken = onnx.load(onnx_model.path)
    broken.graph.node[0].op_type = "Nonsense"
    onnx.save(broken, tmp_path / "broken.onnx")
    with pytest.raises(UserError, match="checker refuses the file"):
        graph.check(tmp_path / "broken.onnx")


def test_predictor_without_mirror_exports_too(phantoms):
    predictor = Predictor([untrained_member(3)], mirror=False)
    session = onnxfile.open_session(graph.export_networks(predictor, 28)["frame"].SerializeToString(), 1)
    for found, expected in zip(session.run(None, {"frame_prepared": phantoms.pixels}), explain(predictor, phantoms.pixels)):
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_features_are_those_of_the_first_member_in_fp32_and_near_them_in_int8(shipped, network, quantized, phantoms):
    alone = Predictor(shipped.predictor.members[:1], mirror=False)
    _, expected = explain(alone, phantoms.pixels)
    assert expected.shape == (48, 134) and expected.std(0).max() > 0.01
    for model, tolerance in ((network, 1e-4), (quantized, 0.1)):
        session = onnxfile.open_session(model.SerializeToString(), 1)
        (found,) = session.run(["frame_features"], {"frame_prepared": phantoms.pixels})
        assert np.allclose(found, expected, rtol=tolerance, atol=tolerance)
