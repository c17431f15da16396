"""Bad input to every flag of every script, and damaged files of every kind: one line, exit 2, nothing written.

Scripts run in this process, as `python script.py` would run them, so that hundreds of cases take seconds. The number of
distinct bad inputs is printed at the end of the test run.
"""

import argparse
import dataclasses
import functools
import io
import json
import pickle
import resource
import runpy
import shutil
import signal
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import BAD_INPUTS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common import data, files, imagefile, model, weights
from common.calibration import Calibration
from common.deploy import graph, onnxfile
from common.errors import UserError
from common.run import folders
from common.settings import Settings, read_params

REPO = Path(__file__).parent.parent
SCRIPTS = sorted(path.name for path in REPO.glob("*.py"))
NUMBER = ["", "x", "nan", "inf", "-inf", "1e999", "1,5"]
COUNT = ["", "x", "nan", "inf", "-1", "2.5", "1e3", "99999999999999999999"]
WORD = ["", "x", "0", "ON"]
NO_VALUE = ["=yes", "=", "=0"]  # joined to the flag

# What each flag must refuse. A value in braces stands for a file or folder that `places` makes.
BAD = {
    "--lr": [*NUMBER, "0", "-1", "0x1"],
    "--wd": [*NUMBER, "-0.1"],
    "--epochs": [*COUNT, "0"],
    "--batch-size": [*COUNT, "0"],
    "--warmup": [*NUMBER, "-0.1", "1.1"],
    "--weights": ["", "{missing}", "{folder}", "{text}", "{empty}", "{npz}", "{nan_weights}", "{foreign_weights}"],
    "--stages": [*COUNT, "0", "1", "5"],
    "--loss": [*WORD, "hinge"],
    "--label-smoothing": [*NUMBER, "-0.1", "1"],
    "--class-weights": [*WORD, "Balanced"],
    "--mixup": [*NUMBER, "-0.1", "1e300"],
    "--augment": WORD,
    "--ema": [*NUMBER, "-0.1", "1"],
    "--patience": [*COUNT],
    "--mirror": WORD,
    "--data": ["", "{missing}", "{folder}", "{text}", "{empty}", "{image}", "/dev/zero", "two\nlines", "mnist"],
    "--data-root": ["{missing}", "{text}"],
    "--size": [*COUNT, "0", "27", "32", "28.0"],
    "--seed": [*COUNT, "4294967296"],
    "--threads": [*COUNT, "0", "1025"],
    "--device": [*WORD, "tpu", "cuda:9"],
    "--out": ["", "{text}", "{text}/under", "x" * 300],
    "--params": ["{missing}", "{folder}", "{text}", "{empty}", "{list}", "{unknown_key}", "{nan_lr}", "{deep}"],
    "--sensitivity": [*NUMBER, "0", "1", "1.5"],
    "--resume": NO_VALUE,
    "--folds": [*COUNT, "0", "1", "9999"],
    "--repeats": [*COUNT, "0", "1001"],
    "--pool": [*WORD, "val", "train+test"],
    "--groups": WORD,
    "--compare-groups": NO_VALUE,
    "--drop-test-twins": NO_VALUE,
    "--no-test": NO_VALUE,
    "--refit": NO_VALUE,
    "--jobs": [*COUNT, "0"],
    "--trials": [*COUNT, "0"],
    "--grid": COUNT,
    "--storage": ["nonsense", "sqlite:////no/such/folder/study.db", "{text}"],
    "--study": [],
    "--search": ["", "x", "lr,", "lr wd", "weights", "lr,lr", "batch-size,batch_size"],
    "--heartbeat": [*NUMBER, "0", "-1"],
    "--upsample": [*COUNT, "513"],
    "--frozen-stages": [*COUNT, "5"],
    "--sizes": [*COUNT, "0", "27"],
    "--images": [*COUNT, "0", "1000000000"],
    "--steps": [*COUNT, "0", "1000000000"],
    "--split": [*WORD, "testing"],
    "--bootstrap": [*COUNT, "0", "99", "100001"],
    "--against": ["{missing}", "{folder}", "{text}", "{empty}", "{text}.csv", "{text}.onnx"],
    "evaluate.py RUN_OR_ONNX": ["", "{missing}", "{folder}", "{text}", "{missing}.onnx", "{onnx}", "{folder}.onnx"],
    "export.py RUN": ["", "{missing}", "{folder}", "{text}", "{onnx}"],
    "export.py --data": ["", "{missing}", "{folder}", "/dev/zero", "two\nlines", "mnist"],
    "export.py --out": [
        "",
        "x",
        "x.ONNX",
        "x.onnx/",
        "{folder}",
        "{folder}.onnx",
        "{text}/x.onnx",
        "x" * 300 + ".onnx",
    ],
    "--int8": NO_VALUE,
    "--benchmark": NO_VALUE,
    "--threshold": [*NUMBER, "-0.1", "1.1"],
    "--json": NO_VALUE,
    "predict.py MODEL.onnx": ["", "{missing}", "{folder}", "{text}", "{empty}", "{image}", "{onnx}", "{run}"],
    "predict.py IMAGE": ["{folder}"],  # what is no image is named, and the others are done: see below
}
ANY_TEXT = {"--study"}  # a name: every text is one
POSITIONAL = {"RUN": "run", "RUN_OR_ONNX": "run", "MODEL.onnx": "model.onnx", "IMAGE": "image.png"}  # good ones


class Asked(Exception):
    """Carries a script's parser out of the script."""


def parser_of(script: str) -> argparse.ArgumentParser:
    def ask(parser, *args, **kwargs):
        raise Asked(parser)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Asked) as caught:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, ask)
        patch.setattr(sys, "argv", [script])
        runpy.run_path(str(REPO / script), run_name="__main__")
    return caught.value.args[0]


@functools.cache
def flags_of(script: str) -> list[str]:
    """Every flag, by its long name, and every positional argument, by its metavar, of a script."""
    actions = [action for action in parser_of(script)._actions if action.dest != "help"]
    return [action.option_strings[-1] if action.option_strings else action.metavar for action in actions]


def row(script: str, flag: str) -> list[str] | None:
    return BAD.get(f"{script} {flag}", BAD.get(flag))


TABLE = [(script, flag, value) for script in SCRIPTS for flag in flags_of(script) for value in row(script, flag) or []]


@pytest.fixture(scope="session")
def places(tmp_path_factory, stored, quick_run) -> dict[str, str]:
    """What the values in braces stand for; none of it may change."""
    folder = tmp_path_factory.mktemp("places")
    texts = {"text": "not what you think\n", "empty": "", "list": "[1, 2]", "unknown_key": '{"learning_rate": 1}'}
    texts |= {"nan_lr": '{"lr": NaN}', "deep": "[" * 100_000}
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "text.csv").write_text("a,b\n1,2\n")
    (folder / "text.onnx").write_text("not a model\n")
    (folder / "folder").mkdir()
    (folder / "folder.onnx").mkdir()
    np.savez(folder / "npz", **stored)
    (folder / "npz.npz").rename(folder / "npz")
    (folder / "image").write_bytes(b"\x89PNG\r\n\x1a\n and so on")
    (folder / "onnx").write_bytes(b"\x08\x07")
    (folder / "model.onnx").write_bytes(tiny_onnx(quick_run))
    Image.fromarray(stored["test_images"][0]).save(folder / "image.png")
    torch.save({"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}, folder / "nan_weights")
    torch.save({"encoder.weight": torch.zeros(3)}, folder / "foreign_weights")
    return {"missing": str(folder / "missing"), "run": str(quick_run)} | {
        path.name: str(path) for path in folder.iterdir()
    }


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory, phantoms) -> Path:
    """A run folder without training."""
    folder = tmp_path_factory.mktemp("run")
    chosen = Settings(weights="none", stages=2, epochs=1, batch_size=16)
    source = data.find("phantom", None, 28)
    torch.manual_seed(0)
    network = model.BreastResNet(28, 2)
    folders.save_model(folder / "model.pt", network, chosen, 0, source, ["train"])
    files.write_json(folder / "metrics.json", {"config": {}, "splits": {}}, source.notice)
    rows = folders.prediction_rows("val", phantoms.labels, np.linspace(0.01, 0.99, len(phantoms)))
    files.write_csv(folder / "predictions.csv", rows, source.notice)
    return folder


def snapshot(*folders) -> dict:
    return {
        path: path.read_bytes() if path.is_file() else None for folder in folders for path in Path(folder).rglob("*")
    }


def run_here(script, words, monkeypatch, capfd) -> tuple[int, str, str]:
    """Run a script in this process: (exit status, stdout, stderr). Any other end of it is the test's failure."""
    monkeypatch.setattr(sys, "argv", [script, *words])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    threads, random_state, handler = torch.get_num_threads(), torch.get_rng_state(), signal.getsignal(signal.SIGTERM)
    weights.initial_state.cache_clear()
    capfd.readouterr()
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPO / script), run_name="__main__")
            sys.exit(0)
    finally:
        signal.signal(signal.SIGTERM, handler)
        torch.set_num_threads(threads)
        torch.set_rng_state(random_state)
        torch.use_deterministic_algorithms(False)
    return ended.value.code or 0, *capfd.readouterr()


def one_line(err: str) -> str:
    """The only line of an error, beside notes and warnings."""
    (line,) = (line for line in err.splitlines() if not line.startswith(("warning: ", "note: ", "weights: ")))
    assert line.startswith("error: ") and "Traceback" not in err
    return line


def command_line(script, flag, value, places) -> list[str]:
    """A command that would run but for the one bad value."""
    value = value.format(**places)
    words = {"--data": places["npz"], "--weights": "none", "--stages": "2", "--epochs": "1", "--threads": "1"}
    words |= {"--out": "out.onnx" if script == "export.py" else "out"}
    words = {name: word for name, word in words.items() if name in flags_of(script) and name != flag}
    if flag == "--data-root":
        words["--data"] = "breastmnist"
    named = [name for name in flags_of(script) if not name.startswith("--")]
    positional = [value if name == flag else places[POSITIONAL[name]] for name in named]
    if flag in named:
        return [*positional, *sum(words.items(), ())]
    bad = [f"{flag}{value}"] if row(script, flag) == NO_VALUE else [flag, value]
    return [*positional, *sum(words.items(), ()), *bad]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_default(script):
    flags = [action for action in parser_of(script)._actions if action.option_strings and action.dest != "help"]
    assert [action.option_strings[-1] for action in flags if "(default: " not in (action.help or "")] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_has_bad_values(script):
    missing = [flag for flag in flags_of(script) if not row(script, flag) and flag not in ANY_TEXT]
    assert not missing, f"name values that {script} must refuse in BAD"


@pytest.mark.parametrize("script, flag, value", TABLE)
def test_flags(script, flag, value, places, tmp_path, monkeypatch, capfd):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    watched = tmp_path, Path(places["text"]).parent, places["run"]
    before = snapshot(*watched)
    status, out, err = run_here(script, command_line(script, flag, value, places), monkeypatch, capfd)
    assert status == 2 and out == "", err
    assert flag.split()[0] in (line := one_line(err)) or value.format(**places).split("\n")[0] in line, line
    after = snapshot(*watched)
    if script == "tune.py":  # whose study lives in its storage, also when no trial comes to an end
        study = tmp_path / "out", tmp_path / "out/study.db"
        after = {path: content for path, content in after.items() if path not in study}
    assert after == before
    BAD_INPUTS.add((script, flag, value))


# damaged files


class Bomb:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


IMAGE_FILES: dict[str, dict] = {  # with Pillow's options
    "grey.png": {},
    "grey.jpg": {"quality": 95},
    "grey.bmp": {},
    "pages.tif": {},
    "packed pages.tif": {"compression": "tiff_lzw"},
}
TINY = """tiny (uint8[batch, height, width] image) => (float[batch] probability, float[batch] logit) {
    grey = Cast<to = 1>(image)
    axes = Constant<value = int64[2] {1, 2}>()
    logit = ReduceMean<keepdims = 0>(grey, axes)
    probability = Sigmoid(logit)
}"""


def tiny_onnx(folder: Path) -> bytes:
    """A model of a few nodes with the metadata of a run."""
    opset = onnx.helper.make_opsetid("", graph.OPSET)
    network = onnx.helper.make_model(onnx.parser.parse_graph(TINY), opset_imports=[opset], ir_version=10)
    onnx.helper.set_model_props(network, graph.metadata(folders.load(folder), folders.read_metrics(folder)))
    return network.SerializeToString()


@pytest.fixture(scope="session")
def good(tmp_path_factory, quick_run, stored) -> dict[str, bytes]:
    """A good file of each kind that the scripts read."""
    folder = tmp_path_factory.mktemp("good")
    np.savez_compressed(folder / "own.npz", **stored)
    torch.save({f"bn1.{name}": torch.ones(64) for name in ("weight", "bias")}, folder / "weights.pth")
    checkpoint = torch.load(quick_run / "model.pt")
    small = checkpoint["state"]["trunk.fc.weight"]
    torch.save(checkpoint | {"state": {"trunk.fc.weight": small.clone()}}, folder / "model.pt")
    (folder / "model.onnx").write_bytes(tiny_onnx(quick_run))
    (folder / "best.json").write_text(json.dumps(dataclasses.asdict(Settings()), indent=2))
    picture, *others = (Image.fromarray(image) for image in stored["test_images"][:3])
    for name, how in IMAGE_FILES.items():
        picture.save(folder / name, **how, **({"append_images": others, "save_all": True} if "pages" in name else {}))
    (folder / "calibration.json").write_text(json.dumps(dataclasses.asdict(Calibration(2.0, 0.3)), indent=2))
    shutil.copy(quick_run / "predictions.csv", folder)
    (folder / "metrics.json").write_bytes((quick_run / "metrics.json").read_bytes().rstrip())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_npz(path: Path) -> bytes:
    splits = data.load(data.Source(str(path), 28, path, ""), *data.SPLITS)
    return b"".join(split.images.tobytes() + split.labels.tobytes() for split in splits)


def read_onnx(path: Path) -> bytes:
    probabilities = onnxfile.load(path, 1).probabilities(np.zeros((2, 28, 28), np.uint8))
    assert probabilities.shape == (2,)
    return probabilities.tobytes()


def read_weights(path: Path) -> list:
    return [(name, tensor.tolist()) for name, tensor in weights.read_weights(str(path)).items()]


def read_model(path: Path) -> list:
    content = folders.read_checkpoint(path)
    state = content.pop("state").items()
    return [content, [(name, tensor.tolist()) for name, tensor in state]]


def read_image(path: Path) -> list:
    """Frames, or the line that predict.py prints."""
    try:
        frames = list(imagefile.frames(path))
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    assert frames and all(frame.dtype == np.uint8 and frame.ndim == 2 and min(frame.shape) >= 8 for frame in frames)
    return [frame.tolist() for frame in frames]


READ = {
    "own.npz": read_npz,
    "model.pt": read_model,
    "weights.pth": read_weights,
    "model.onnx": read_onnx,
    "best.json": lambda path: Settings(**read_params(path)),
    "calibration.json": folders.read_calibration,
    "predictions.csv": folders.read_predictions,
    "metrics.json": lambda path: folders.read_metrics(path.parent),
    **dict.fromkeys(IMAGE_FILES, read_image),
}
CHECKSUMMED = ("own.npz", "model.pt", "weights.pth")  # where damage cannot go unnoticed


def refuses(name: str, content: bytes, folder: Path) -> str | None:
    """The line with which a file is refused, None if it is taken. Anything else, or 300 MB of memory, is a failure."""
    (folder / name).write_bytes(content)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        READ[name](folder / name)
    except UserError as error:
        assert str(folder / name) in str(error) and str(error) == " ".join(str(error).split())
        BAD_INPUTS.add((name, hash(content)))
        return str(error)
    finally:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000  # kB
        assert [path.name for path in folder.iterdir()] == [name]
    return None


@pytest.mark.parametrize("name", READ)
def test_good_files_are_taken(name, good, tmp_path):
    assert refuses(name, good[name], tmp_path) is None


def shows(name: str, content: bytes, folder: Path):
    (folder / name).write_bytes(content)
    return READ[name](folder / name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READ)
def test_truncated_files(name, good, tmp_path, capfd):
    """Half a table is a table, half an .onnx may be a model, and an image may do without its end, if it shows the same;
    every other file is refused wherever it is cut."""
    whole = good[name]
    ends = sorted({0, 1, len(whole) - 1, *range(0, len(whole), max(len(whole) // 40, 1))})
    lines = {end: refuses(name, whole[:end], tmp_path) for end in ends}
    if name == "predictions.csv":
        ends = [end for end in ends if end < whole.index(b"\n") + 5]
    if name in IMAGE_FILES:
        ends = [end for end in ends if lines[end] or shows(name, whole[:end], tmp_path) != shows(name, whole, tmp_path)]
    assert all(lines[end] for end in ends), lines
    assert capfd.readouterr().err == ""


DAMAGE = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.one_of(st.integers(0, 7), st.binary(min_size=1, max_size=12))),
    min_size=1,
    max_size=4,
)


@pytest.mark.filterwarnings("ignore")  # of torch, numpy and zipfile, about files that are not their own
@pytest.mark.parametrize("name", READ)
def test_flipped_bits_and_foreign_bytes(name, good, tmp_path_factory, capfd):
    """Each ends in one line, or leaves a file that can be read; where there are checksums, with the same content."""
    folder, taken, refused = tmp_path_factory.mktemp("damaged"), 0, 0
    (folder / name).write_bytes(good[name])
    content = READ[name](folder / name)

    @settings(max_examples=100, derandomize=True, deadline=None, database=None)
    @given(DAMAGE)
    def damage(changes):
        nonlocal taken, refused
        damaged = bytearray(good[name])
        for place, change in changes:
            at = int(place * len(damaged))
            if isinstance(change, int):
                damaged[at] ^= 1 << change
            else:
                damaged[at : at + len(change)] = change
        if refuses(name, bytes(damaged), folder):
            refused += 1
        else:
            taken += 1
            assert name not in CHECKSUMMED or READ[name](folder / name) == content

    damage()
    assert refused > 0 and taken + refused >= 100
    assert capfd.readouterr().err == ""


HUGE = torch.zeros(1).expand(2**40)  # four bytes in the file, four terabytes when anything copies it


def saved(content) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def checkpoint_with(good, **changed) -> bytes:
    content = torch.load(io.BytesIO(good["model.pt"]))
    return saved(content | changed)


def data_with(good, **changed) -> bytes:
    return checkpoint_with(good, data=torch.load(io.BytesIO(good["model.pt"]))["data"] | changed)


def npz_with(good, member: str, content: bytes) -> bytes:
    """The good .npz with other bytes for a member."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good["own.npz"])) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, content if name == f"{member}.npy" else old.read(name))
    return file.getvalue()


def npy(array, **header) -> bytes:
    """An array as .npy, with other words in its header."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array) | header)
    return file.getvalue() + array.tobytes()


def png_with(good, width: int, height: int) -> bytes:
    """The good .png with another size in its header, checksum included."""
    header = b"IHDR" + struct.pack(">II", width, height) + good["grey.png"][24:29]
    return good["grey.png"][:12] + header + struct.pack(">I", zlib.crc32(header)) + good["grey.png"][33:]


def jpeg_with(good, width: int, height: int) -> bytes:
    """The good .jpg with another size in its frame header."""
    frame = good["grey.jpg"].index(b"\xff\xc0")
    return patched(good["grey.jpg"], frame + 5, struct.pack(">HH", height, width))


def text_bomb() -> bytes:
    """A compressed text chunk of a PNG, small in the file and 100 MB unpacked."""
    chunk = b"zTXtx\0\0" + zlib.compress(bytes(100_000_000), 9)
    return struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))


def image_of(pixels, kind: str, **how) -> bytes:
    """What Pillow writes of an array."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


def patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def tiff_with(content: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value of a tag of its first page."""
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    entries = range(start + 2, start + 2 + 12 * count, 12)
    (at,) = (entry for entry in entries if struct.unpack_from("<H", content, entry) == (tag,))
    return patched(content, at + 2, struct.pack("<HII", 4, 1, value))


def onnx_with(good, old: str = "", new: str = "", **about) -> bytes:
    """The good .onnx with other words in its graph, or in its metadata."""
    network = onnx.load_from_string(good["model.onnx"])
    changed = onnx.parser.parse_graph(TINY.replace(old, new) if old else TINY)
    assert not old or old in TINY
    network.graph.CopyFrom(changed)
    known = {entry.key: entry.value for entry in network.metadata_props}
    onnx.helper.set_model_props(network, known | about)
    return network.SerializeToString()


def json_with(value, **changed) -> bytes:
    return json.dumps(value | changed).encode()


IMAGES = np.zeros((24, 28, 28), np.uint8)
CALIBRATION = dataclasses.asdict(Calibration(2.0, 0.3))
HEAD = b"split,index,label,probability\n"
CRAFTED = {
    "own.npz": {
        "terabytes declared": lambda good: npz_with(good, "train_images", npy(IMAGES, shape=(2**40, 28, 28))),
        "64 GB declared": lambda good: npz_with(good, "train_images", npy(IMAGES, shape=(80_000_000, 28, 28))),
        "more than any address": lambda good: npz_with(good, "train_images", npy(IMAGES, shape=(2**62, 28, 28))),
        "negative shape": lambda good: npz_with(good, "train_images", npy(IMAGES, shape=(-24, 28, 28))),
        "no shape": lambda good: npz_with(good, "train_images", npy(IMAGES, shape="many")),
        "unknown dtype": lambda good: npz_with(good, "train_images", npy(IMAGES, descr="<q9")),
        "object dtype": lambda good: npz_with(good, "train_images", npy(IMAGES, descr="|O")),
        "code for a header": lambda good: npz_with(good, "train_images", b"\x93NUMPY\x01\x00\x0e\x00__import__('os')"),
        "not a number": lambda good: npz_with(good, "train_images", npy(np.full((24, 28, 28), np.nan))),
        "labels not a number": lambda good: npz_with(good, "train_labels", npy(np.full((24, 1), np.nan))),
        "no array": lambda good: npz_with(good, "train_images", b"text"),
        "empty member": lambda good: npz_with(good, "train_images", b""),
        "an array, not a file of arrays": lambda good: npy(IMAGES),
        "a text": lambda good: b"not an array\n",
        "nothing": lambda good: b"",
    },
    "model.pt": {
        **{f"stages {value}": lambda good, v=value: checkpoint_with(good, stages=v) for value in (0, 30, 10**9, "3")},
        **{f"size {value}": lambda good, v=value: data_with(good, size=v) for value in (0, 10**9, "28", None, 28.0)},
        **{f"{key} missing": lambda good, k=key: data_with(good, **{k: None}) for key in ("name", "md5", "trained_on")},
        "data a list": lambda good: checkpoint_with(good, data=[]),
        "state a list": lambda good: checkpoint_with(good, state=[]),
        "mirror a word": lambda good: checkpoint_with(good, mirror="on"),
        "another format": lambda good: checkpoint_with(good, format="v0"),
        "a list": lambda good: saved([1, 2]),
        "a tensor": lambda good: saved(torch.zeros(2)),
    },
    "weights.pth": {
        "terabytes declared": lambda good: saved({"conv1.weight": HUGE}),
        "in no layer": lambda good: saved({"bn1.weights": torch.ones(64)}),
        "not a number": lambda good: saved({"bn1.weight": torch.full((64,), torch.nan)}),
        "infinite": lambda good: saved({"bn1.weight": torch.full((64,), torch.inf)}),
        "sparse": lambda good: saved({"bn1.weight": torch.ones(64).to_sparse()}),
        "of another width": lambda good: saved({"bn1.weight": torch.ones(65)}),
        "no tensors": lambda good: saved({"bn1.weight": [1.0] * 64}),
        "numbers for names": lambda good: saved({1: torch.ones(64)}),
        "nothing in it": lambda good: saved({}),
        "a tensor": lambda good: saved(torch.ones(64)),
    },
    "best.json": {
        **{
            f"{name} {value!r}": lambda good, n=name, v=value: json_with({}, **{n: v})
            for name in (field.name for field in dataclasses.fields(Settings) if field.name != "weights")
            for value in (None, [], "", "much", float("nan"))
        },
        "a setting that is none": lambda good: b'{"learning_rate": 1}',
        "a number of a million digits": lambda good: b'{"epochs": ' + b"9" * 1_000_000 + b"}",
        "nested without end": lambda good: b'{"lr": ' * 100_000,
        "in UTF-16": lambda good: '{"lr": 1e-3}'.encode("utf-16"),
        "bytes": lambda good: bytes(range(256)),
    },
    "calibration.json": {
        **{
            f"{name} {value!r}": lambda good, n=name, v=value: json_with(CALIBRATION, **{n: v})
            for name in ("temperature", "threshold")
            for value in (None, [], "", "hot", float("nan"), float("inf"), -1, 10**400)
        },
        "n infinite": lambda good: json_with(CALIBRATION, n=float("inf")),
        "temperature 0": lambda good: json_with(CALIBRATION, temperature=0),
        "threshold 2": lambda good: json_with(CALIBRATION, threshold=2),
        "nested without end": lambda good: b'{"a": ' * 100_000,
        "a list": lambda good: b"[]",
    },
    "metrics.json": {
        **{f"{name} {value}": lambda good, n=name, v=value: json_with({"splits": {}}, **{n: v})
           for name in ("splits", "operating_point", "folds") for value in (None, "x", 1)},
        "no splits": lambda good: b"{}",
        "a list": lambda good: b"[]",
    },
    "model.onnx": {
        **{f"no {name}": lambda good, n=name: good["model.onnx"].replace(n.encode(), b"x" * len(n))
           for name in ("temperature", "threshold_rule", "calibrated_on", "dataset", "intended_use", "probability")},
        **{f"{old} for {new}": lambda good, o=old, n=new: onnx_with(good, o, n) for old, new in (
            ("uint8[batch, height, width] image", "uint8[batch, 1, height, width] image"),
            ("uint8[batch, height, width] image", "float[batch, height, width] image"),
            ("uint8[batch, height, width] image", "uint8[batch, 64, 64] image"),
            ("float[batch] logit)", "float[batch] logit, float[batch] probability_2)"),
            ("Cast<to = 1>(image)", "Cast<to = 11>(image)"),
            ("{1, 2}", "{0, 1}"), ("{1, 2}", "{1, 7}"),
            ("Sigmoid(logit)", "Div(logit, logit)"),  # 0 / 0 of a black image
        )},
        **{f"{key} {value[:9]}": lambda good, k=key, v=value: onnx_with(good, **{k: v}) for key, value in (
            ("temperature", "nan"), ("temperature", "0"), ("temperature", "hot"), ("threshold", "2"),
            ("threshold", "nan"), ("calibrated_on_n", "1.5"), ("calibrated_on_n", "9" * 5000),
            ("dataset_source", "{}"), ("dataset_source", "[" * 100_000), ("dataset_source", "x"),
        )},
        "nothing": lambda good: b"",
    },
    "grey.png": {
        **{f"{size} declared": lambda good, s=size: png_with(good, *s) for size in (
            (2**31 - 1, 2**31 - 1), (100_000, 100_000), (2**32 - 1, 1), (0, 0), (28, 7), (28, 8_000_000))},
        "a GIF": lambda good: image_of(IMAGES[0], "GIF"),
        "a WebP": lambda good: image_of(IMAGES[0], "WEBP"),
        "PostScript": lambda good: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\nshowpage\n",
        "a drawing": lambda good: b'<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"/>',
        "a text of gigabytes": lambda good: good["grey.png"][:33] + text_bomb() + good["grey.png"][33:],
        "nothing": lambda good: b"",
        "its mark alone": lambda good: good["grey.png"][:8],
    },
    "grey.jpg": {
        "65500 x 65500 declared": lambda good: jpeg_with(good, 65500, 65500),
        "no height": lambda good: jpeg_with(good, 28, 0),
        "no end, and taller": lambda good: jpeg_with(good, 28, 2000)[:-2],
        "its mark alone": lambda good: b"\xff\xd8\xff",
    },
    "grey.bmp": {
        **{f"{size} declared": lambda good, s=size: patched(good["grey.bmp"], 18, struct.pack("<ii", *s)) for size in (
            (2**31 - 1, 2**31 - 1), (0, 0), (-28, 28), (28, -(2**31)), (28, 29))},
        "9 bits": lambda good: patched(good["grey.bmp"], 28, b"\x09"),
        "a palette of gigabytes": lambda good: patched(good["grey.bmp"], 46, b"\xff" * 4),
    },
    "pages.tif": {
        "not a number": lambda good: image_of(np.full((28, 28), np.nan, np.float32), "TIFF"),
        "infinite": lambda good: image_of(np.full((28, 28), np.inf, np.float32), "TIFF"),
        "32 bits": lambda good: image_of(np.zeros((28, 28), np.int32), "TIFF"),
        **{f"tag {tag} is {value}": lambda good, t=tag, v=value: tiff_with(good["pages.tif"], t, v) for tag, value in (
            (256, 0), (256, 2**31), (256, 2**32 - 1), (257, 2**32 - 1), (258, 64), (259, 99), (262, 99),
            (273, 2**32 - 1))},
        "its mark alone": lambda good: b"II*\0",
        "no page": lambda good: b"II*\0" + bytes(4),
        "a page of itself": lambda good: good["pages.tif"][:8] + b"\1\0" + bytes(12) + b"\x08\0\0\0",
    },
    "packed pages.tif": {
        "packed in another way": lambda good: tiff_with(good["packed pages.tif"], 259, 8),
        "unpacks to less than declared": lambda good: tiff_with(good["packed pages.tif"], 257, 29),
    },
    "predictions.csv": {
        f"{line!r}": lambda good, line=line: HEAD + line
        for line in (
            b"", b"val", b"val,0,1", b"val,0,2,0.5", b"val,0,,0.5", b"val,x,1,0.5", b"val,0,1,nan", b"val,0,1,inf",
            b"val,0,1,-0.1", b"val,0,1,1.1", b"val,0,1,0,5", b"val,0,1,0.5\0", b"val,1e9,1,0.5", b"\xff\xfe,0,1,0.5",
            b'"' + b"x" * 200_000, b"val," + b"9" * 5000 + b",1,0.5", b"val,0,1,0x1p-1", b"val,0,True,0.5",
        )
    },
}  # fmt: skip
CASES = [(name, what) for name, made in CRAFTED.items() for what in made]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, what", CASES, ids=[f"{name} {what[:40]}" for name, what in CASES])
def test_crafted_files(name, what, good, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(READ, "weights.pth", lambda path: weights.initial_state(str(path), 28, 2))
    assert refuses(name, CRAFTED[name][what](good), tmp_path)
    assert capfd.readouterr().err == ""


def test_predict_names_each_bad_image_and_does_the_others(good, places, tmp_path, monkeypatch, capfd):
    crafted = {f"{what} {name}": make(good) for name in IMAGE_FILES for what, make in CRAFTED[name].items()}
    bad = crafted | {f"half {name}": good[name][: len(good[name]) // 2] for name in IMAGE_FILES} | {"empty.png": b""}
    for name, content in (bad | {name: good[name] for name in IMAGE_FILES}).items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    words = [places["model.onnx"], *bad, *IMAGE_FILES, "absent.png", "", "--json", "--threads", "1"]
    status, out, err = run_here("predict.py", words, monkeypatch, capfd)
    *errors, last = err.splitlines()
    assert status == 1 and f"{len(bad) + 2} failed" in last
    names = [*bad, "absent.png", "."]
    assert [line[: len(f"error: {name} ")] for name, line in zip(names, errors)] == [f"error: {n} " for n in names]
    done = [json.loads(line) for line in out.splitlines()]
    pages = [(name, page) for name in IMAGE_FILES for page in ((1, 2, 3) if "pages" in name else (1,))]
    assert [(row["image"], row["page"]) for row in done if row["image"] in IMAGE_FILES] == pages
    assert all(0 <= row["probability"] <= 1 for row in done)


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_unread(good, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "LARGEST", 20_000_000)  # in the place of 4 GiB, to keep the test short
    bomb = npz_with(good, "train_images", npy(np.zeros((30_000, 28, 28), np.uint8)))
    assert len(bomb) < 200_000 and "unpacks to more than" in refuses("own.npz", bomb, tmp_path)
    (tmp_path / "own.npz").unlink()
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(good["model.pt"])) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, old.read(member) + bytes(10_000_000 if member.endswith("data/0") else 0))
    for name in ("model.pt", "weights.pth"):
        assert "damaged" in refuses(name, packed.getvalue(), tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", ["model.pt", "weights.pth", "own.npz"])
def test_code_in_a_file_never_runs(name, legacy, good, tmp_path):
    """Pickled code in a checkpoint, in weights and in an object array, each in the old and the new file format."""
    made, file, bomb = (
        tmp_path / "made by the pickle",
        io.BytesIO(),
        {"bn1.weight": Bomb(tmp_path / "made by the pickle")},
    )
    if name == "own.npz":
        objects = np.array([Bomb(made)], dtype=object)
        np.save(file, objects, allow_pickle=True)
        content = file.getvalue() if legacy else npz_with(good, "train_images", file.getvalue())
    else:
        torch.save(bomb, file, _use_new_zipfile_serialization=not legacy)
        content = file.getvalue()
    (tmp_path / "files").mkdir()
    assert refuses(name, content, tmp_path / "files") and refuses(name, pickle.dumps(bomb), tmp_path / "files")
    assert not made.exists()
    pickle.loads(pickle.dumps(bomb))["bn1.weight"].close()
    assert made.exists()  # the bomb is one
