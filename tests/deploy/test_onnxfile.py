import json

import numpy as np
import onnx
import pytest
from common_fixtures import with_metadata

from common.deploy import onnxfile
from common.errors import UserError


def test_an_earlier_file_has_no_evidence(onnx_model, phantoms, tmp_path):
    earlier = onnx.load(onnx_model.path)
    del earlier.graph.output[2:]  # neither evidence nor typicality
    onnx.save(earlier, tmp_path / "earlier.onnx")
    with pytest.raises(UserError, match="an earlier export, which gives no evidence; export the run again"):
        onnxfile.load(tmp_path / "earlier.onnx", 1).evidence(phantoms.images)


@pytest.mark.parametrize("kept", ['{"val": {"recall": 1}}', '{"val": 3}', "[]", '{"val": {"recall": "high"}}'])
def test_damaged_rates_are_refused_and_undefined_ones_are_not(onnx_model, kept, tmp_path):
    def store(text: str) -> onnxfile.OnnxModel:
        return onnxfile.load(with_metadata(onnx_model.path, tmp_path / "model.onnx", metrics_at_threshold=text), 1)

    with pytest.raises(UserError, match="without this"):
        store(kept)
    rates = {"recall": 0.95, "recall_ci95": [0.9, 1.0], "specificity": None, "specificity_ci95": [None, None]}
    found = store(json.dumps({"val": rates | {"recall": 0.5}, "out_of_fold": rates, "test": {}})).held_out
    assert found["recall"] == 0.95 and found["recall_ci95"] == [0.9, 1.0] and np.isnan(found["specificity"])


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"text")
    with pytest.raises(UserError, match="not an ONNX file"):
        onnxfile.load(tmp_path / "no.onnx", 1)
