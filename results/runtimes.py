"""Compare the answers of .onnx files in other runtimes with the answers of onnxruntime in this environment.

    python -m results.runtimes MODEL.onnx [MODEL.onnx ...]        prints the table of docs/runtimes.md.

Each runtime gets a separate environment and answers for the pictures in web/phantoms. The table has the largest
difference between two probabilities of a picture. The first call installs the runtimes with pip and npm. `--keep DIR`
holds the environments.
"""

import json
import subprocess
import venv
from pathlib import Path

import numpy as np

from common import imagefile
from common.deploy import onnxfile
from common.kinds import FOLDER
from common.run import command
from results import log

PICTURES = Path(__file__).parent.parent / "web/phantoms"
BOX = [[60.0, 50.0, 90.0, 70.0]]
INSTALL_SECONDS = 200  # time limit of pip or npm for each runtime
READ = """
import json, sys
import numpy as np
model, cases = sys.argv[1], json.load(open(sys.argv[2]))
for case in cases:
    case["image"] = np.fromfile(case["file"], np.uint8).reshape(1, *case["shape"])
    case["box"] = np.float32(case["box"]) if case["box"] else None
"""
ONNXRUNTIME = """
import onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # without the warning that the default of box may be replaced
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
def run(image, box):
    return session.run(["probability"], {"image": image} | ({} if box is None else {"box": box}))[0][0]
version = onnxruntime.__version__
"""
OPENVINO = """
import openvino
compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
def run(image, box):
    return None if box is not None else compiled({"image": image})["probability"][0]
version = openvino.__version__.split("-")[0]
"""
OPENCV = """
import cv2
network = cv2.dnn.readNetFromONNX(model)
def run(image, box):
    if box is not None:
        return None
    network.setInput(image)
    return network.forward("probability").ravel()[0]
version = cv2.__version__
"""
SAY = """
said = [run(case["image"], case["box"]) for case in cases]
print(json.dumps({"version": version, "said": [None if p is None else float(p) for p in said]}))
"""
# The program cuts off the default of `box`, so that `box` is an ordinary input (docs/onnx.md).
JAVASCRIPT = """
import fs from "fs";
import * as module from "%s";
const ort = module.default ?? module;
const [model, list] = process.argv.slice(2);
const cases = JSON.parse(fs.readFileSync(list));
const bytes = fs.readFileSync(model);
const lesion = cases.some((one) => one.box);
const session = await ort.InferenceSession.create(new Uint8Array(lesion ? bytes.subarray(2 + bytes[1]) : bytes));
const said = [];
for (const { file, shape, box } of cases) {
  const feeds = { image: new ort.Tensor("uint8", new Uint8Array(fs.readFileSync(file)), [1, ...shape]) };
  if (lesion) feeds.box = new ort.Tensor("float32", Float32Array.from(box ? box[0] : Array(4).fill(NaN)), [1, 4]);
  said.push((await session.run(feeds)).probability.data[0]);
}
const { version } = JSON.parse(fs.readFileSync("node_modules/%s/package.json"));
console.log(JSON.stringify({ version, said }));
"""
# {name: (packages for pip, program)}, and for JavaScript {name: package for npm}
PYTHON = {
    "onnxruntime (Python), the oldest": (["onnxruntime==1.17.0", "numpy<2"], ONNXRUNTIME),
    "onnxruntime (Python)": (["onnxruntime", "numpy"], ONNXRUNTIME),
    "OpenVINO": (["openvino", "numpy"], OPENVINO),
    "OpenCV, cv2.dnn": (["opencv-python-headless>=5", "numpy"], OPENCV),
}
NODE = {"onnxruntime-node": "onnxruntime-node@1.20", "onnxruntime-web (in Node)": "onnxruntime-web"}


def write_cases(model: onnxfile.OnnxModel, folder: Path) -> list[dict]:
    """Write the pictures as raw files and the cases as cases.json, and return the cases.

    Each picture is a case. If the file looks for lesions, each picture is also a case with a box.
    """
    cases = []
    for path in sorted(PICTURES.glob("*.png")):
        (image,) = imagefile.frames(path)
        raw = folder / f"{path.stem}.raw"
        image.tofile(raw)
        for box in [None, BOX] if model.view == "lesion" else [None]:
            cases.append({"file": str(raw), "shape": image.shape, "box": box})
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    return cases


def expected(model: onnxfile.OnnxModel, cases: list[dict]) -> list[float]:
    """Return the probability of each case by onnxruntime in this environment."""
    said = []
    for case in cases:
        image = np.fromfile(case["file"], np.uint8).reshape(1, *case["shape"])
        box = None if case["box"] is None else np.float32(case["box"])
        said.append(float(model.run(["probability"], image, boxes=box)[0][0]))
    return said


def install(name: str, keep: Path) -> Path:
    """Return the folder of a runtime's environment, and install the environment if it is absent.

    keep: holds the folders. Raises: CalledProcessError, TimeoutExpired or OSError if pip or npm fails.
    """
    packages = PYTHON[name][0] if name in PYTHON else [NODE[name]]
    place = keep / "".join(c for c in name + packages[0] if c.isalnum())
    if (place / "complete").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    if name in PYTHON:
        venv.create(place, with_pip=True, clear=True)
        words = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--retries", "1"]
    else:  # scripts of the packages would download GPU libraries
        words = ["npm", "install", "--loglevel", "error", "--ignore-scripts", "--fetch-retries", "1"]
    how = {"cwd": place, "check": True, "capture_output": True, "encoding": "utf-8", "timeout": INSTALL_SECONDS}
    subprocess.run([*words, *packages], **how)  # type: ignore[call-overload]
    (place / "complete").touch()
    return place


def answers(name: str, place: Path, model: str, cases: Path) -> dict:
    """Return what a runtime says of the cases: {"version", "said": probabilities, None for an unsupported box}.

    Args: place: from `install`; cases: cases.json of `write_cases`. Raises: CalledProcessError.
    """
    if name in PYTHON:
        words = [str(place / "bin/python"), "-c", READ + PYTHON[name][1] + SAY]
    else:
        package = NODE[name].split("@")[0]
        (place / "run.mjs").write_text(JAVASCRIPT % (package, package), encoding="utf-8")
        words = ["node", "run.mjs"]
    done = subprocess.run([*words, model, str(cases)], cwd=place, check=True, capture_output=True, encoding="utf-8")
    return json.loads(done.stdout.strip().splitlines()[-1])


def largest_difference(said: list, wanted: list[float]) -> float:
    """Return the largest difference between probabilities. said: None if a runtime gives no probability."""
    return max(abs(p - q) for p, q in zip(said, wanted) if p is not None)


def reason(error: Exception) -> str:
    """Return why a runtime cannot be installed or run: the first error of pip or npm, or the last printed line."""
    printed = getattr(error, "stderr", None)
    lines = (printed if isinstance(printed, str) and printed.strip() else str(error)).strip().splitlines()
    return next((line for line in lines if line.startswith(("ERROR: ", "npm error"))), lines[-1])


def try_runtime(name: str, keep: Path, model: onnxfile.OnnxModel, cases: Path, wanted: list[float]) -> list[str]:
    """Return the cells of a runtime: version, inputs, and largest difference, or why it does not work."""
    try:
        found = answers(name, install(name, keep), str(model.path.resolve()), cases)
    except (subprocess.SubprocessError, OSError) as error:
        return ["", "does not work", reason(error)[:80]]
    inputs = "image" if None in found["said"] or model.view != "lesion" else "image, box"
    return [found["version"], inputs, f"{largest_difference(found['said'], wanted):.1e}"]


def table(model: str, keep: Path) -> str:
    """Return a table of all runtimes for a file, in Markdown."""
    opened = onnxfile.load(model, 1)
    keep.mkdir(parents=True, exist_ok=True)
    cases = write_cases(opened, keep)
    wanted = expected(opened, cases)
    place = keep / "cases.json"
    rows = [[name, *try_runtime(name, keep, opened, place, wanted)] for name in PYTHON | NODE]
    return log.markdown("runtime | version | inputs used | largest difference of a probability", rows)


def main():
    parser = command.Parser(__doc__)
    parser.add_argument("models", metavar="MODEL.onnx", nargs="+")
    command.add(parser, "--keep", FOLDER, "folder of the environments", "runs/runtimes")
    args = parser.parse_args()
    for model in args.models:
        print(f"`{Path(model).name}`\n\n{table(model, Path(args.keep).resolve())}\n")


if __name__ == "__main__":
    command.run(main)
