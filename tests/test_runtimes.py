"""The exported file in other runtimes, each in an environment of its own. A runtime that pip or npm cannot install is
skipped, with the reason. The environments are kept outside the checkout, so that the next run is quick."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from filelock import FileLock
from PIL import Image

from common import files, phantom
from common.deploy import graph, metadata, plain, sidecar
from common.deploy.sidecar import TOLERANCE
from results import runtimes

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "breastmnist-ci/runtimes"
pytestmark = pytest.mark.slow


def installed(name: str) -> Path:
    """The folder of a runtime's environment. Skips the test where it cannot be installed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(CACHE / "lock"):
            return runtimes.install(name, CACHE)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{name} cannot be installed: {runtimes.reason(error)}")


@pytest.mark.parametrize("name", [*runtimes.PYTHON, *runtimes.NODE])
def test_a_runtime_answers_like_onnxruntime_here(name, lesion_model, tmp_path):
    place = installed(name)
    wanted = runtimes.expected(lesion_model, runtimes.write_cases(lesion_model, tmp_path))
    said = runtimes.answers(name, place, str(lesion_model.path), tmp_path / "cases.json")["said"]
    assert runtimes.largest_difference(said, wanted) < TOLERANCE == 1e-3
    assert len(said) == len(wanted) == 8 and said.count(None) in (0, 4)  # some runtimes take no box
    assert np.ptp(wanted) > 20 * TOLERANCE


def test_the_program_on_the_page_runs_a_network_only_file_in_opencv_4(untrained, onnx_model, tmp_path, monkeypatch):
    monkeypatch.setitem(runtimes.PYTHON, "OpenCV 4", (["opencv-python-headless<5", "numpy", "Pillow"], ""))
    python = installed("OpenCV 4") / "bin/python"
    (program,) = re.findall(r"```python\n(.*?)```", (REPO / "docs/export.md").read_text(encoding="utf-8"), re.S)
    file = tmp_path / "runs/train/model.plain.onnx"
    file.parent.mkdir(parents=True)
    about = metadata.describe(untrained, files.read_json(untrained.path / "metrics.json"))
    plain.write(replace(untrained, predictor=graph.as_shipped(untrained.predictor, fp16=True)), about, file)
    sidecar.write(file, sidecar.path_of(file), file.name, 1, plain.answer_tests)
    image = np.ascontiguousarray(phantom.generate(1, 120, seed=8)[0][:, 10:100])
    Image.fromarray(image[0]).save(tmp_path / "image.png")
    done = subprocess.run([python, "-c", program], cwd=tmp_path, check=True, capture_output=True, encoding="utf-8")
    (probability,) = onnx_model.probabilities(image)
    call = "flagged" if probability >= 0.4 else "not flagged"
    assert done.stdout == f"P(malignant) = {probability:.3f}: {call}\n"


@pytest.mark.parametrize("box", [None, [30.0, 25.0, 24.0, 18.0]])
def test_the_program_on_the_page_runs_the_file_in_node(lesion_model, tmp_path, box):
    place = installed("onnxruntime-node")
    (program,) = re.findall(r"```js\n(.*?)```", (REPO / "docs/onnx.md").read_text(encoding="utf-8"), re.S)
    shutil.copy(lesion_model.path, tmp_path / "model.onnx")
    sidecar.write(lesion_model.path, tmp_path / "model.json", "model.onnx", 1)
    said = files.read_json(tmp_path / "model.json") | {"typicality_threshold": 0, "found_threshold": 0}
    files.write_json(tmp_path / "model.json", said)
    image = np.ascontiguousarray(phantom.generate(1, 120, seed=8)[0][:, 10:100])
    image.tofile(tmp_path / "image.raw")
    given = "undefined" if box is None else box
    call = f'console.log(...await answer(new Uint8Array(fs.readFileSync("image.raw")), 90, 120, {given}));'
    (tmp_path / "node_modules").symlink_to(place / "node_modules")
    (tmp_path / "run.mjs").write_text(program + call, encoding="utf-8")
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, check=True, capture_output=True, encoding="utf-8")
    boxes = None if box is None else np.array([box], np.float32)
    (probability,) = lesion_model.run(["probability"], image, boxes=boxes)[0]
    number, *words = done.stdout.split()
    assert float(number) == pytest.approx(probability, abs=TOLERANCE)
    assert " ".join(words) == ("flagged for review" if probability >= 0.4 else "not flagged")


@pytest.mark.parametrize("name", ["OpenVINO", "onnxruntime-web (in Node)"])
def test_a_runtime_that_cannot_be_installed_says_why(name, tmp_path, monkeypatch, onnx_model):
    monkeypatch.setitem(runtimes.PYTHON, "OpenVINO", (["./no_such_package"], ""))
    monkeypatch.setitem(runtimes.NODE, "onnxruntime-web (in Node)", "file:no_such_package.tgz")
    version, works, why = runtimes.try_runtime(name, tmp_path, onnx_model, tmp_path, [])
    assert (version, works) == ("", "does not work") and why.lower().startswith(("error: ", "npm error"))
    assert not list(tmp_path.glob("*/complete"))
