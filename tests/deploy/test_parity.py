from dataclasses import replace

import numpy as np
import pytest

from common.deploy import graph, parity
from common.errors import UserError


def test_bounds():
    row = parity.Row("val", 10, 1, 1e-6, 0, 0.0)
    assert row.acceptable
    bad = {"max_difference": 2e-5, "labels_differ": 1, "auc_difference": 1e-5}
    for name, value in bad.items() | {("max_difference", np.nan), ("auc_difference", np.nan)}:
        with pytest.raises(UserError, match=name):
            parity.require([row, replace(row, **{name: value})])
    size = parity.SizeRow(40, 30, 4, 1, 0.01, 0.01)
    assert size.acceptable and not replace(size, max_grey_difference=2).acceptable
    assert not replace(size, max_difference=0.03).acceptable


def test_every_image_is_compared_and_a_difference_is_seen(untrained, onnx_model, phantoms):
    rows = parity.of_splits(onnx_model, {"train": phantoms}, {"train": untrained.probabilities(phantoms.images)})
    assert [(row.n, row.batch) for row in rows] == [(48, 1), (48, 64)]
    parity.require(rows)
    expected = untrained.probabilities(phantoms.images)
    found = expected.copy()
    found[-1] += 1e-3
    row = parity.compare("train", phantoms, expected, found, 1, (expected[-1] + 5e-4,))
    assert row.max_difference == pytest.approx(1e-3) and row.labels_differ == 1 and not row.acceptable


def test_one_class_has_no_auc_and_none_is_missed(phantoms):
    split = phantoms[phantoms.labels == 1]
    row = parity.compare("test", split, np.full(16, 0.3), np.full(16, 0.3), 1, (0.5,))
    assert row.acceptable


def test_another_preparation_is_seen(onnx_model, network, monkeypatch):
    monkeypatch.setattr(parity, "SIZES", ((90, 60),))
    preparation = graph.preparation(network, 28)
    own, other = parity.of_sizes(onnx_model, preparation, 28)
    assert own.max_grey_difference == 0 and other.acceptable
    (resize,) = (node for node in preparation.graph.node if node.op_type == "Resize")
    for attribute in resize.attribute:
        if attribute.name in ("antialias", "exclude_outside"):
            attribute.i = 0
    with pytest.raises(UserError, match="max_grey_difference"):
        parity.require(parity.of_sizes(onnx_model, preparation, 28))
