"""predict.py, and the README's own consumer, as users run them: in a process that has numpy, Pillow, onnxruntime and
nothing else of what is installed."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import PIL
import pytest
from common_fixtures import with_metadata
from conftest import REPO
from PIL import Image

import predict
from common import data, fingerprints, imagefile, phantom
from common.calibration import sigmoid
from common.deploy import graph, typicality
from common.deploy.patients import Known
from common.deploy.typicality import Typicality
from common.evidence import overlay

# Stands in for a trained network: the log-odds grow with the mean grey level. 128 is even odds.
NETWORK = f"""
<ir_version: 9, opset_import: ["": {graph.OPSET}]>
network (uint8[batch, 28, 28] frame_prepared) => (float[batch, 28, 28] frame_evidence, float[batch, 28] frame_features)
<float even = {{128.0}}, float scale = {{0.05}}, int64[1] rows = {{1}}>
{{
    grey = Cast <to = 1> (frame_prepared)
    above = Sub (grey, even)
    frame_evidence = Mul (above, scale)
    frame_features = ReduceMean <keepdims = 0> (grey, rows)
}}
"""
MARK = fingerprints.encode(fingerprints.fingerprint(phantom.generate(1, 28, seed=99)[0]))  # of another image
ABOUT = {
    "threshold": "0.4", "threshold_rule": "a rule", "temperature": "1.0", "offset": "0.0", "found_threshold": "0.0",
    "typicality_threshold": "0.01", "typicality_rule": typicality.RULE,
    "fingerprints_trained_on": MARK, "fingerprints_chosen_on": "",
    "dataset": "PHANTOM data (generated, not ultrasound)",
    "dataset_source": json.dumps(data.find(["phantom"], None, 28).describe() | {"trained_on": ["train"]}),
    "intended_use": "research only",
    "chosen_on": json.dumps({"on": "val", "hospitals": ["phantom"], "hospital_left_out": False, "n": 9}),
    "achieved": json.dumps([
        {"recall": 0.95, "recall_ci95": [0.9, 1.0], "specificity": 0.6, "specificity_ci95": [0.5, 0.7]}
    ]),
}  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """A folder that holds links to the three packages, and to the libraries that their wheels bring."""
    folder = tmp_path_factory.mktemp("bare")
    homes = [Path(str(package.__file__)).parent for package in (np, PIL, onnxruntime)]
    for path in [*homes, *homes[0].parent.glob("*.libs")]:
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A file of the stand-in, to which every image is as usual as those of training."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    fitted = Typicality(np.zeros((1, 1, 28), np.float32), np.eye(28, dtype=np.float32)[None], np.zeros(1, np.float32))
    assembled = graph.assemble({"frame": onnx.parser.parse_model(NETWORK)}, 28, "square", fitted)
    graph.write(assembled, ABOUT, path)
    return path


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    """Four phantoms of 60 × 90."""
    return phantom.generate(4, 90, seed=0)[0][:, :60].copy()


@pytest.fixture(scope="module")
def folder(grey, tmp_path_factory) -> Path:
    """One image of each kind, and three that cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "deeper").mkdir()
    first, *others = (Image.fromarray(image) for image in grey)
    first.save(folder / "a.png")
    first.convert("RGB").save(folder / "b.jpg", quality=95)
    others[0].save(folder / "deeper" / "c.bmp")
    first.save(folder / "pages.tif", save_all=True, append_images=others)
    Image.fromarray(grey[0].astype(np.uint16) * 257).save(folder / "deep.tiff")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "not.png").write_text("an image")
    Image.fromarray(grey[0, :7]).save(folder / "small.png")
    return folder


@pytest.fixture
def start(bare, model):
    """A function that starts predict.py with the model, in the bare environment."""
    code = f"""import sys
sys.path[:0] = [{str(REPO)!r}, {str(bare)!r}]
import predict
sys.argv[0] = "predict.py"
try:
    predict.command.run(predict.main)
finally:
    assert not {{"torch", "onnx", "medmnist", "tqdm"}} & set(sys.modules)"""

    def start(*args, model=model) -> subprocess.Popen:
        command = [sys.executable, "-I", "-S", "-c", code, str(model), "--threads", "1", *map(str, args)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    return start


@pytest.fixture
def run(start):
    """A function that runs predict.py to its end. Returns: (stdout, stderr)."""

    def run(*args, stdin="", status=0, **kwargs) -> tuple[str, str]:
        process = start(*args, **kwargs)
        out, err = process.communicate(stdin, timeout=120)
        assert process.returncode == status and "Traceback" not in err, err
        return out, err

    return run


def expected(image: np.ndarray) -> float:
    """P(malignant) by the stand-in network."""
    return float(sigmoid(0.05 * (imagefile.prepare(image, 28).mean() - 128)))


def test_table_of_a_folder(run, folder, grey):
    out, err = run(folder, folder / "absent.png", status=1)
    title, rule, kept, rare, header, *rows = out.splitlines()
    assert "generated, not ultrasound" in title and "research only" in title
    assert rule == "threshold 0.4000: a rule"
    assert kept.startswith("Expected at this threshold: sensitivity 0.9500 [.900 1.000] and specificity 0.6000 [.500")
    assert rare.startswith("typicality threshold 0.01: an image below this typicality is unlike the training images;")
    assert header.split() == ["P(malignant)", "typicality", "page", "image"]
    pages = [("a.png", 1, 0), ("b.jpg", 1, 0), ("deep.tiff", 1, 0), *(("pages.tif", i + 1, i) for i in range(4))]
    for row, (name, page, image) in zip(rows, [*pages, ("deeper/c.bmp", 1, 1)], strict=True):
        said = re.fullmatch(r" +([\d.]+)  +[\d.]+  (flagged for review|not flagged) +(\d+)  (.+)", row).groups()
        assert said[2:] == (str(page), str(folder / name))
        assert float(said[0]) == pytest.approx(expected(grey[image]), abs=0.01)  # within a grey level of Pillow
        assert said[1] == ("flagged for review" if float(said[0]) >= 0.4 else "not flagged")
    *errors, last = err.splitlines()
    assert [re.match(r"error: .*/(\w+)\.png ", line).group(1) for line in errors] == ["cut", "not", "small", "absent"]
    assert re.fullmatch(r"8 images of 9 files, 4 failed in [\d.]+ s, \d+ images/s", last)


def test_json_lines_of_paths_from_stdin(run, folder, grey):
    paths = f"{folder / 'a.png'}\n\n{folder / 'deeper'}\n"
    out, err = run("--json", "--threshold", 0.999, stdin=paths)
    first, second = (json.loads(line) for line in out.splitlines())
    assert first["image"] == str(folder / "a.png") and first["page"] == 1 and second["image"].endswith("c.bmp")
    for line, image in ((first, grey[0]), (second, grey[1])):
        assert line["probability"] == pytest.approx(expected(image), abs=0.01)
        assert line["probability"] == pytest.approx(float(sigmoid(line["logit"])), abs=1e-6)
        assert line["flagged"] is False and line["threshold"] == 0.999
        assert "PHANTOM" in line["dataset"] and line["intended_use"] == "research only"
    assert run("--json", "--threshold", 0.999, "-", stdin=paths)[0] == out


def test_what_is_unlike_the_training_images_is_marked_in_place_of_a_flag(run, onnx_model, folder, tmp_path):
    """The fit of 48 phantoms: no p-value lies below 1/49, so a file of so few marks nothing below 0.01."""
    Image.new("L", (50, 50), 255).save(tmp_path / "white.png")
    raised = with_metadata(onnx_model.path, tmp_path / "raised.onnx", typicality_threshold="0.03")
    paths = (folder / "a.png", tmp_path / "white.png")
    *heading, ordinary, white = run(*paths, model=raised)[0].splitlines()
    assert any(line.startswith("typicality threshold 0.03: ") for line in heading)
    assert "unlike the" not in ordinary and "flagged" not in white
    assert re.search(r" 0\.0204  unlike the training images +1  .*white\.png$", white)
    for model, marked in ((raised, [False, True]), (onnx_model.path, [False, False])):
        lines = [json.loads(line) for line in run("--json", *paths, model=model)[0].splitlines()]
        assert [line["flagged"] is None for line in lines] == marked
        assert [line["unlike_training"] for line in lines] == marked and lines[1]["typicality"] == pytest.approx(1 / 49)


def test_masks_and_other_files_of_a_folder_are_counted_and_a_named_mask_is_taken(run, grey, tmp_path):
    for name in ("x.png", "x_mask.png", "masks/x.png", "._y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(grey[0]).save(tmp_path / name)
    out, err = run("--json", tmp_path)
    (line,) = map(json.loads, out.splitlines())
    note, last = err.splitlines()
    assert line["image"] == str(tmp_path / "x.png") and last.startswith("1 image of 1 file in ")
    hidden, masks = "1 file skipped: hidden (._y.png)", "2 files skipped: masks (x_mask.png, x.png)"
    assert note == f"note: {tmp_path}: {hidden}; {masks}"
    out, err = run("--json", tmp_path / "x_mask.png")
    assert json.loads(out)["image"].endswith("x_mask.png") and "skipped" not in err
    (tmp_path / "x.png").unlink()
    note, error = run(tmp_path, status=2)[1].splitlines()
    assert note.startswith("note: ") and error.startswith("error: IMAGE: no image files there")


def test_an_image_of_the_training_is_marked(run, model, folder, grey, tmp_path):
    known = fingerprints.encode(fingerprints.fingerprint(grey[:1]))
    seen = with_metadata(model, tmp_path / "seen.onnx", fingerprints_trained_on=known)
    paths = folder / "a.png", folder / "b.jpg", folder / "deeper" / "c.bmp"
    marks = [True, True, False]
    assert [json.loads(line)["seen_in_training"] for line in run("--json", *paths, model=seen)[0].splitlines()] == marks
    lines = run(*paths, model=seen)[0].splitlines()[-3:]
    assert [line.endswith("  (trained on this image)") for line in lines] == marks
    assert json.loads(run("--json", paths[0])[0])["seen_in_training"] is False


HEAVY = ["torch", "torchvision", "pandas", "tqdm", "matplotlib", "sklearn", "optuna", "onnx", "medmnist", "jinja2"]
HEAVY += ["filelock", "pydicom"]
HEAVY += [f"common.{name}" for name in ("data", "training", "folds", "phantom", "download", "crossvalidation", "model")]
HEAVY += [
    f"common.{name}" for name in ("settings", "duplicates", "augment", "npzfile", "weights", "imagetable", "publicsets")
]
HEAVY += ["common.run.search", "common.run.flags", "common.run.folders", "common.show.figures", "common.deploy.graph"]


def test_predict_loads_only_what_it_needs():
    code = "import sys, predict; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert set(HEAVY) & set(out.split()) == set()


@pytest.mark.parametrize("env", [
    {"PYTHONIOENCODING": "cp1251"}, {"PYTHONIOENCODING": "ascii"},
    {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}, {"PYTHONUTF8": "0", "LC_ALL": "C"},
])  # fmt: skip
def test_any_console_and_any_name(model, grey, tmp_path, env):
    """Names that the console's encoding lacks are shown as escapes, read from stdin too; no file depends on it."""
    path = tmp_path / "größe 乳 ×.png"
    Image.fromarray(grey[0]).save(path)
    Image.fromarray(grey[0, :7]).save(tmp_path / "малый.png")
    command = [sys.executable, "-X", "warn_default_encoding", "predict.py"]
    for shown in ([], ["--json"]):
        given = "".join(f"{name}\n" for name in sorted(map(str, tmp_path.glob("*.png"))))
        ended = subprocess.run(
            [*command, model, *shown], cwd=REPO, input=given.encode(), capture_output=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        )  # fmt: skip
        assert ended.returncode == 1 and b"Traceback" not in ended.stderr, ended.stderr
        unnamed = [
            line for line in ended.stderr.splitlines() if b"EncodingWarning" in line and str(REPO).encode() in line
        ]
        assert unnamed == []
        assert len(ended.stdout.splitlines()) == (1 if shown else 6) and b"is 7" in ended.stderr
        if shown:
            assert json.loads(ended.stdout)["image"].encode("utf-8", "surrogateescape") == str(path).encode()


@pytest.mark.parametrize("versions, warned", [
    ({"onnxruntime": "1.16.3", "pillow": "10.4.0"}, ["onnxruntime 1.16.3"]),
    ({"onnxruntime": "1.17.0", "pillow": "9.5.0"}, ["pillow 9.5.0"]),
    ({"onnxruntime": "1.17", "pillow": "10.1.0"}, []), ({"pillow": "13.0.0.dev1"}, []), ({"pillow": "unknown"}, []),
])  # fmt: skip
def test_packages_that_are_too_old_are_named(versions, warned, monkeypatch, capsys):
    def version(package):
        if package in versions:
            return versions[package]
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", version)
    predict.warn_of_old_packages()
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("warning: ").partition(" is too old. Run: pip install '")[0] for line in lines] == warned


def test_overlays_of_images_of_one_name_are_all_kept(run, grey, tmp_path):
    """Also those of an earlier call."""
    (scans := tmp_path / "scans" / "deeper").mkdir(parents=True)
    for i, path in enumerate((scans.parent / "a.png", scans.parent / "a.bmp", scans / "a.png")):
        Image.fromarray(grey[i]).save(path)
    folder = tmp_path / "evidence"
    out, _ = run("--json", "--evidence", folder, scans.parent)
    found = {line["evidence"]: line["image"] for line in map(json.loads, out.splitlines())}
    assert list(found) == [str(folder / f"a_page1{n}.png") for n in ("", "_2", "_3")]
    for path, image in found.items():
        pixels = imagefile.prepare(next(imagefile.frames(image)), 28)  # which are the stand-in's evidence
        expected = overlay(next(imagefile.frames(image)), 0.05 * (pixels - 128.0))
        assert np.abs(np.asarray(Image.open(path)).astype(int) - np.asarray(expected)).max() <= 2
    kept = {path: Path(path).read_bytes() for path in found}
    title = run("--evidence", folder, scans / "a.png")[0]
    assert f"{folder}: vermillion is evidence for malignant, blue is evidence against; " in title
    assert len(list(folder.iterdir())) == 4 and all(Path(path).read_bytes() == data for path, data in kept.items())
    assert "cannot be written" in run("--evidence", scans / "a.png", scans / "a.png", status=2)[1]


@pytest.mark.parametrize("given, maps, refused", [
    (["scans"], "scans", True), (["scans"], "scans/maps", True), (["scans/a.png"], "scans", True),
    (["a.png", "scans"], "scans/new/maps", True), (["link"], "scans", True), (["-"], "scans/maps", True),
    (["scans"], "maps", False), (["scans"], ".", False), (["scans/a.png"], "scans/maps", False), (["-"], "maps", False),
])  # fmt: skip
def test_overlays_never_go_where_the_next_prediction_looks_for_images(run, grey, tmp_path, given, maps, refused):
    (tmp_path / "scans").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "scans", target_is_directory=True)
    for path in (tmp_path / "scans/a.png", tmp_path / "a.png"):
        Image.fromarray(grey[0]).save(path)
    before = sorted(tmp_path.rglob("*"))
    paths = [path if path == "-" else tmp_path / path for path in given]
    out, err = run("--evidence", tmp_path / maps, *paths, stdin=f"{tmp_path}/scans\n", status=2 if refused else 0)
    assert (out == "") == (sorted(tmp_path.rglob("*")) == before) == refused
    assert not refused or err.count("\n") == 1 and "would read the maps as images. Name another folder" in err


def test_no_such_flag_no_image_and_no_model(run, tmp_path):
    out, err = run("--js", tmp_path, status=2)  # test_bad_input.py has bad values of flags
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and "--js" in err
    assert "no image files there" in run(tmp_path, status=2)[1]
    assert "no image files there" in run(status=2)[1]
    assert "there is no such file. Make the file" in run("image.png", model=tmp_path / "absent.onnx", status=2)[1]
    for first in (tmp_path, "image.PNG"):
        assert (
            f"{first} is not an .onnx file. Name an .onnx file first: predict.py MODEL.onnx"
            in run(model=first, status=2)[1]
        )


@pytest.mark.parametrize("box", ["0.1,0.2,0.3,0.4", "900,900,50,50"])
def test_a_box_that_does_not_lie_in_the_image_is_refused_if_the_model_uses_boxes(box, run, folder, lesion_model):
    (folder / "t.csv").write_text(f"image,x,y,width,height\na.png,{box}\nb.jpg,,,,\n", encoding="utf-8")
    out, err = run("--json", folder / "t.csv", model=lesion_model.path, status=1)
    assert len(out.splitlines()) == 1 and f"its box ({box.replace(',', ', ')}) does not lie in them" in err
    out, err = run("--json", folder / "t.csv")
    assert len(out.splitlines()) == 2 and "t.csv: the boxes are not used" in err and "error" not in err


def test_a_box_is_of_one_image(run, folder, lesion_model):
    (folder / "t.csv").write_text("image\na.png\n", encoding="utf-8")
    box = ["--box", "5,5,20,20"]
    for images in ([folder], [folder / "t.csv"], [folder / "a.png", folder / "b.jpg"], ["-"]):
        _, err = run(*images, *box, model=lesion_model.path, status=2)
        assert "--box: a box is of one IMAGE. For several images, give a table with the boxes" in err
    (line,) = run("--json", folder / "a.png", *box, model=lesion_model.path)[0].splitlines()
    assert json.loads(line)["found"] == 1


def test_a_table_that_cannot_be_read_does_not_end_the_prediction(run, folder, tmp_path):
    (tmp_path / "notes.txt").write_text("seen on Monday\nby nobody\n", encoding="utf-8")
    for words in ([], ["--evidence", tmp_path / "maps"]):
        out, err = run("--json", *words, folder / "a.png", tmp_path / "notes.txt", folder / "b.jpg", status=1)
        assert [Path(json.loads(line)["image"]).name for line in out.splitlines()] == ["a.png", "b.jpg"]
        error, last = err.splitlines()
        assert error.startswith(f"error: {tmp_path / 'notes.txt'}: has no column 'image'")
        assert last.startswith("2 images of 3 files, 1 failed")


def test_patients_of_two_tables_are_never_the_same(run, folder):
    for name, image in (("north", "a.png"), ("south", "pages.tif")):
        (folder / f"{name}.csv").write_text(f"image,patient\n{image},1\n", encoding="utf-8")
    north, south = folder / "north.csv", folder / "south.csv"
    rows = [json.loads(line) for line in run("--json", north, south)[0].splitlines()]
    assert [(row["patient"], row["hospital"], row["images"]) for row in rows if "images" in row] == [
        ("1", str(north), 1),
        ("1", str(south), 4),
    ]
    rows = run(north, south)[0].splitlines()[-2:]
    assert [row.split()[-2:] for row in rows] == [["1,", str(north)], ["1,", str(south)]]
    assert run(north)[0].splitlines()[-1].split()[-2:] == ["1", "1"]  # one image, patient 1, and no hospital


def test_names_do_not_command_the_terminal(run, folder, tmp_path):
    shutil.copy(folder / "a.png", tmp_path / "red\x1b[31m\n.png")
    out, _ = run(tmp_path)
    assert "\x1b" not in out and out.splitlines()[-1].endswith(r"red\x1b[31m\n.png")


def test_a_closed_pipe_ends_it_quietly(start, folder):
    process = start("--json")
    process.stdin.write(f"{folder / 'a.png'}\n" * 400)  # fits a pipe's buffer; what is printed does not
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["page"] == 1
    process.stdout.close()
    process.stdin.close()
    assert process.wait(timeout=60) == 141 and process.stderr.read() == ""


def test_batches_have_one_shape_and_fit_memory():
    shapes = [(20, 20)] * 40 + [(30, 20)] + [(20, 20)] + [(2500, 2000)] * 2
    pages = [predict.Page(Path(), 1, np.broadcast_to(np.uint8(0), shape), Known()) for shape in shapes]
    batches = list(predict.batches(iter(pages)))
    assert [len(batch) for batch in batches] == [16, 16, 8, 1, 1, 1, 1] and sum(batches, []) == pages


@pytest.mark.parametrize("kind", ["colour", "16 bits", "12 bits in 16", "turned by EXIF"])
def test_readme_s_consumer_reads_files_as_predict_py_does(kind, bare, onnx_model, grey, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(encoding="utf-8"), re.S)
    assert len(code.splitlines()) <= 26
    (path,) = re.findall(r'InferenceSession\("(.+?)"', code)
    (tmp_path / path).parent.mkdir(parents=True)
    shutil.copy(onnx_model.path, tmp_path / path)
    picture, exif = Image.fromarray(grey[0]), Image.Exif()
    if kind == "turned by EXIF":
        exif[0x0112] = 6
    if "bits" in kind:
        picture = Image.fromarray(grey[0].astype(np.uint16) * (257 if kind == "16 bits" else 16))
    picture = picture.convert("RGB") if kind == "colour" else picture
    picture.save(tmp_path / "image.png", exif=exif)
    code = f"import sys; sys.path.insert(0, {str(bare)!r})\n{code}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8")
    said = re.fullmatch(r"P\(malignant\) = (0\.\d{3}): ([a-z ]+) \(.+\)\n", done.stdout)
    assert said, done.stderr
    (pixels,) = imagefile.frames(tmp_path / "image.png")
    assert float(said[1]) == pytest.approx(onnx_model.probabilities(pixels[None])[0], abs=6e-4)
    assert pixels.shape == (grey[0].shape[::-1] if kind == "turned by EXIF" else grey[0].shape)
    assert said[2] in ("flagged for review", "not flagged", "unlike the training images")
