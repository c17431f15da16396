import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from common_fixtures import with_metadata
from PIL import Image

from common import data, imagefile, phantom
from common.deploy import onnxfile
from common.errors import UserError


@pytest.mark.parametrize("output", range(6))
def test_a_file_that_lacks_an_output_as_those_of_earlier_versions_do_is_refused(onnx_model, tmp_path, output):
    earlier = onnx.load(onnx_model.path)
    del earlier.graph.output[output]
    onnx.save(earlier, tmp_path / "earlier.onnx")
    with pytest.raises(UserError, match="has other inputs and outputs than .* or export the run again"):
        onnxfile.load(tmp_path / "earlier.onnx", 1)


def copied(onnx_model, folder, **about: str) -> onnxfile.OnnxModel:
    return onnxfile.load(with_metadata(onnx_model.path, folder / "model.onnx", **about), 1)


def test_a_file_says_what_its_run_says(untrained, onnx_model):
    assert onnx_model.calibration == untrained.calibration and onnx_model.data == untrained.data
    assert onnx_model.calibration.achieved_together["recall_ci95"] == [0.8, 1.0]


RATES = {
    "hospital": "a",
    "recall": 0.95,
    "recall_ci95": [0.9, 1.0],
    "specificity": None,
    "specificity_ci95": [None] * 2,
}


@pytest.mark.parametrize("achieved", ["3", "{}", '[{"recall": 1}]', "[3]", json.dumps([RATES | {"recall": "high"}])])
def test_damaged_rates_are_refused_and_undefined_ones_are_not(onnx_model, achieved, tmp_path):
    with pytest.raises(UserError, match="has no metadata"):
        copied(onnx_model, tmp_path, achieved=achieved)
    found = copied(onnx_model, tmp_path, achieved=json.dumps([RATES])).calibration.achieved_together
    assert found["recall"] == 0.95 and found["recall_ci95"] == [0.9, 1.0] and np.isnan(found["specificity"])
    assert copied(onnx_model, tmp_path, achieved="[]").calibration.achieved_together == {}


@pytest.mark.parametrize("marks", ["A", "AAAA", "é", "!" * 44])
def test_damaged_fingerprints_are_refused(onnx_model, marks, tmp_path):
    with pytest.raises(UserError, match="has no metadata"):
        copied(onnx_model, tmp_path, fingerprints_trained_on=marks)


def test_image_files_are_given_at_their_full_size(onnx_model, phantoms, tmp_path):
    pixels, labels = phantom.generate(3, 90, seed=1)
    for i, image in enumerate(pixels):
        Image.fromarray(image[:, : 80 - i]).save(tmp_path / f"{i}.png")  # each of another shape
    small = np.stack([imagefile.prepare(image, 28) for image in pixels])
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    (found,) = onnx_model.run_images(["logit"], data.of_arrays(small, labels, "all", "a", _file=files))
    expected = [onnx_model.run(["logit"], image[np.newaxis, :, : 80 - i])[0][0] for i, image in enumerate(pixels)]
    assert found.tolist() == expected
    (found,) = onnx_model.run_images(["logit"], data.of_arrays(small, labels, "all", "a"))
    assert found.tolist() == [onnx_model.run(["logit"], image[np.newaxis])[0][0] for image in small]
    Path(files[1]).write_bytes(b"damaged")
    with pytest.raises(UserError, match="1.png"):
        onnx_model.run_images(["logit"], data.of_arrays(small, labels, "all", "a", _file=files))


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"text")
    with pytest.raises(UserError, match="not an ONNX file"):
        onnxfile.load(tmp_path / "no.onnx", 1)
