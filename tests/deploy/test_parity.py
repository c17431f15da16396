from dataclasses import replace

import numpy as np
import pytest

from common.deploy import graph, parity, typicality
from common.errors import UserError


def test_every_image_is_compared_and_a_difference_is_seen(shipped, onnx_model, fitted, phantoms, monkeypatch):
    monkeypatch.setattr(parity, "SIZES", ((90, 60),))
    reference = parity.expect(shipped, {"train": phantoms})
    checked = parity.check(onnx_model, reference, fitted)
    assert [(row["n"], row["batch"]) for row in checked["rows"]] == [(48, 1), (48, 64)]
    expected, last = reference["train"], np.eye(48)[-1]
    calibration = replace(shipped.calibration, threshold=expected.probabilities[-1] + 5e-4)
    other = expected._replace(
        probabilities=expected.probabilities + 1e-3 * last,
        evidence=[expected.evidence[0] + 0.49 * last[:, np.newaxis, np.newaxis]],
        textures=expected.textures + 99 * last[:, np.newaxis],
    )
    row = parity.compare_split(replace(onnx_model, calibration=calibration), "train", other, fitted, 1)
    assert row["max_difference"] == pytest.approx(1e-3, rel=0.01) and row["labels_differ"] == 1
    assert row["evidence_difference"] == pytest.approx(0.49, abs=1e-4)
    typical = fitted.p_values(expected.textures)[-1]
    assert row["typicality_difference"] == pytest.approx(typical - 1 / 49, abs=1e-6) and typical > 0.1
    logits = onnx_model.run(["logit"], phantoms.pixels)[0]
    assert parity.mean_from_logit(logits + 0.01 * last, expected.evidence) == pytest.approx(0.01, abs=1e-4)


def test_what_rounded_weights_change_is_bounded(untrained, shipped, phantoms, monkeypatch):
    reference = parity.expect(shipped, {"train": phantoms})
    (row,) = parity.compare_rounding(untrained, reference)
    assert 0 < row["max_difference"] < 1e-3
    monkeypatch.setitem(parity.ROUNDING_BOUND, "max_difference", row["max_difference"] / 2)
    with pytest.raises(UserError, match="max_difference"):
        parity.compare_rounding(untrained, reference)


@pytest.mark.parametrize("bounds", [parity.SPLIT_BOUNDS, parity.SIZE_BOUNDS, parity.FINDER_BOUND])
def test_bounds(bounds):
    parity.require([bounds], bounds)
    for name, bound in bounds.items():
        for value in (bound * 1.01 + 1e-9, np.nan):
            with pytest.raises(UserError, match=name):
                parity.require([bounds, bounds | {name: value}], bounds)


def test_only_pairs_that_are_clearly_apart_count_as_swapped():
    labels, expected = np.array([1, 0, 0]), np.array([0.5, 0.5 - 1e-6, 0.4])
    assert parity.share_of_swapped_pairs(labels, expected, expected[[1, 0, 2]]) == 0
    assert parity.share_of_swapped_pairs(labels, expected, expected[[2, 1, 0]]) == 0.5


def test_one_class_has_no_auc_and_none_is_missed(shipped, onnx_model, fitted, phantoms):
    reference = parity.expect(shipped, {"test": phantoms[phantoms.labels == 1]})
    row = parity.compare_split(onnx_model, "test", reference["test"], fitted, 64)
    assert row["auc_difference"] == 0
    parity.require([row], parity.SPLIT_BOUNDS | {"typicality_difference": 1.5 / 49})


def test_another_preparation_is_seen(onnx_model, monkeypatch):
    monkeypatch.setattr(parity, "SIZES", ((90, 60),))
    own, other = parity.compare_sizes(onnx_model)
    assert own["max_grey_difference"] == 0
    parity.require([own, other], parity.SIZE_BOUNDS)
    of_frames = graph.preparation(28, "frame")
    monkeypatch.setattr(graph, "preparation", lambda size, view: of_frames)
    with pytest.raises(UserError, match="max_grey_difference"):
        parity.require(parity.compare_sizes(onnx_model), parity.SIZE_BOUNDS)


def test_a_file_that_looks_for_lesions_is_compared_at_the_same_windows_and_its_finder_apart(
    finding, lesion_model, framed, monkeypatch
):
    monkeypatch.setattr(parity, "SIZES", ((90, 60),))
    shipped = replace(finding, predictor=graph.as_shipped(finding.predictor, fp16=False))
    reference = parity.expect(shipped, {"train": framed})
    expected = reference["train"]
    assert [maps.shape for maps in expected.evidence] == [(6, 4, 4), (6, 7, 7)]
    assert expected.textures.shape == (6, 136)
    fitted = typicality.fit(expected.textures, framed.groups, framed.hospitals)
    checked = parity.check(lesion_model, reference, fitted)
    assert [(row["n"], row["batch"]) for row in checked["rows"]] == [(6, 1), (6, 64)]
    assert checked["finders"] == [{"split": "train", "n": 6, "windows_differ": 0}]
    assert [row["max_difference"] for row in checked["sizes"]] == [0, 0]

    evidence = [expected.evidence[0], expected.evidence[1] + np.float32(0.49)]  # of the frame's network
    row = parity.compare_split(lesion_model, "train", expected._replace(evidence=evidence), fitted, 1)
    assert row["evidence_difference"] == pytest.approx(0.49, abs=1e-3) and row["max_difference"] < 1e-5
    boxes = expected.look.boxes.copy()
    boxes[2] += [3, 0, 0, 0]
    elsewhere = expected._replace(look=expected.look._replace(boxes=boxes))
    assert parity.compare_finders(lesion_model, "train", elsewhere)["windows_differ"] == pytest.approx(1 / 6)
    row = parity.compare_split(lesion_model, "train", elsewhere, fitted, 1)
    assert row["max_difference"] > 1e-5  # it looks where it is told
    with pytest.raises(UserError, match="windows_differ"):
        parity.check(lesion_model, {"train": elsewhere}, fitted)
