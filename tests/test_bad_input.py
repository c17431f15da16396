"""Bad input to every flag of every script, and damaged files of every kind: one line, exit 2, nothing written.

Scripts run in this process, so that hundreds of cases take seconds. The fast suite takes the last bad value of a flag.
"""

import argparse
import dataclasses
import functools
import importlib.util
import io
import json
import pickle
import resource
import runpy
import shutil
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import onnx
import pytest
import torch
from conftest import REPO, damaged, one_line
from hypothesis import strategies as st
from PIL import Image

from common import files, imagefile, npzfile, weights
from common.calibration import Calibration
from common.deploy import graph, metadata, onnxfile
from common.errors import UserError
from common.run import folders
from common.settings import Settings, read_params

SCRIPTS = sorted(path.name for path in REPO.glob("*.py"))
NUMBER = ["", "x", "nan", "inf", "-inf", "1e999", "1,5"]
COUNT = ["", "x", "nan", "inf", "-1", "2.5", "1e3", "99999999999999999999"]
WORD = ["", "x", "0", "ON"]
NO_VALUE = ["yes", "", "0"]
LONG = "x" * 300

# What flags must refuse. A value in braces stands for a file or folder that `places` makes.
GROUPS = {
    "--resume, --no-test, --fp16, --int8, --plain, --benchmark, --json": NO_VALUE,
    "--augment, --mirror, --scanners, --groups, --precision": WORD,
    "--class-weights": [*WORD, "Balanced"],
    "--loss": [*WORD, "hinge"],
    "--view": [*WORD, "window", "lesion,frame"],
    "--box": ["", "x", "1,2,3", "1,2,3,x", "1,2,3,nan", "1,2,3,inf", "1,2,3,0", "1,2,3,4,5", "1;2;3;4", "1,2,30,20"],
    "--device": [*WORD, "tpu", "cuda:9"],
    "--pool": [*WORD, "val", "train+test"],
    "--split": [*WORD, "testing"],
    "--lr": [*NUMBER, "0", "-1", "0x1"],
    "--wd": [*NUMBER, "-0.1"],
    "--warmup, --threshold": [*NUMBER, "-0.1", "1.1"],
    "--label-smoothing, --ema, --zoom": [*NUMBER, "-0.1", "1"],
    "--mixup": [*NUMBER, "-0.1", "1e300"],
    "--sensitivity, --specificity, --flag-rate, --prevalence": [*NUMBER, "0", "1", "1.5"],
    "--unit": WORD,
    "--patience, --grid": COUNT,
    "--refit": [*COUNT, "1001"],
    "--epochs, --batch-size, --jobs, --trials": [*COUNT, "0"],
    "--stages": [*COUNT, "0", "1", "5"],
    "--size": [*COUNT, "0", "27", "32", "28.0"],
    "--seed": [*COUNT, "4294967296"],
    "--threads": [*COUNT, "0", "1025"],
    "--folds": [*COUNT, "0", "1", "9999"],
    "--repeats": [*COUNT, "0", "1001"],
    "--bootstrap": [*COUNT, "0", "99", "100001"],
    "--weights": ["", "{missing}", "{folder}", "{text}", "{empty}", "{npz}", "{nan_weights}", "{foreign_weights}"],
    "--data": ["", "{missing}", "{folder}", "{text}", "{empty}", "{image}", "/dev/zero", "two\nlines", "mnist"],
    "--positive": [""],
    "--by": ["", "scanner"],
    "--data-root": ["{missing}", "{text}"],
    "--out, --evidence": ["", "{text}", "{text}/under", LONG],
    "--params": ["{missing}", "{folder}", "{text}", "{empty}", "{list}", "{unknown_key}", "{nan_lr}", "{deep}"],
    "--storage": ["nonsense", "sqlite:////no/such/folder/study.db", "{text}"],
    "--study": [],
    "--search": ["", "x", "lr,", "lr wd", "weights", "lr,lr", "batch-size,batch_size"],
    "--against": ["{missing}", "{folder}", "{text}", "{empty}", "{text}.csv", "{text}.onnx"],
    "evaluate.py RUN_OR_ONNX": ["", "{missing}", "{folder}", "{text}", "{missing}.onnx", "{onnx}", "{folder}.onnx"],
    "export.py RUN": ["", "{missing}", "{folder}", "{text}", "{onnx}"],
    "export.py --data": ["", "{missing}", "{folder}", "/dev/zero", "two\nlines", "mnist"],
    "calibrate.py --out": ["x", "x.ONNX", "{folder}", "{text}/x.onnx"],
    "calibrate.py MODEL.onnx": ["", "{missing}", "{folder}", "{text}", "{onnx}"],
    "calibrate.py --data": ["", "{missing}", "{folder}", "/dev/zero", "two\nlines", "mnist"],
    "export.py --out": ["", "x", "x.ONNX", "x.onnx/", "{folder}", "{folder}.onnx", "{text}/x.onnx", f"{LONG}.onnx"],
    "predict.py MODEL.onnx": ["", "{missing}", "{folder}", "{text}", "{empty}", "{image}", "{onnx}", "{run}"],
    "predict.py IMAGE": ["{folder}"],  # what is no image is named, and the others are done: see below
}
BAD = {flag: values for flags, values in GROUPS.items() for flag in flags.split(", ")}
ANY_TEXT = {"--study"}  # a name: every text is one
pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, numpy and zipfile, about files that are not their own


@functools.cache
def actions_of(script: str) -> dict[str, argparse.Action]:
    """Every flag, by its long name, and every positional argument, by its metavar, of a script."""
    asked = []

    def ask(parser, *_, **__):
        asked.extend(action for action in parser._actions if action.dest != "help")
        sys.exit()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, ask)
        patch.setattr(sys, "argv", [script])
        runpy.run_path(str(REPO / script), run_name="__main__")
    assert asked
    return {action.option_strings[-1] if action.option_strings else str(action.metavar): action for action in asked}


def bad_values(script: str, flag: str) -> list[str]:
    return BAD.get(f"{script} {flag}", BAD.get(flag, []))


@pytest.fixture(scope="session")
def places(tmp_path_factory, good, untrained, onnx_model) -> dict[str, str]:
    """What the values in braces stand for, and under the names of positional arguments good ones; none of it may
    change."""
    folder = tmp_path_factory.mktemp("places")
    texts = {"text": "not what you think\n", "empty": "", "list": "[1, 2]", "unknown_key": '{"learning_rate": 1}'}
    texts |= {"nan_lr": '{"lr": NaN}', "deep": "[" * 100_000, "text.csv": "a,b\n1,2\n", "text.onnx": "not a model\n"}
    contents = {name: text.encode() for name, text in texts.items()}
    contents |= {"image": b"\x89PNG\r\n\x1a\n and so on", "onnx": b"\x08\x07", "own.npz": good["own.npz"]}
    contents |= {"nan_weights": saved({"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)})}
    contents |= {"foreign_weights": saved({"encoder.weight": torch.zeros(3)})}
    contents |= {"MODEL.onnx": onnx_model.path.read_bytes(), "IMAGE": good["grey.png"]}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    for name in ("folder", "folder.onnx"):
        (folder / name).mkdir()
    named = {name: str(folder / name) for name in ("missing", "folder", *contents)}
    runs = dict.fromkeys(("run", "RUN", "RUN_OR_ONNX"), str(untrained.path))
    return named | runs | {"npz": named["own.npz"]}


def snapshot(*folders) -> dict[Path, bytes]:
    return {p: p.read_bytes() if p.is_file() else b"" for folder in folders for p in Path(folder).rglob("*")}


def command_line(script, flag, value, places) -> list[str]:
    """A command that would run but for the one bad value."""
    given = places | {"--weights": "none", "--stages": "2", "--epochs": "1", "--threads": "1"}
    given |= {"--out": "out.onnx" if script == "export.py" else "mine.onnx" if script == "calibrate.py" else "out"}
    given |= {"--data": "breastmnist" if flag == "--data-root" else places["npz"], flag: value}
    known = [name for name in actions_of(script) if name in given]
    return [f"{name}={given[name]}" if name[0] == "-" else given[name] for name in known]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_default_and_every_flag_has_bad_values(script):
    flags = {name: action.help or "" for name, action in actions_of(script).items() if action.option_strings}
    assert [flag for flag, text in flags.items() if "(default: " not in text] == []
    missing = [flag for flag in actions_of(script) if not bad_values(script, flag) and flag not in ANY_TEXT]
    assert not missing, f"name values that {script} must refuse in BAD"


@pytest.mark.parametrize(
    "tried", [pytest.param(slice(-1, None), id="last"), pytest.param(slice(-1), id="others", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_flags(script, tried, places, tmp_path, monkeypatch, runs, subtests):
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    watched = tmp_path, Path(places["text"]).parent, places["run"]
    before = snapshot(*watched)
    cases = [(flag, value) for flag in actions_of(script) for value in bad_values(script, flag)[tried]]
    for name, text in cases:
        with subtests.test(flag=name, value=text):
            value = text.format(**places)
            out, err = runs(script, *command_line(script, name, value, places), status=2)
            line = one_line(err)
            assert out == "" and snapshot(*watched) == before
            assert name.split()[0] in line or value and value.split("\n")[0] in line, line


# damaged files


IMAGE_FILES: dict[str, dict[str, Any]] = {  # with Pillow's options
    "grey.png": {},
    "grey.jpg": {"quality": 95},
    "grey.bmp": {},
    "pages.tif": {},
    "packed pages.tif": {"compression": "tiff_lzw"},
}
DICOM_FILES = ["rtdose.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_jp2klossless.dcm"]  # pydicom's
TINY = """tiny (uint8[batch, height, width] image) => (
    float[batch, rows, columns] evidence, float[batch] typicality, float[batch, four] window, float[batch] found,
    float[batch] probability, float[batch] logit) {
    grey = Cast<to = 1>(image)
    axes = Constant<value = int64[2] {1, 2}>()
    logit = ReduceMean<keepdims = 0>(grey, axes)
    probability = Sigmoid(logit)
    evidence = Identity(grey)
    typicality = Identity(probability)
    found = Identity(probability)
    second = Constant<value = int64[1] {1}>()
    column = Unsqueeze(logit, second)
    window = Concat<axis = 1>(column, column, column, column)
}"""


@pytest.fixture(scope="session")
def good(tmp_path_factory, untrained, stored, phantoms) -> dict[str, bytes]:
    """A good file of each kind that the scripts read."""
    folder = tmp_path_factory.mktemp("good")
    np.savez_compressed(folder / "own.npz", **stored)
    torch.save({f"bn1.{name}": torch.ones(64) for name in ("weight", "bias")}, folder / "weights.pth")
    checkpoint = torch.load(untrained.path / "fold_1.pt")
    ones = {name: tensor.new_ones(()).expand(tensor.shape) for name, tensor in checkpoint["state"].items()}
    torch.save(checkpoint | {"state": ones}, folder / "model.pt")  # so small that damage often meets its structure
    opset = onnx.helper.make_opsetid("", graph.OPSET)
    tiny = onnx.helper.make_model(onnx.parser.parse_graph(TINY), opset_imports=[opset], ir_version=10)
    graph.write(tiny, metadata.describe(untrained, folders.read_metrics(untrained.path)), folder / "model.onnx")
    picture, *others = (Image.fromarray(image) for image in stored["test_images"][:3])
    for name, how in IMAGE_FILES.items():
        pages: dict[str, Any] = {"append_images": others, "save_all": True} if "pages" in name else {}
        picture.save(folder / name, **how, **pages)
    texts = {"best.json": Settings().as_dict(), "calibration.json": CALIBRATION, "metrics.json": METRICS}
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=2))
    files.write_csv(folder / "predictions.csv", folders.prediction_rows(phantoms, np.linspace(0.01, 0.99, 48)))
    folders.save_table(folder, phantoms)
    if PYDICOM:
        for name in DICOM_FILES:
            shutil.copy(pytest.importorskip("pydicom.data").get_testdata_file(name), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_npz(path: Path) -> bytes:
    return b"".join(array.tobytes() for split in npzfile.SPLITS for array in npzfile.read(path, 28, split))


def read_onnx(path: Path) -> bytes:
    probabilities = onnxfile.load(path, 1).probabilities(np.zeros((2, 28, 28), np.uint8))
    assert probabilities.shape == (2,)
    return probabilities.tobytes()


def values(state: dict) -> list:
    """Tensors by name, as what can be compared."""
    return [(name, tensor.tolist()) for name, tensor in state.items()]


def read_model(path: Path) -> list:
    content, model = folders.read_checkpoint(path)
    return [{key: value for key, value in content.items() if key != "state"}, values(model.state_dict())]


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
    "weights.pth": lambda path: values(weights.read_weights(str(path))),
    "model.onnx": read_onnx,
    "best.json": lambda path: Settings(**read_params(str(path))),
    "calibration.json": folders.read_calibration,
    "predictions.csv": folders.read_predictions,
    "split.csv": lambda path: folders.read_table(path).to_csv(),
    "metrics.json": lambda path: folders.read_metrics(path.parent),
    **dict.fromkeys(IMAGE_FILES, read_image),
}
PYDICOM = importlib.util.find_spec("pydicom")
without_pydicom = pytest.mark.skipif(PYDICOM is None, reason="pydicom is not installed; predict.py does without")
KINDS = [*READ, *(pytest.param(name, marks=without_pydicom) for name in DICOM_FILES)]
READ |= dict.fromkeys(DICOM_FILES, read_image)
CHECKSUMMED = ("own.npz", "model.pt", "weights.pth")  # where damage cannot go unnoticed


def read(name: str, content: bytes, folder: Path) -> tuple[str | None, Any]:
    """(the line with which a file is refused, what is read of one that is taken). Anything else, or 300 MB of memory,
    is a failure."""
    (folder / name).write_bytes(content)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        return None, READ[name](folder / name)
    except UserError as error:
        assert str(folder / name) in str(error) and str(error) == " ".join(str(error).split())
        return str(error), None
    finally:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000  # kB
        assert [path.name for path in folder.iterdir()] == [name]
        (folder / name).unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_truncated_files(name, good, tmp_path, capfd):
    """Half a table is a table, and an image may do without its end, if it shows the same; every other file is refused
    wherever it is cut."""
    whole = good[name]
    _, shown = read(name, whole, tmp_path)
    for end in sorted({0, 1, len(whole) - 1, *range(0, len(whole), max(len(whole) // 40, 1))}):
        line, left = read(name, whole[:end], tmp_path)
        if name in ("predictions.csv", "split.csv") and end >= whole.index(b"\n") + 5:
            continue
        assert line or READ[name] is read_image and left == shown, end
    assert capfd.readouterr().err == ""


BYTES = st.one_of(st.integers(0, 7), st.binary(min_size=1, max_size=12))  # a bit to flip, or what stands there instead
DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), BYTES), min_size=1, max_size=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_flipped_bits_and_foreign_bytes(name, good, tmp_path_factory, capfd):
    """Each ends in one line, or leaves a file that can be read; where there are checksums, with the same content."""
    folder, refused = tmp_path_factory.mktemp("damaged"), []
    _, content = read(name, good[name], folder)

    @hypothesis.settings(max_examples=100, derandomize=True, deadline=None, database=None)
    @hypothesis.given(DAMAGE)
    def damage(changes):
        line, shown = read(name, damaged(good[name], changes), folder)
        refused.append(line)
        assert line or name not in CHECKSUMMED or shown == content

    damage()
    assert any(refused) and len(refused) >= 100
    assert capfd.readouterr().err == ""


def saved(content) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def npy(array, **header) -> bytes:
    """An array as .npy, with other words in its header."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array) | header)
    return file.getvalue() + array.tobytes()


def image_of(pixels, kind: str) -> bytes:
    """What Pillow writes of an array."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def rezipped(content: bytes, change) -> bytes:
    """A zip file with every member as change(name, bytes) makes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


def npz_with(npz: bytes, member: str, content: bytes) -> bytes:
    """An .npz with other bytes for a member."""
    return rezipped(npz, lambda name, old: content if name == f"{member}.npy" else old)


def patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG, checksum included."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def onnx_with(content: bytes, old: str = "", new: str = "", **about) -> bytes:
    """The good .onnx with other words in its graph, or in its metadata."""
    network = onnx.load_from_string(content)
    assert old in TINY
    network.graph.CopyFrom(onnx.parser.parse_graph(TINY.replace(old, new, 1)))
    onnx.helper.set_model_props(network, {entry.key: entry.value for entry in network.metadata_props} | about)
    return network.SerializeToString()


RATES = {"recall": 0.9, "recall_ci95": [0.8, 1.0], "specificity": None, "specificity_ci95": [None, None]}
CALIBRATION = dataclasses.asdict(Calibration(2.0, 0.1, 0.3, chosen_on={"on": "val"}, achieved=[RATES]))
METRICS: dict = {"splits": {}, "results": []}
INT_MAX, UINT_MAX = 2**31 - 1, 2**32 - 1
NUMBERS: tuple = (None, [], "", "much", float("nan"))
NO_SETTING = {
    "a number of a million digits": b'{"epochs": ' + b"9" * 1_000_000 + b"}",
    "nested without end": b'{"lr": ' * 100_000,
    "in UTF-16": '{"lr": 1e-3}'.encode("utf-16"),
    "bytes": bytes(range(256)),
}


def json_cases(base: dict, changes) -> dict[str, bytes]:
    """Objects as JSON, each with another value of one key. changes: (key, value)."""
    return {f"{key} {str(value)[:9]!r}": json.dumps(base | {key: value}).encode() for key, value in changes}


def crafted_npz(good: bytes) -> dict[str, bytes]:
    zeros = np.zeros((24, 28, 28), np.uint8)
    images = {
        "terabytes declared": npy(zeros, shape=(2**40, 28, 28)),
        "64 GB declared": npy(zeros, shape=(80_000_000, 28, 28)),
        "more than any address": npy(zeros, shape=(2**62, 28, 28)),
        "negative shape": npy(zeros, shape=(-24, 28, 28)),
        "no shape": npy(zeros, shape="many"),
        "unknown dtype": npy(zeros, descr="<q9"),
        "code for a header": b"\x93NUMPY\x01\x00\x0e\x00__import__('os')",
        "no array": b"text",
        "empty member": b"",
    }
    return {what: npz_with(good, "train_images", content) for what, content in images.items()} | {
        "encrypted": patched(good, good.index(b"PK\x01\x02") + 8, b"\x01"),
        "zeros inside": patched(good, 300, bytes(300)),
        "an array, not a file of arrays": npy(zeros),
        "a text": b"not an array\n",
        "nothing": b"",
    }


def crafted_checkpoints(good: bytes) -> dict[str, bytes]:
    checkpoint = torch.load(io.BytesIO(good))
    changes: list[dict] = [{"stages": value} for value in (0, 30, 10**9, "3")]
    changes += [{"data": checkpoint["data"] | {"size": value}} for value in (0, 10**9, "28", None, 28.0)]
    changes += [{"data": checkpoint["data"] | {key: None}} for key in ("sets", "md5", "trained_on")]
    changes += [{"data": checkpoint["data"] | {"sets": value}} for value in ("x", [3], [{"spec": "x"}])]
    changes += [{"data": []}, {"state": []}, {"mirror": "on"}]
    changes += [{"format": f"breastmnist-resnet18 v{version}"} for version in (0, 1, 3)]
    whole = {"a list": saved([1, 2]), "nothing": b"", "of others": saved({"conv1.weight": torch.zeros(2)})}
    return whole | {f"{change}": saved(checkpoint | change) for change in changes}


def crafted_onnx(good: bytes) -> dict[str, bytes]:
    names = "temperature", "threshold_rule", "dataset", "intended_use", "probability"
    image = "uint8[batch, height, width] image"
    graphs = [
        (image, "uint8[batch, 1, height, width] image"),
        (image, "float[batch, height, width] image"),
        (image, "uint8[batch, 64, 64] image"),
        ("float[batch] logit)", "float[batch] logit, float[batch] probability_2)"),
        ("Cast<to = 1>(image)", "Cast<to = 11>(image)"),
        ("{1, 2}", "{0, 1}"),
        ("{1, 2}", "{1, 7}"),
        ("Sigmoid(logit)", "Div(logit, logit)"),  # 0 / 0 of a black image
    ]
    abouts = [("temperature", text) for text in ("nan", "0", "hot")] + [("threshold", text) for text in ("2", "nan")]
    abouts += [("achieved", text) for text in ("{}", "[3]", '[{"recall": 1}]', "[" * 100_000)]
    abouts += [("chosen_on", text) for text in ("[]", "3", "x")]
    abouts += [(f"fingerprints_{name}", text) for name in ("trained_on", "chosen_on") for text in ("A", "é", "AAAA")]
    abouts += [("dataset_source", text) for text in ("{}", "[" * 100_000, "x", '{"sets": [3]}')]
    return (
        {f"no {name}": good.replace(name.encode(), b"x" * len(name)) for name in names}
        | {f"{old} for {new}": onnx_with(good, old, new) for old, new in graphs}
        | {f"{key} {text[:9]}": onnx_with(good, **{key: text}) for key, text in abouts}
        | {"nothing": b""}
    )


def crafted_images(good: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    png = good["grey.png"]
    sizes = (INT_MAX, INT_MAX), (100_000, 100_000), (UINT_MAX, 1), (0, 0), (28, 7), (28, 8_000_000)
    headers = [png_chunk(b"IHDR", struct.pack(">II", *size) + png[24:29]) for size in sizes]
    text_bomb = png_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(100_000_000), 9))  # small in the file
    return {
        "grey.png": {f"{size} declared": patched(png, 8, header) for size, header in zip(sizes, headers)} | {
            "an icon": image_of(np.zeros((28, 28), np.uint8), "ICO"),
            "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\nshowpage\n",
            "a drawing": b'<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"/>',
            "a text of gigabytes": png[:33] + text_bomb + png[33:],
            "nothing": b"",
            "its mark alone": png[:8],
        },
        "grey.jpg": {"its mark alone": b"\xff\xd8\xff"},
        "grey.bmp": {
            "a palette of gigabytes": patched(good["grey.bmp"], 46, b"\xff" * 4),
            "2 giga pixels declared": patched(good["grey.bmp"], 18, struct.pack("<ii", INT_MAX, INT_MAX)),
        },
        "pages.tif": {
            "32 bits": image_of(np.zeros((28, 28), np.int32), "TIFF"),
            "no page": b"II*\0" + bytes(4),
            "a page of itself": good["pages.tif"][:8] + b"\1\0" + bytes(12) + b"\x08\0\0\0",
        },
        "packed pages.tif": {"half of it": good["packed pages.tif"][: len(good["packed pages.tif"]) // 2]},
    }  # fmt: skip


def crafted_tables(good: bytes) -> dict[str, bytes]:
    header, first, *_ = good.splitlines(keepends=True)
    return {
        "no column": good.replace(b"hospital", b"hospice", 1),
        "a label of words": good.replace(first, first.replace(b",1,", b",one,").replace(b",0,", b",none,"), 1),
        "half a fingerprint": good[:-20],
        "too few cells": header + first.rpartition(b",")[0],
        "a quotation mark": header + b'"' + first,
        "nothing": b"",
        "bytes": bytes(range(256)),
    }


ROWS = (
    b"", b"val", b"val,0,1", b"val,0,2,0.5", b"val,0,,0.5", b"val,x,1,0.5", b"val,0,1,nan", b"val,0,1,inf",
    b"val,0,1,-0.1", b"val,0,1,1.1", b"val,0,1,0,5", b"val,0,1,0.5\0", b"val,1e9,1,0.5", b"\xff\xfe,0,1,0.5",
    b'"' + b"x" * 200_000, b"val," + b"9" * 5000 + b",1,0.5", b"val,0,1,0x1p-1", b"val,0,True,0.5",
)  # fmt: skip


@pytest.fixture(scope="session")
def crafted(good) -> dict[str, dict[str, bytes]]:
    """Files made to mislead, by kind and by what is wrong with them."""
    settings = [(f.name, value) for f in dataclasses.fields(Settings) if f.name != "weights" for value in NUMBERS]
    wrong: tuple = (None, [], "", "hot", float("nan"), float("inf"), -1, 10**400)
    calibration = [(name, value) for name in ("temperature", "threshold") for value in wrong]
    calibration += [("temperature", 0), ("threshold", 2)]
    no_images: tuple = (None, [], 3)
    no_rates: tuple = (None, {}, [3], [{}], [RATES | {"recall": "high"}])
    calibration += [("chosen_on", value) for value in no_images] + [("achieved", value) for value in no_rates]
    metrics = [(name, value) for name in ("splits", "results", "folds") for value in (None, "x", 1)]
    return crafted_images(good) | {
        "own.npz": crafted_npz(good["own.npz"]),
        "model.pt": crafted_checkpoints(good["model.pt"]),
        "model.onnx": crafted_onnx(good["model.onnx"]),
        "best.json": json_cases({}, settings) | NO_SETTING,
        "calibration.json": json_cases(CALIBRATION, calibration)
        | {"nested without end": b'{"a": ' * 100_000, "a list": b"[]"},
        "metrics.json": json_cases(METRICS, metrics) | {"no splits": b"{}", "a list": b"[]"},
        "split.csv": crafted_tables(good["split.csv"]),
        "predictions.csv": {f"{row[:20]!r}": b"split,index,label,probability\n" + row for row in ROWS},
    }


@pytest.mark.parametrize("name", KINDS)
def test_good_files_are_taken_and_crafted_ones_are_not(name, good, crafted, tmp_path, capfd, subtests):
    assert read(name, good[name], tmp_path)[0] is None
    for what, content in crafted.get(name, {}).items():
        with subtests.test(what):
            assert read(name, content, tmp_path)[0]
    assert capfd.readouterr().err == ""


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_unread(good, tmp_path, monkeypatch):
    monkeypatch.setattr(npzfile, "LARGEST", 20_000_000)  # in the place of 4 GiB, to keep the test short
    bomb = npz_with(good["own.npz"], "train_images", npy(np.zeros((30_000, 28, 28), np.uint8)))
    assert len(bomb) < 200_000 and "holds an array of more than" in read("own.npz", bomb, tmp_path)[0]
    packed = rezipped(good["model.pt"], lambda name, old: old + bytes(10_000_000 * name.endswith("data/0")))
    for name in ("model.pt", "weights.pth"):
        assert "damaged" in read(name, packed, tmp_path)[0]


class Bomb:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", ["model.pt", "weights.pth", "own.npz"])
def test_code_in_a_file_never_runs(name, legacy, good, tmp_path, tmp_path_factory):
    """Pickled code in a checkpoint, in weights and in an object array, each in the old and the new file format."""
    made, file = tmp_path_factory.mktemp("made") / "by the pickle", io.BytesIO()
    bomb = {"bn1.weight": Bomb(made)}
    if name == "own.npz":
        np.save(file, np.array([Bomb(made)], dtype=object), allow_pickle=True)
        content = file.getvalue() if legacy else npz_with(good["own.npz"], "train_images", file.getvalue())
    else:
        torch.save(bomb, file, _use_new_zipfile_serialization=not legacy)
        content = file.getvalue()
    assert read(name, content, tmp_path)[0] and read(name, pickle.dumps(bomb), tmp_path)[0]
    assert not made.exists()
    pickle.loads(pickle.dumps(bomb))["bn1.weight"].close()
    assert made.exists()  # the bomb is one
