"""What several test files share. Tests run on one thread: bit-identical results depend on the thread count."""

import csv
import io
import json
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision

from common import data, files, imageset, phantom, settings, weights
from common.calibration import Calibration
from common.deploy import graph, int8, onnxfile, typicality
from common.errors import UserError
from common.model import BreastResNet
from common.run import folders

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a background shell leaves it, for every process to inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
REPO = Path(__file__).resolve().parent.parent


def forget() -> None:
    """Empty the caches of what files hold, as in another process."""
    for cached in (weights.initial_state, weights.weights_md5, imageset.load, imageset.divided):
        cached.cache_clear()


def one_line(err: str) -> str:
    """The only line of an error, beside notes, warnings and progress."""
    beside = ("warning: ", "note: ", "weights: ", "Downloading: ", "train  epoch")
    (line,) = (line for line in err.splitlines() if not line.startswith(beside))
    assert line.startswith("error: ") and "Traceback" not in err
    return line


def start(script: str, *words, session: bool = False) -> subprocess.Popen:
    """Start a script as a process on one thread. session: in one of its own, for signals to it and its children."""
    command, pipe = [sys.executable, *map(str, (REPO / script, *words))], subprocess.PIPE
    env, none = os.environ | {"OMP_NUM_THREADS": "1"}, subprocess.DEVNULL
    return subprocess.Popen(
        command, cwd=REPO, env=env, stdin=none, stdout=pipe, stderr=pipe, text=True, start_new_session=session
    )


def run(script: str, *words, status: int = 0) -> tuple[str, str]:
    """Run a script to its end, as a process of its own. Returns: (stdout, stderr)."""
    process = start(script, *words)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    return out, err


def refusal(function, *given) -> str:
    """The one line with which a function refuses."""
    with pytest.raises(UserError) as caught:
        function(*given)
    assert (message := str(caught.value)) and "\n" not in message
    return message


def read_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not strict JSON")

    return json.loads(Path(path).read_text(), parse_constant=refuse)


def read_csv(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def with_metadata(model: Path, copy: Path, **about: str) -> Path:
    """A copy of an .onnx file that says something else of itself."""
    changed = onnx.load(model)
    kept = {entry.key: entry.value for entry in changed.metadata_props}
    onnx.helper.set_model_props(changed, kept | about)
    onnx.save(changed, copy)
    return copy


def first_run(trial) -> int:
    """Number of the trial that this one runs again, or its own. SQLite locks no rows: two workers may run one again."""
    return trial.system_attrs.get("failed_trial", trial.number)


@pytest.fixture
def run_here(monkeypatch, capfd):
    """A function that runs a script in this process, as `python SCRIPT WORDS` would, and returns (exit status, stdout,
    stderr). Any other end of the script is the test's failure."""

    def run(script: str, *words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
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
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def runs(run_here):
    """A function that runs a script to its end in this process, and returns (stdout, stderr)."""

    def run(script: str, *words) -> tuple[str, str]:
        status, out, err = run_here(script, *words)
        assert status == 0, err
        return out, err

    return run


@pytest.fixture(scope="session")
def breastmnist_root() -> Path:
    """The folder of the real files; tests that need it are skipped, with the reason, where there is none."""
    beside = REPO.parent / "shared" / "data"
    root = Path(os.environ.get("MEDMNIST_ROOT") or beside)
    if not (root / "breastmnist.npz").exists():
        pytest.skip(f"no breastmnist.npz in {root}; set MEDMNIST_ROOT to the folder that holds it")
    return root


@pytest.fixture(scope="session")
def breastmnist(breastmnist_root):
    """A function that finds BreastMNIST of a size; a test is skipped where there is none of it."""

    def find(size: int) -> data.Source:
        if not (file := data.breastmnist_path(str(breastmnist_root), size)).exists():
            pytest.skip(f"no {file.name} in {breastmnist_root}")
        return data.find("breastmnist", str(breastmnist_root), size)

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
def phantoms() -> data.Split:
    """48 phantoms, a third of them malignant."""
    return data.Split.of("train", *phantom.generate(48, 28, seed=0, malignant_share=1 / 3))


@pytest.fixture
def quick() -> settings.Settings:
    """The smallest training run: from scratch, two stages, two epochs."""
    return settings.Settings(weights="none", stages=2, epochs=2, batch_size=16)


@pytest.fixture(scope="session")
def stored(phantoms) -> dict[str, np.ndarray]:
    """Phantoms under MedMNIST's six keys, labels as MedMNIST stores them: 0 for malignant."""
    parts = {"train": phantoms[:24], "val": phantoms[24:36], "test": phantoms[36:]}
    arrays = {f"{name}_images": part.images for name, part in parts.items()}
    return arrays | {f"{name}_labels": 1 - part.labels[:, None] for name, part in parts.items()}


@pytest.fixture
def npz(tmp_path, stored):
    """A function that writes an .npz of `stored`, with other arrays in the place of some (None leaves a key out), and
    returns its data.Source."""

    def write(size: int = 28, **changed) -> data.Source:
        arrays = {name: array for name, array in (stored | changed).items() if array is not None}
        path = tmp_path / "own.npz"
        np.savez_compressed(path, **arrays)
        return data.find(str(path), None, size)

    return write


def untrained_member(seed: int) -> BreastResNet:
    """An untrained model with batch statistics that are not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BreastResNet(28, 2)
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
    source = data.find(str(folder / "own.npz"), None, 28)
    for seed in (1, 2):
        chosen = settings.Settings(weights="none", stages=2)
        folders.save_model(folder / f"fold_{seed}.pt", untrained_member(seed), chosen, 0, source, ["train"])
    files.write_json(folder / "calibration.json", asdict(Calibration(1.5, 0.4, "a rule", "val", 12)), source.notice)
    files.write_json(folder / "metrics.json", {"splits": {"test": {"auc": 0.75}}}, source.notice)
    return folders.load(folder)


@pytest.fixture(scope="session")
def shipped(untrained) -> folders.Run:
    """`untrained` as a file keeps it, with rounded weights."""
    return replace(untrained, predictor=graph.as_shipped(untrained.predictor, fp16=True))


@pytest.fixture(scope="session")
def network(shipped) -> onnx.ModelProto:
    """What `shipped` computes between preparation and head."""
    return graph.export_network(shipped.predictor, 28)


@pytest.fixture(scope="session")
def fitted(network, phantoms) -> typicality.Typicality:
    """What typicality is to `network`, fitted on phantoms."""
    return typicality.fit_network(network, phantoms, 1)


@pytest.fixture(scope="session")
def onnx_model(untrained, network, fitted, tmp_path_factory) -> onnxfile.OnnxModel:
    """The ONNX file of `untrained`, open."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    about = graph.metadata(untrained, files.read_json(untrained.path / "metrics.json"))
    graph.write(graph.assemble(network, 28, fitted=fitted), about, path)
    return onnxfile.load(path, 1)


@pytest.fixture(scope="session")
def quantized(network, phantoms) -> onnx.ModelProto:
    """The int8 copy of `network`."""
    return int8.quantize(network, phantoms.images)
