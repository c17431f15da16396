"""export.py in process, on an ensemble of untrained models: what it stores, and what it refuses."""

import base64
import hashlib
import io
import json
import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from conftest import refusal
from PIL import Image

import export
from common import files
from common.calibration import sigmoid
from common.deploy import graph, int8, latency, metadata, onnxfile, parity, plain, sidecar
from common.errors import UserError
from common.run import outputs


@pytest.fixture
def command(untrained, network, tmp_path, monkeypatch, capsys):
    """A function that runs export.py on `untrained` and returns what it prints; files go to tmp_path/out. The network
    is not exported again each time, and few sizes are tried."""
    monkeypatch.setattr(graph, "export_networks", lambda *_: {"frame": network})
    monkeypatch.setattr(parity, "SIZES", ((90, 60), (8, 9)))

    def command(*flags) -> str:
        out = str(tmp_path / "out" / "model.onnx")
        monkeypatch.setattr(sys, "argv", ["export.py", str(untrained.path), "--out", out, "--threads", "1", *flags])
        export.main()
        return capsys.readouterr().out

    return command


def test_everything_is_printed_stored_and_in_one_file_each(command, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 0.0)  # an untrained model calls all images nearly alike
    monkeypatch.setattr(int8, "MOST_AUC_LOSS", 1.0)
    for name, few in {"SECONDS": 0, "FEWEST": 1, "WARM_UP": 0, "BATCHES": (1, 2)}.items():
        monkeypatch.setattr(latency, name, few)
    printed = command("--fp16", "--int8", "--benchmark")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.onnx", "model.json", "model.int8.onnx", "model.int8.json", "model.parity.json", "run.json"
    }  # fmt: skip
    for heading in ("PyTorch against onnxruntime", "against Pillow", "int8 against fp32", "images per second"):
        assert heading in printed
    stored = files.read_json(tmp_path / "out/model.parity.json")
    assert {(row["split"], row["n"], row["batch"]) for row in stored["rows"]} == {
        (split, n, batch) for split, n in (("train", 24), ("val", 12), ("test", 12)) for batch in (1, 64)
    }
    assert stored["file"]["opset"] == graph.OPSET and len(stored["sizes"]) == len(parity.SIZES) + 1
    measured = {(row["model"], row["threads"], row["batch"]) for row in stored["benchmark"]["latency"]}
    assert measured == {(m, t, b) for m in ("fp32", "int8", "PyTorch") for t in (1, 2) for b in (1, 2)}
    for figures in stored["benchmark"]["process"].values():
        assert figures["load_seconds"] > 0 and (figures["peak_bytes"] is None or figures["peak_bytes"] < 300e6)
    exact, rough = (onnxfile.load(tmp_path / "out" / name, 1) for name in ("model.onnx", "model.int8.onnx"))
    about = [opened.session.get_modelmeta().custom_metadata_map for opened in (exact, rough)]
    assert json.loads(about[1].pop("quantization"))["rows"] == stored["int8"]["rows"]
    assert about[1].pop("metrics_of") == "the fp32 file" and about[0] == about[1]
    assert rough.path.stat().st_size < 0.6 * exact.path.stat().st_size


@pytest.mark.parametrize("name", ["metrics", "calibration", "best", "run"])
def test_a_file_whose_description_would_take_the_place_of_another_is_refused(monkeypatch, tmp_path, name):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with outputs.output(tmp_path / "run", files := ["metrics.json", "calibration.json", "best.json"]) as folder:
        for file in files:
            (folder / file).write_text("{}")
    for allowed in (tmp_path / "best.json", folder / "model.json"):
        outputs.refuse_description(allowed)
    said = refusal(outputs.refuse_description, file := folder / f"{name}.json")
    assert said == f"--out: would need the file {file}, which belongs to a run. Choose another name."


def test_a_description_beside_a_file_names_its_bytes_and_the_answers_to_expect(onnx_model, lesion_model, tmp_path):
    for model in (onnx_model, lesion_model):
        sidecar.write(model.path, tmp_path / "a.json", "a.onnx", 1)
        said = files.read_json(tmp_path / "a.json")
        assert said["file"] == "a.onnx" and said["sha256"] == hashlib.sha256(model.path.read_bytes()).hexdigest()
        assert (said["threshold"], said["input_size"], said["view"]) == (0.4, 28, model.view)
        assert len(said["tests"]) == 3
        for test in said["tests"]:
            image = np.asarray(Image.open(io.BytesIO(base64.b64decode(test.pop("png")))))
            assert image.shape == (96, 128) and set(test) == {"probability", "typicality", "window", "found"}
            for (name, expected), found in zip(test.items(), model.run(list(test), image[np.newaxis])):
                np.testing.assert_allclose(found[0], expected, atol=1e-6, err_msg=name)


def test_a_file_of_a_model_of_phantoms_says_so(untrained):
    of_phantoms = replace(untrained, data=untrained.data | {"synthetic": True})
    about = metadata.describe(of_phantoms, {"splits": {}, "results": []})
    assert about["dataset"] == "PHANTOM data (generated, not ultrasound)"


def test_a_refused_int8_leaves_everything_as_it_was(command, quantized, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "quantize", lambda *_: quantized)
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 1.01)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.onnx").write_bytes(b"earlier")
    outputs.record(tmp_path / "out", ["model.onnx"])
    with pytest.raises(UserError, match=re.escape("--int8: differs too much")):
        command("--fp16", "--int8")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "run.json"}
    assert (tmp_path / "out/model.onnx").read_bytes() == b"earlier"


def test_an_int8_file_of_the_view_lesion_finds_the_same_windows(finding, framed, lesion_model, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 0.0)  # an untrained model calls all images nearly alike
    monkeypatch.setattr(int8, "MOST_AUC_LOSS", 1.0)
    shipped = replace(finding, predictor=graph.as_shipped(finding.predictor, fp16=False))
    networks = graph.export_networks(shipped.predictor, 28)
    path = tmp_path / "model.int8.onnx"
    about = metadata.describe(finding, files.read_json(finding.path / "metrics.json"))
    export.write_int8(networks, lesion_model, parity.expect(shipped, {"train": framed}), framed, about, path, 1)
    rough, names = onnxfile.load(path, 1), ["window", "found", "typicality", "logit"]
    for name, exact, found in zip(names, *(model.run_images(names, framed) for model in (lesion_model, rough))):
        assert np.abs(exact - found).max() > 1e-4 if name == "logit" else (exact == found).all()
    assert path.stat().st_size < lesion_model.path.stat().st_size


def test_a_network_only_file_answers_like_the_whole_file_by_operators_that_converters_take(command, phantoms, tmp_path):
    printed = command("--fp16", "--plain")
    path, whole = tmp_path / "out/model.plain.onnx", onnxfile.load(tmp_path / "out/model.onnx", 1)
    assert "network-only file against the complete file" in printed and f"{path}: " in printed
    (row,) = files.read_json(tmp_path / "out/model.parity.json")["plain"]["rows"]
    assert row["n"] == 24 and row["max_difference"] <= 1e-5
    found = plain.answer(path, {"square": phantoms.pixels}, 1)
    np.testing.assert_allclose(sigmoid(found), whole.probabilities(phantoms.pixels), atol=1e-5)
    assert np.ptp(found) > 1e-3

    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import] == [17] and model.ir_version == 8
    assert {node.op_type for node in model.graph.node} <= plain.OPERATORS  # neither Cast nor Gather
    assert "allowzero" not in str(model.graph.node)
    ends = [*model.graph.input, *model.graph.output]
    shapes = {end.name: [d.dim_value for d in end.type.tensor_type.shape.dim] for end in ends}
    assert shapes == {"square": [1, 1, 28, 28], "logit": [1, 1]}

    said = files.read_json(tmp_path / "out/model.plain.json")
    assert (said["threshold"], said["temperature"], said["offset"], said["view"]) == (0.4, 1.5, 0.1, "square")
    assert "grey level / 255" in said["input"] and said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    for test in said["tests"]:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(test["square"]))))[np.newaxis]
        np.testing.assert_allclose(plain.answer(path, {"square": picture}, 1), test["logit"], atol=1e-6)
        np.testing.assert_allclose(whole.probabilities(picture), test["probability"], atol=1e-5)


def test_a_network_only_file_that_answers_otherwise_leaves_no_file(command, tmp_path, monkeypatch):
    answers = plain.answer
    monkeypatch.setattr(plain, "answer", lambda *given: answers(*given) + 1e-3)
    with pytest.raises(UserError, match="differs from PyTorch"):
        command("--fp16", "--plain")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.plain.onnx", "model.plain.json"])
def test_a_network_only_file_takes_the_place_of_no_file_of_the_user(command, tmp_path, monkeypatch, name):
    monkeypatch.setattr(parity, "expect", None)  # it is refused before any work
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(UserError, match=re.escape(f"{name}: would be overwritten")):
        command("--plain")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_failed_parity_leaves_no_file(command, tmp_path, monkeypatch):
    answers = onnxfile.OnnxModel.run
    monkeypatch.setattr(onnxfile.OnnxModel, "run", lambda *args: [answer * 0.999 for answer in answers(*args)])
    with pytest.raises(UserError, match="differs from PyTorch"):
        command("--fp16")
    assert not (tmp_path / "out").exists()


def test_image_files_in_the_place_of_a_run_s_npz_are_named_in_the_error(command, phantoms, tmp_path):
    for name, image in zip(("malignant", "benign"), phantoms.pixels):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "set" / name / "1.png")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/set: cannot be divided into train, val and test")):
        command("--data", str(tmp_path / "set"))


def test_several_hospitals_are_checked_together_also_one_without_test_images(command, phantoms, tmp_path):
    """Two tables in which images have the same names; one has train and val only."""
    for name, splits in (("a", ("train", "val", "test")), ("b", ("train", "val"))):
        (tmp_path / name).mkdir()
        table = []
        for i, image in enumerate(phantoms.pixels[:: 1 if name == "a" else -1][:24]):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
            table.append({"image": f"{i}.png", "label": int(i // 3 % 2), "split": splits[i % len(splits)]})
        files.write_csv(tmp_path / name / "images.csv", table)
    command("--fp16", "--data", *(str(tmp_path / name / "images.csv") for name in "ab"))
    rows = files.read_json(tmp_path / "out/model.parity.json")["rows"]
    assert {row["split"]: row["n"] for row in rows} == {"train": 20, "val": 20, "test": 8}
