"""Fixtures of several test files: scripts in this process, data, and models from a checkpoint to an .onnx file.

Tests run on one thread: bit-identical results depend on the thread count.
"""

import io
import os
import runpy
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from conftest import REPO
from filelock import FileLock
from PIL import Image

from common import data, files, intervals, metrics, phantom, settings, weights
from common.calibration import Calibration
from common.delimited import BOX
from common.deploy import graph, int8, metadata, onnxfile, typicality
from common.model import BreastResNet, Predictor, TwoLooks
from common.npzfile import breastmnist_path
from common.run import folders

torch.set_num_threads(1)


def forget() -> None:
    """Empty the caches of what files hold, as in another process."""
    for cached in (weights.initial_state, weights.weights_md5):
        cached.cache_clear()


def with_metadata(model: Path, copy: Path, **about: str) -> Path:
    """A copy of an .onnx file that says something else of itself."""
    changed = onnx.load(model)
    kept = {entry.key: entry.value for entry in changed.metadata_props}
    onnx.helper.set_model_props(changed, kept | about)
    onnx.save(changed, copy)
    return copy


def summary_with_intervals(labels, probabilities, counts, threshold: float = 0.5) -> dict:
    """`metrics.summary` with the interval of every metric."""
    return intervals.with_intervals(partial(metrics.summary, labels, probabilities, threshold), counts)


@pytest.fixture
def runs(monkeypatch, capfd):
    """`conftest.run` in this process, which spares seconds of imports. An end but by sys.exit is the test's failure."""

    def run(script: str, *words, status: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
        random_state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGTERM)
        forget()
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(REPO / script), run_name="__main__")
                sys.exit(0)
        finally:
            signal.signal(signal.SIGTERM, handler)
            torch.set_num_threads(1)
            torch.set_rng_state(random_state)
            torch.use_deterministic_algorithms(False)
        out, err = capfd.readouterr()
        assert int(ended.value.code or 0) == status, err
        return out, err

    return run


@pytest.fixture(scope="session")
def breastmnist(breastmnist_root):
    """A function that finds BreastMNIST of a size; a test is skipped where there is none of it."""

    def find(size: int) -> data.Found:
        if not (file := breastmnist_path(str(breastmnist_root), size)).exists():
            pytest.skip(f"no {file.name} in {breastmnist_root}")
        return data.find(["breastmnist"], str(breastmnist_root), size)

    return find


@pytest.fixture(scope="session")
def imagenet_trunk(tmp_path_factory) -> Path:
    """A file for --weights: torchvision's names up to layer3, random values."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = torchvision.models.resnet18().state_dict()
    path = tmp_path_factory.mktemp("weights") / "trunk.pth"
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith(("layer4", "fc"))}, path)
    return path


@pytest.fixture(scope="session")
def phantoms() -> data.Images:
    """48 phantoms, a third of them malignant."""
    return data.of_arrays(*phantom.generate(48, 28, seed=0, malignant_share=1 / 3), "train", "phantom")


@pytest.fixture
def quick() -> settings.Settings:
    """The smallest training run: from scratch, two stages, two epochs."""
    return settings.Settings(weights="none", stages=2, epochs=2, batch_size=16)


@pytest.fixture(scope="session")
def stored(phantoms) -> dict[str, np.ndarray]:
    """Phantoms under MedMNIST's six keys, labels as MedMNIST stores them: 0 for malignant."""
    parts = {"train": phantoms[:24], "val": phantoms[24:36], "test": phantoms[36:]}
    arrays = {f"{name}_images": part.pixels for name, part in parts.items()}
    return arrays | {f"{name}_labels": 1 - part.labels[:, None] for name, part in parts.items()}


@pytest.fixture
def npz(tmp_path, stored):
    """A function that writes an .npz of `stored`, with other arrays in the place of some (None leaves a key out), and
    returns what data.find makes of it."""

    def write(size: int = 28, **changed) -> data.Found:
        arrays = {name: array for name, array in (stored | changed).items() if array is not None}
        path = tmp_path / "own.npz"
        np.savez_compressed(path, **arrays)
        return data.find([str(path)], None, size)

    return write


def untrained_member(seed: int, finds: bool = False, stages: int = 2) -> BreastResNet:
    """An untrained model with batch statistics that are not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BreastResNet(28, stages, finds)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for name, low, high in (("running_mean", -0.5, 0.5), ("running_var", 0.5, 2), ("weight", 0.5, 1.5)):
                    getattr(module, name).data.uniform_(low, high)
    return model.eval()


@pytest.fixture(scope="session")
def untrained(stored, tmp_path_factory) -> folders.Run:
    """An ensemble of two untrained models, with mirror pass, in a folder as crossval.py would leave it."""
    folder = tmp_path_factory.mktemp("untrained")
    np.savez(folder / "own.npz", **stored)
    found = data.find([str(folder / "own.npz")], None, 28)
    for seed in (1, 2):
        chosen = settings.Settings(weights="none", stages=2)
        folders.save_model(folder / f"fold_{seed}.pt", untrained_member(seed), chosen, 0, found, ["train"])
    chosen_on = {"on": "val", "hospitals": ["own"], "hospital_left_out": False, "n": 12, "malignant": 4}
    chosen_on |= {"chose": ["epoch", "calibration", "threshold"]}
    rates = {"recall": 0.9, "recall_ci95": [0.8, 1.0], "specificity": 0.4, "specificity_ci95": [0.3, 0.5]}
    rates |= {"precision": 0.5, "precision_ci95": [0.4, 0.6]}
    achieved = [{"hospital": "own", "n": 12, "malignant": 4, "held_out": True} | rates]
    calibration = Calibration(1.5, 0.1, 0.4, "a rule", chosen_on, achieved)
    files.write_json(folder / "calibration.json", asdict(calibration), found.notice)
    files.write_json(folder / "metrics.json", {"splits": {"test": {"auc": 0.75}}, "results": []}, found.notice)
    folders.save_table(folder, data.load(found, *data.SPLITS))
    return folders.load(folder)


@pytest.fixture(scope="session")
def shipped(untrained) -> folders.Run:
    """`untrained` as a file keeps it, with rounded weights."""
    return replace(untrained, predictor=graph.as_shipped(untrained.predictor, fp16=True))


BOXES = np.array([[30, 25, 24, 18], [5, 10, 30, 20], [60, 50, 20, 30], [48.5, 33, 17, 12]])


@pytest.fixture(scope="session")
def framed(tmp_path_factory) -> data.Images:
    """Six frames in files of two shapes, at 28 pixels, with `BOXES` around the lesions of the first four."""
    folder = tmp_path_factory.mktemp("framed")
    pixels, labels = phantom.generate(6, 120, seed=2, malignant_share=2 / 3)
    rows = [{"image": f"{i}.png", "label": label} for i, label in enumerate(labels)]
    for i, image in enumerate(pixels):
        Image.fromarray(image[:, :100] if i % 2 else image[:90]).save(folder / rows[i]["image"])
        rows[i] |= dict(zip(BOX, BOXES[i] if i < len(BOXES) else [""] * 4))
    files.write_csv(folder / "images.csv", rows)
    return data.load(data.find([str(folder / "images.csv")], None, 28, undivided="all"), "all")


@pytest.fixture(scope="session")
def finding(untrained) -> folders.Run:
    """A run in the view lesion, untrained, with mirror pass; in `framed` it finds something else in each frame.

    As at 128 pixels, the network of the window has one stage more, and so a coarser map of evidence.
    """
    frame = untrained_member(9, finds=True)
    assert frame.finder is not None
    frame.finder.weight.data *= 0.4
    torch.nn.init.constant_(frame.finder.bias, -4.6)  # type: ignore[arg-type]
    box = torch.nn.Linear(2, 1)
    box.weight.data, box.bias.data = torch.tensor([[-0.8, 1.4]]), torch.tensor([0.3])
    predictor = Predictor([TwoLooks(untrained_member(4, stages=3), frame, box)], mirror=True)
    return replace(untrained, predictor=predictor, data=untrained.data | {"view": "lesion"})


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable:
    """A function that gives an ONNX model, which the first process to ask for it makes; the others wait and read it."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def made_once(name: str, make: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
        with FileLock(folder / f"{name}.lock"):
            if not (folder / name).exists():
                onnx.save(make(), folder / name)
        return onnx.load(folder / name)

    return made_once


@pytest.fixture(scope="session")
def network(shipped, made_once) -> onnx.ModelProto:
    """What `shipped` computes between preparation and head."""
    return made_once("network.onnx", lambda: graph.export_networks(shipped.predictor, 28)["frame"])


@pytest.fixture(scope="session")
def quantized(network, phantoms, made_once) -> onnx.ModelProto:
    """The int8 copy of `network`."""
    return made_once("quantized.onnx", lambda: int8.quantize(network, phantoms.pixels))


@pytest.fixture(scope="session")
def fitted(network, phantoms) -> typicality.Typicality:
    """What typicality is to `network`, fitted on phantoms."""
    return typicality.fit_network(network, phantoms, 1)


@pytest.fixture(scope="session")
def onnx_model(untrained, network, fitted, tmp_path_factory) -> onnxfile.OnnxModel:
    """The ONNX file of `untrained`, open."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    about = metadata.describe(untrained, files.read_json(untrained.path / "metrics.json"))
    graph.write(graph.assemble({"frame": network}, 28, "square", fitted, 1 / 1.5, 0.1), about, path)
    return onnxfile.load(path, 1)


@pytest.fixture(scope="session")
def lesion_model(finding, framed, made_once, tmp_path_factory) -> onnxfile.OnnxModel:
    """The ONNX file of `finding`, open; its typicality is fitted on `framed`."""

    def make() -> onnx.ModelProto:
        networks = graph.export_networks(graph.as_shipped(finding.predictor, fp16=False), 28)
        fitted = typicality.fit_network(networks["frame"], framed, 1)
        return graph.assemble(networks, 28, "lesion", fitted, 1 / 1.5, 0.1)

    path = tmp_path_factory.mktemp("lesion") / "model.onnx"
    about = metadata.describe(finding, files.read_json(finding.path / "metrics.json"))
    graph.write(made_once("lesion.onnx", make), about, path)
    return onnxfile.load(path, 1)
