"""The ONNX file, in process: its graph, its checks, its int8 copy, and export.py, which puts them together."""

import json
import re
import sys
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
import torch

import export
from common import benchmark, data, imagefile, onnxfile, onnxgraph, parity, phantom, quantization, runs, settings
from common.calibration import Calibration, sigmoid
from common.errors import UserError
from common.model import BreastResNet, Predictor, predict

REPO = export.__file__.removesuffix("/export.py")
CALIBRATION = Calibration(1.5, 0.4, "a rule", "val", 12)


def member(seed: int) -> BreastResNet:
    """An untrained model with batch statistics that are not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BreastResNet(28, 2)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2)
                module.weight.data.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def run(stored, tmp_path_factory) -> runs.Run:
    """An ensemble of two untrained models, with mirror pass, in a folder as crossval.py would leave it."""
    folder = tmp_path_factory.mktemp("run")
    np.savez(folder / "own.npz", **stored)
    source = data.find(str(folder / "own.npz"), None, 28)
    for seed in (1, 2):
        chosen = settings.Settings(weights="none", stages=2)
        runs.save_model(folder / f"fold_{seed}.pt", member(seed), chosen, 0, source, ["train"])
    runs.write_json(folder / "calibration.json", asdict(CALIBRATION), source)
    runs.write_json(folder / "metrics.json", {"splits": {"test": {"auc": 0.75}}}, source)
    return runs.load(folder)


@pytest.fixture(scope="module")
def network(run) -> onnx.ModelProto:
    return onnxgraph.export_network(run.predictor, 28)


@pytest.fixture(scope="module")
def model(run, network, tmp_path_factory) -> onnxfile.OnnxModel:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    about = onnxgraph.metadata(run, runs.read_json(run.path / "metrics.json"))
    onnxgraph.write(onnxgraph.join(network, 28), about, path)
    return onnxfile.load(path, 1)


@pytest.fixture(scope="module")
def quantized(network, phantoms) -> onnx.ModelProto:
    return quantization.quantize(network, phantoms.images)


@pytest.fixture
def command(run, network, tmp_path, monkeypatch, capsys):
    """A function that runs export.py on `run` and returns what it prints; files go to tmp_path/out. The network is not
    exported again each time, and few sizes are tried."""
    monkeypatch.setattr(onnxgraph, "export_network", lambda *_: network)
    monkeypatch.setattr(parity, "SIZES", ((90, 60), (8, 9)))

    def command(*flags) -> str:
        out = str(tmp_path / "out" / "model.onnx")
        monkeypatch.setattr(sys, "argv", ["export.py", str(run.path), "--out", out, "--threads", "1", *flags])
        export.main()
        return capsys.readouterr().out

    return command


class TestGraph:
    def test_streamlining_changes_no_answer(self, run, phantoms):
        folded = onnxgraph.streamline(run.predictor)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
        assert any(isinstance(module, torch.nn.BatchNorm2d) for module in run.predictor.modules())  # a copy
        expected, found = (predict(predictor, phantoms.images) for predictor in (run.predictor, folded))
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-5) and np.ptp(expected) > 1e-3

    @pytest.mark.parametrize("size", [28, 64])
    @pytest.mark.parametrize("shape", [(8, 8), (28, 28), (29, 28), (64, 64), (90, 47), (333, 500), (500, 333)])
    def test_preparation_is_pillow_s_to_one_grey_level(self, network, shape, size):
        session = onnxfile.open_session(onnxgraph.preparation(network, size).SerializeToString(), 1)
        images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)  # noise: the hardest to resize
        (found,) = session.run(None, {"image": images})
        expected = np.stack([imagefile.prepare(image, size) for image in images])
        assert found.dtype == np.uint8 and np.abs(found.astype(int) - expected).max() <= 1
        if shape == (size, size):
            assert np.array_equal(found, images)

    def test_any_size_and_batch_gives_what_the_run_gives(self, run, model):
        large, _ = phantom.generate(3, 300, seed=3)
        for images in (large, large[:, :77, :151], large[:, :9, :8]):
            prepared = np.stack([imagefile.prepare(image, 28) for image in images])
            assert np.allclose(model.probabilities(images), run.probabilities(prepared), atol=0.02)
            one_by_one = [model.probabilities(images[i : i + 1])[0] for i in range(3)]
            assert np.allclose(model.probabilities(images), one_by_one, atol=1e-6)

    def test_outputs_agree_with_each_other(self, model, phantoms):
        assert np.allclose(model.probabilities(phantoms.images), sigmoid(model.logits(phantoms.images)), atol=1e-6)

    def test_a_straight_line_moves_the_logit_and_its_probability(self, network, phantoms):
        session = onnxfile.open_session(onnxgraph.join(network, 28, 2.0, -0.25).SerializeToString(), 1)
        probability, logit = session.run(["probability", "logit"], {"image": phantoms.images})
        expected = 2 * quantization.logits(network, phantoms.images, 1) - 0.25
        assert np.allclose(logit, expected, atol=1e-4) and np.allclose(probability, sigmoid(expected), atol=1e-5)

    def test_metrics_of_an_earlier_threshold_are_left_out(self, run):
        for threshold, expected in ((CALIBRATION.threshold, {"test": {}}), (0.9, {})):
            point = {"threshold": threshold, "splits": {"test": {}}}
            about = onnxgraph.metadata(run, {"splits": {}, "operating_point": point})
            assert json.loads(about["metrics_at_threshold"]) == expected

    def test_metadata_is_complete_and_of_no_machine(self, run, model):
        props = model.session.get_modelmeta().custom_metadata_map
        contract = "classes positive_class threshold threshold_rule temperature input_size dataset dataset_md5 metrics"
        assert set(props) >= {*contract.split(), "version", "license", "intended_use"}
        assert json.loads(props["metrics"]) == {"test": {"auc": 0.75}} and props["members"] == "2"
        assert model.calibration == CALIBRATION and model.data == run.data
        assert REPO.encode() not in model.path.read_bytes()

    def test_file_stands_by_itself(self, model):
        found = onnxgraph.check(model.path)
        assert found["external_data"] == 0 and found["operator_sets"] == ["ai.onnx"]
        assert found["opset"] == onnxgraph.OPSET and found["bytes"] == model.path.stat().st_size
        (entry,) = model.session.get_inputs()
        assert (entry.name, entry.type, entry.shape) == ("image", "tensor(uint8)", ["batch", "height", "width"])
        outputs = [(output.name, output.type, output.shape) for output in model.session.get_outputs()]
        assert outputs == [(name, "tensor(float)", ["batch"]) for name in ("probability", "logit")]

    def test_what_the_checker_refuses_is_one_line(self, model, tmp_path):
        broken = onnx.load(model.path)
        broken.graph.node[0].op_type = "Nonsense"
        onnx.save(broken, tmp_path / "broken.onnx")
        with pytest.raises(UserError, match="checker refuses the file"):
            onnxgraph.check(tmp_path / "broken.onnx")

    def test_what_is_no_model_of_ours_is_refused(self, network, tmp_path):
        for path, content in {"no.onnx": b"text", "bare.onnx": onnxgraph.join(network, 28).SerializeToString()}.items():
            (tmp_path / path).write_bytes(content)
        for path, message in {"absent": "no such", "no.onnx": "not an ONNX", "bare.onnx": "without this"}.items():
            with pytest.raises(UserError, match=message):
                onnxfile.load(tmp_path / path, 1)


class TestParity:
    def test_bounds(self):
        row = parity.Row("val", 10, 1, 1e-6, 0, 0.0)
        assert row.acceptable
        bad = {"max_difference": 2e-5, "labels_differ": 1, "auc_difference": 1e-5}
        for name, value in bad.items() | {("max_difference", np.nan), ("auc_difference", np.nan)}:
            with pytest.raises(UserError, match=name):
                parity.require([row, replace(row, **{name: value})])
        size = parity.SizeRow(40, 30, 4, 1, 0.01, 0.01)
        assert size.acceptable and not replace(size, max_grey_difference=2).acceptable
        assert not replace(size, max_difference=0.03).acceptable

    def test_every_image_is_compared_and_a_difference_is_seen(self, run, model, phantoms):
        rows = parity.of_splits(model, {"train": phantoms}, {"train": run.probabilities(phantoms.images)})
        assert [(row.n, row.batch) for row in rows] == [(48, 1), (48, 64)]
        parity.require(rows)
        expected = run.probabilities(phantoms.images)
        found = expected.copy()
        found[-1] += 1e-3
        row = parity.compare("train", phantoms, expected, found, 1, (expected[-1] + 5e-4,))
        assert row.max_difference == pytest.approx(1e-3) and row.labels_differ == 1 and not row.acceptable

    def test_one_class_has_no_auc_and_none_is_missed(self, phantoms):
        split = phantoms[phantoms.labels == 1]
        row = parity.compare("test", split, np.full(16, 0.3), np.full(16, 0.3), 1, (0.5,))
        assert row.acceptable

    def test_another_preparation_is_seen(self, model, network, monkeypatch):
        monkeypatch.setattr(parity, "SIZES", ((90, 60),))
        preparation = onnxgraph.preparation(network, 28)
        own, other = parity.of_sizes(model, preparation, 28)
        assert own.max_grey_difference == 0 and other.acceptable
        (resize,) = (node for node in preparation.graph.node if node.op_type == "Resize")
        for attribute in resize.attribute:
            if attribute.name in ("antialias", "exclude_outside"):
                attribute.i = 0
        with pytest.raises(UserError, match="max_grey_difference"):
            parity.require(parity.of_sizes(model, preparation, 28))


class TestQuantization:
    def test_convolutions_but_the_stem_are_int8(self, network, quantized):
        types = {tensor.name: tensor.data_type for tensor in quantized.graph.initializer}
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
        weights = [name for name, kind in types.items() if kind == onnx.TensorProto.INT8 and values[name].ndim == 4]
        convolutions = {node.input[1] for node in network.graph.node if node.op_type == "Conv"}
        assert len(weights) == len(convolutions) - 2  # two members, a stem each; both views share weights
        assert all(np.abs(values[name].astype(int)).max() <= 64 for name in weights)  # seven bits
        scales = [node.input[1] for node in quantized.graph.node if node.input and node.input[0] in weights]
        assert all(values[scale].ndim == 1 for scale in scales)  # per channel
        zero_points = [node.input[2] for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
        assert {types[name] for name in zero_points} == {onnx.TensorProto.UINT8}
        assert quantized.ByteSize() < 0.4 * network.ByteSize()

    def test_answers_follow_fp32(self, network, quantized, phantoms):
        exact, rough = (quantization.logits(model, phantoms.images, 1) for model in (network, quantized))
        assert 0.9 < np.corrcoef(exact, rough)[0, 1] and np.abs(exact - rough).max() > 0

    def test_straight_line(self):
        logits = np.array([-2.0, 0.0, 1.0, 3.0])
        assert quantization.straight_line(logits, 1.1 * logits - 0.2) == pytest.approx((1.1, -0.2))
        assert quantization.straight_line(np.full(4, 2.0), logits) == (1.0, -1.5)
        assert quantization.straight_line(logits, -logits)[0] == 1.0  # the order of images stays

    def test_agreement_and_bounds(self):
        labels, expected = np.array([1] * 50 + [0] * 150), np.linspace(0.9, 0.1, 200)
        found = expected.copy()
        found[[0, 1, 2]] = 0.05  # two more of 200 than 99 % allow one of
        row = quantization.compare(quantization.DECIDING, labels, expected, found, (0.5, 0.07))
        assert row.agreement == 1 - 3 / 200 and row.auc_loss == pytest.approx(3 / 50) and not row.acceptable
        assert replace(row, agreement=0.99, auc_loss=0.005).acceptable
        assert not replace(row, auc_loss=0.0).acceptable and not replace(row, agreement=1.0).acceptable
        assert (
            replace(row, split="test").acceptable and replace(row, split="val").acceptable
        )  # which decide nothing alone
        assert "98.50% of 200 labels" in quantization.refusal([row])


class TestExport:
    def test_everything_is_printed_stored_and_in_one_file_each(self, command, tmp_path, monkeypatch):
        monkeypatch.setattr(quantization, "LEAST_AGREEMENT", 0.0)  # an untrained model calls all images nearly alike
        monkeypatch.setattr(quantization, "MOST_AUC_LOSS", 1.0)
        monkeypatch.setattr(benchmark, "SECONDS", 0)
        monkeypatch.setattr(benchmark, "FEWEST", 2)
        printed = command("--int8", "--benchmark")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "model.onnx", "model.int8.onnx", "parity.json"
        }  # fmt: skip
        for heading in ("PyTorch against onnxruntime", "against Pillow", "int8 against fp32", "images/s"):
            assert heading in printed
        stored = runs.read_json(tmp_path / "out/parity.json")
        assert {(row["split"], row["n"], row["batch"]) for row in stored["rows"]} == {
            (split, n, batch) for split, n in (("train", 24), ("val", 12), ("test", 12)) for batch in (1, 64)
        }
        assert stored["file"]["opset"] == onnxgraph.OPSET and len(stored["sizes"]) == len(parity.SIZES) + 1
        measured = {(row["model"], row["threads"], row["batch"]) for row in stored["benchmark"]["latency"]}
        assert measured == {(m, t, b) for m in ("fp32", "int8", "PyTorch") for t in (1, 2) for b in (1, 64)}
        for figures in stored["benchmark"]["process"].values():
            assert figures["load_seconds"] > 0 and (figures["peak_bytes"] is None or figures["peak_bytes"] < 300e6)
        exact, rough = (onnxfile.load(tmp_path / "out" / name, 1) for name in ("model.onnx", "model.int8.onnx"))
        about = [opened.session.get_modelmeta().custom_metadata_map for opened in (exact, rough)]
        assert json.loads(about[1].pop("quantization"))["rows"] == stored["int8"]["rows"]
        assert about[1].pop("metrics_of") == "the fp32 file" and about[0] == about[1]
        assert rough.path.stat().st_size < 0.4 * exact.path.stat().st_size

    def test_a_refused_int8_leaves_everything_as_it_was(self, command, quantized, tmp_path, monkeypatch):
        monkeypatch.setattr(quantization, "quantize", lambda *_: quantized)
        monkeypatch.setattr(quantization, "LEAST_AGREEMENT", 1.01)
        (tmp_path / "out").mkdir()
        (tmp_path / "out/model.onnx").write_bytes(b"earlier")
        with pytest.raises(UserError, match=re.escape("--int8 answers otherwise")):
            command("--int8")
        assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"earlier"]

    def test_failed_parity_leaves_no_file(self, command, tmp_path, monkeypatch):
        monkeypatch.setattr(onnxfile.OnnxModel, "probabilities", lambda self, images, batch=64: images[:, 0, 0] * 0.001)
        with pytest.raises(UserError, match="disagrees with PyTorch"):
            command()
        assert list((tmp_path / "out").iterdir()) == []


def test_predictor_without_mirror_exports_too(phantoms):
    predictor = Predictor([member(3)], mirror=False, temperature=0.7)
    session = onnxfile.open_session(onnxgraph.join(onnxgraph.export_network(predictor, 28), 28).SerializeToString(), 1)
    (logit,) = session.run(["logit"], {"image": phantoms.images[:5]})
    assert np.allclose(logit, predict(predictor, phantoms.images[:5]), rtol=1e-4, atol=1e-4)
