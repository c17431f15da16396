"""The graph of the ONNX file: preparation, network and head against Pillow and PyTorch."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from common_fixtures import untrained_member
from conftest import REPO
from PIL import Image

from common import fingerprints, imagefile, looks, phantom
from common.calibration import sigmoid
from common.deploy import graph, metadata, modelfile, onnxfile
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
    found, boxes, sure = session.run(None, {"image": images})
    expected = np.stack([imagefile.prepare(image, size) for image in images])
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - expected).max() <= 1
    rows, columns = imagefile.centre(*shape)
    side = columns.stop - columns.start
    assert boxes.tolist() == [[columns.start, rows.start, side, side]] * 3 and sure.tolist() == [1] * 3
    if shape == (size, size):
        assert np.array_equal(found, images)


def test_a_straight_line_moves_the_logit_and_its_probability(network, fitted, onnx_model, phantoms):
    session = onnxfile.open_session(
        graph.assemble({"frame": network}, 28, "square", fitted, 2.0, -0.25).SerializeToString(), 1
    )
    probability, logit, evidence = session.run(["probability", "logit", "evidence"], {"image": phantoms.pixels})
    maps, _ = onnx_model.evidence(phantoms)
    raw = (onnx_model.run(["logit"], phantoms.pixels)[0] - 0.1) * 1.5, (maps - 0.1) * 1.5
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
    about = metadata.describe(several, {"splits": {}, "results": [{"auc": None}]})
    assert about["dataset"] == "busi + breast" and json.loads(about["dataset_source"])["sets"] == sets
    assert json.loads(about["results"]) == [{"auc": None}]


def test_file_stands_by_itself(onnx_model):
    found = modelfile.check(onnx_model.path)
    assert found["external_data"] == 0 and found["operator_sets"] == ["ai.onnx"]
    assert found["opset"] == graph.OPSET and found["bytes"] == onnx_model.path.stat().st_size
    (entry,) = onnx_model.session.get_inputs()
    assert (entry.name, entry.type, entry.shape) == ("image", "tensor(uint8)", ["batch", "height", "width"])
    outputs = [(output.name, output.type, output.shape) for output in onnx_model.session.get_outputs()]
    shapes = {"probability": ["batch"], "logit": ["batch"], "evidence": ["batch", 7, 7], "typicality": ["batch"]}
    shapes |= {"window": ["batch", 4], "found": ["batch"]}
    assert outputs == [(name, "tensor(float)", shape) for name, shape in shapes.items()]


def test_what_the_checker_refuses_is_one_line(onnx_model, tmp_path):
    broken = onnx.load(onnx_model.path)
    broken.graph.node[0].op_type = "Nonsense"
    onnx.save(broken, tmp_path / "broken.onnx")
    with pytest.raises(UserError, match="checker refuses the file"):
        modelfile.check(tmp_path / "broken.onnx")


def test_predictor_without_mirror_exports_too(phantoms):
    predictor = Predictor([untrained_member(3)], mirror=False)
    session = onnxfile.open_session(graph.export_networks(predictor, 28)["frame"].SerializeToString(), 1)
    evidence, texture, _ = explain(predictor, phantoms.pixels)
    made = session.run(["frame_evidence", "frame_features"], {"frame_prepared": phantoms.pixels})
    for found, expected in zip(made, (evidence[0], texture)):
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_features_are_those_of_the_first_member_in_fp32_and_near_them_in_int8(shipped, network, quantized, phantoms):
    alone = Predictor(shipped.predictor.members[:1], mirror=False)
    expected = explain(alone, phantoms.pixels).texture.numpy()
    assert expected.shape == (48, 134) and expected.std(0).max() > 0.01
    for model, tolerance in ((network, 1e-4), (quantized, 0.1)):
        session = onnxfile.open_session(model.SerializeToString(), 1)
        (found,) = session.run(["frame_features"], {"frame_prepared": phantoms.pixels})
        assert np.allclose(found, expected, rtol=tolerance, atol=tolerance)


# the view lesion


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Three phantoms of 90 × 120."""
    return np.ascontiguousarray(phantom.generate(3, 120, seed=8, malignant_share=1)[0][:, :90])


def named(model: onnxfile.OnnxModel, images: np.ndarray, boxes=None) -> dict[str, np.ndarray]:
    """All outputs. boxes: what the input box gets, as it is; None leaves it out."""
    outputs = [output.name for output in model.session.get_outputs()]
    fed = {"image": images} | ({} if boxes is None else {"box": np.float32(boxes)})
    return dict(zip(outputs, model.session.run(outputs, fed)))


@pytest.mark.parametrize("given", [False, True])
def test_a_file_that_looks_for_lesions_answers_as_its_run(finding, lesion_model, framed, given):
    expected, found = (model.answer(framed, given) for model in (finding, lesion_model))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(found.windows, expected.windows, atol=1e-6)
    np.testing.assert_allclose(found.found, expected.found, atol=1e-5)
    assert found.found[:4].tolist() == [1] * 4 or not given
    other = finding.answer(framed, not given)
    assert np.abs(other.probabilities - expected.probabilities)[:4].min() > 1e-4  # by other windows


def test_a_box_may_be_left_out_or_given_once_or_for_each_image(lesion_model, frames):
    box, other, none = [30, 25, 24, 18], [5, 10.5, 30, 20], [np.nan] * 4
    found, at_box, at_other = (named(lesion_model, frames, boxes) for boxes in (None, [box], [other]))
    assert (found["found"] < 1).all() and np.ptp(found["probability"]) > 1e-4
    partly, flat = [10, np.nan, 30, 20], [10, 20, 30, 0]  # no boxes either
    for same, boxes in ((found, [none]), (found, [none, partly, flat]), (at_box, [box] * 3)):
        for name, values in named(lesion_model, frames, boxes).items():
            np.testing.assert_allclose(values, same[name], atol=1e-6, err_msg=name)
    for name, values in named(lesion_model, frames, [other, none, box]).items():
        for i, same in enumerate((at_other, found, at_box)):
            np.testing.assert_allclose(values[i], same[name][i], atol=1e-5, err_msg=name)
    assert at_box["found"].tolist() == [1] * 3 and at_box["window"].tolist() == [[12, 4, 60, 60]] * 3
    assert at_other["window"].tolist() == [[-17.5, -17, 75, 75]] * 3
    assert np.abs(at_box["probability"] - at_other["probability"]).min() > 1e-4


def test_the_means_of_both_maps_are_the_logit_and_each_map_is_its_network_s(finding, lesion_model, framed):
    names = ["logit", "evidence", "evidence_frame", "probability"]
    logit, *maps, probability = lesion_model.run_images(names, framed)
    assert np.allclose((maps[0].mean((1, 2)) + maps[1].mean((1, 2))) / 2, logit, atol=1e-5)
    assert np.allclose(sigmoid(logit), probability, atol=1e-6)
    assert [m.shape[1:] for m in maps] == [(4, 4), (7, 7)] and abs(maps[0].mean() - maps[1].mean()) > 0.01
    seen = looks.look(finding.predictor, framed).inputs
    expected = [own.numpy() / 1.5 + 0.1 for own in explain(finding.predictor, *seen).evidence]
    for found, own in zip(maps, expected, strict=True):
        np.testing.assert_allclose(found, own, atol=1e-3)
    for model in (finding, lesion_model):
        evidence, windows = model.evidence(framed)
        np.testing.assert_allclose(evidence, expected[0], atol=1e-3)
        np.testing.assert_allclose(windows, finding.answer(framed).windows, atol=1e-6)


def test_a_file_that_looks_for_lesions_stands_by_itself_and_says_what_it_takes(lesion_model):
    assert modelfile.check(lesion_model.path)["operator_sets"] == ["ai.onnx"] and lesion_model.view == "lesion"
    (image,), (box,) = lesion_model.session.get_inputs(), lesion_model.session.get_overridable_initializers()
    assert (image.name, image.shape) == ("image", ["batch", "height", "width"])
    assert (box.name, box.type, box.shape[1]) == ("box", "tensor(float)", 4)
    shapes = {"probability": ["batch"], "logit": ["batch"], "evidence": ["batch", 4, 4]}
    shapes |= {"evidence_frame": ["batch", 7, 7], "typicality": ["batch"], "window": ["batch", 4], "found": ["batch"]}
    outputs = {output.name: output.shape for output in lesion_model.session.get_outputs()}
    assert outputs == shapes and list(outputs) == list(shapes)
    props = lesion_model.session.get_modelmeta().custom_metadata_map
    assert "box, which may be left out" in props["input"] and "evidence_frame" in props["outputs"]
    assert props["view"] == "lesion" and "of the window and of the frame" in props["preparation"]


def test_the_default_of_box_is_a_message_of_its_own_that_javascript_may_cut_off(lesion_model, frames):
    content = lesion_model.path.read_bytes()
    whole = onnx.load_model_from_string(content)
    (default,) = (tensor for tensor in whole.graph.initializer if tensor.name == "box")
    first = onnx.ModelProto()
    first.graph.initializer.append(default)
    assert (
        content.startswith(start := first.SerializeToString()) and np.isnan(onnx.numpy_helper.to_array(default)).all()
    )
    session = onnxfile.open_session(content[len(start) :], 1)
    assert [entry.name for entry in session.get_inputs()] == ["image", "box"]
    (found,) = session.run(["logit"], {"image": frames, "box": np.full((1, 4), np.nan, np.float32)})
    assert np.array_equal(found, lesion_model.run(["logit"], frames)[0])


@pytest.mark.parametrize("shape", [(8, 8), (29, 28), (90, 47), (333, 500)])
def test_the_whole_frame_is_prepared_as_pillow_squashes_it(shape):
    session = onnxfile.open_session(graph.preparation(28, "frame").SerializeToString(), 1)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    found, boxes, sure = session.run(None, {"image": images})
    expected = np.stack([np.asarray(Image.fromarray(i).resize((28, 28), Image.Resampling.BILINEAR)) for i in images])
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - expected).max() <= 1
    assert boxes.tolist() == [[0, 0, shape[1], shape[0]]] * 2 and sure.tolist() == [1, 1]
