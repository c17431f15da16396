"""The network-only file of the view lesion, beside the whole file and PyTorch."""

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest

from common import looks, phantom
from common.deploy import graph, metadata, modelfile, onnxfile, parity, plain
from common.errors import UserError
from common.model import BreastResNet, Predictor, explain, predict


@pytest.fixture(scope="module")
def path(finding, tmp_path_factory):
    """The network-only file of `finding`."""
    path = tmp_path_factory.mktemp("plain") / "model.plain.onnx"
    shipped = replace(finding, predictor=graph.as_shipped(finding.predictor, fp16=False))
    plain.write(shipped, metadata.describe(finding, {"splits": {}, "results": []}), path)
    return path


def test_window_and_frame_give_the_logit_of_the_whole_file_and_the_heat_of_the_finder(
    path, finding, lesion_model, framed
):
    expected = parity.expect(finding, {"train": framed})["train"]
    (row,) = plain.check(path, lesion_model, expected, 1)
    assert row["n"] == 6 and row["max_difference"] <= 1e-5
    session = onnxfile.open_session(str(path), 1)
    seen = looks.look(finding.predictor, framed)
    for i, heat in enumerate(explain(finding.predictor.finder, framed.pixels).heat):
        pictures = {"window": seen.images.windows, "frame": seen.images.pixels}
        fed = {name: pixels[i : i + 1, np.newaxis] / np.float32(255) for name, pixels in pictures.items()}
        fed["extents"] = seen.extents[i : i + 1]
        (found,) = session.run(["heat"], fed)
        np.testing.assert_allclose(found[0, 0], heat, atol=1e-5)


def test_what_it_takes_and_gives_is_in_its_metadata(path):
    modelfile.check(path)
    model = onnx.load(path)
    ends = [*model.graph.input, *model.graph.output]
    shapes = {end.name: [d.dim_value for d in end.type.tensor_type.shape.dim] for end in ends}
    pictures = {"window": [1, 1, 28, 28], "frame": [1, 1, 28, 28]}
    assert shapes == pictures | {"extents": [1, 2], "logit": [1, 1], "heat": [1, 1, 14, 14]}
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert all(f"{name}: float32 [1, 1, 28, 28]" in about["input"] for name in ("window", "frame"))
    assert "extents: float32 [1, 2], the natural logarithms" in about["input"]
    assert about["threshold"] == "0.4" and "heat" in about["outputs"] and "typicality_rule" not in about


def test_its_tests_have_extents_that_change_the_answer(path):
    pictures, answers = plain.answer_tests(path, 1)
    assert list(pictures) == ["window", "frame"] and answers["extents"].shape == (3, 2)
    square = np.broadcast_to(answers["extents"][:1], (3, 2))
    others = plain.answer(path, pictures | {"extents": square}, 1)
    added = (answers["extents"] - square) @ [-0.8, 1.4] / 2 / 1.5  # the layer of `finding`, and its temperature
    np.testing.assert_allclose(answers["logit"] - others, added, atol=1e-5)


def test_other_pictures_and_other_operators_are_refused(path, finding, lesion_model, framed, monkeypatch):
    expected = parity.expect(finding, {"train": framed})["train"]
    swapped = replace(expected.look.images, windows=expected.look.images.pixels)
    with pytest.raises(UserError, match="differs from PyTorch"):
        plain.check(path, lesion_model, expected._replace(look=expected.look._replace(images=swapped)), 1)
    monkeypatch.setattr(plain, "OPERATORS", plain.OPERATORS - {"MatMul"})
    with pytest.raises(UserError, match="converters may refuse MatMul"):
        plain.check(path, lesion_model, expected, 1)


def test_predict_and_others_say_which_file_they_take(path):
    with pytest.raises(UserError, match=re.escape("not FILE.plain.onnx")):
        onnxfile.load(path, 1)


def test_larger_pictures_need_no_other_operators(finding):
    predictor = graph.as_shipped(Predictor([BreastResNet(128, 2).eval()], mirror=True), fp16=False)
    larger = replace(finding, predictor=predictor, data={"size": 128, "view": "frame"})
    model = plain.export(larger)
    assert {node.op_type for node in model.graph.node} <= plain.OPERATORS
    image = phantom.generate(1, 128, seed=0)[0]
    session = onnxfile.open_session(model.SerializeToString(), 1)
    (found,) = session.run(["logit"], {"frame": image[:, np.newaxis] / np.float32(255)})
    assert np.allclose(found[0], predict(predictor, image) / 1.5 + 0.1, atol=1e-5)
