"""P(malignant) of image files, by an .onnx file that export.py wrote. Needs numpy, Pillow and onnxruntime, no torch.

Images are PNG, JPEG, BMP or TIFF (each page is a row), or DICOM where pydicom is installed; folders are searched for
them; without IMAGE, or for "-", paths are read from stdin, one a line. Colour becomes grey as Pillow's L, 16 bits
become 8 over their whole range, transparency becomes black. A file that cannot be read is named on stderr, the others
are done, and the exit status is 1. Research only, not a medical device.
"""

import json
import math
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain, count, groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import evidence, files, imagefile
from common.calibration import sigmoid
from common.deploy import onnxfile
from common.errors import UserError
from common.run import flags
from common.settings import SHARE
from common.show import tables

BATCH_IMAGES, BATCH_PIXELS = 16, 4_000_000  # together at most: bounds memory


def parse_args():
    parser = flags.Parser(__doc__)
    parser.add_argument("model", metavar="MODEL.onnx", type=flags.not_empty, help="a file that export.py wrote")
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="files and folders (default: paths from stdin)")
    flagged = "flag an image for review from this probability up"
    flags.add(parser, "--threshold", SHARE, flagged, shown="the model's operating point")
    overlays = "write a PNG of each image under what speaks for malignant (vermillion) and against it (blue)"
    flags.add(parser, "--evidence", flags.FOLDER, overlays, shown="none")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line (default: a table)")
    flags.add_machine_flags(parser, device=False)
    args = parser.parse_intermixed_args()  # flags may stand between MODEL.onnx and the images
    if Path(args.model).is_dir() or args.model.lower().endswith(imagefile.SUFFIXES):
        parser.error(f"{args.model} is no .onnx file; name one first: predict.py MODEL.onnx IMAGE...")
    if not args.images and sys.stdin.isatty():
        parser.error("give image files or folders, or their paths on stdin")
    return args


class Progress:
    """What has been done so far; shown on a terminal, unless the results appear there too."""

    def __init__(self):
        self.images = self.files = self.failed = 0
        self.began = time.perf_counter()
        self.live = sys.stderr.isatty() and not sys.stdout.isatty()

    def __str__(self) -> str:
        seconds = time.perf_counter() - self.began
        failed = f", {self.failed} failed" if self.failed else ""
        counts = f"{self.images} image{'s' * (self.images != 1)} of {self.files} file{'s' * (self.files != 1)}{failed}"
        return f"{counts} in {seconds:.1f} s, {self.images / seconds:.0f} images/s"

    def say(self, line: str, end: str = "\n") -> None:
        """A line on stderr, in the place of the progress."""
        print(f"\r\x1b[K{line}" if self.live else line, end=end, file=sys.stderr, flush=True)

    def show(self) -> None:
        if self.live:
            self.say(str(self), end="")


class Page(NamedTuple):
    """An image of a file; pages count from 1. pixels: uint8 [h, w]."""

    path: Path
    number: int
    pixels: np.ndarray


def printable(path) -> str:
    """A path without characters that would command a terminal or break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))


def read(arguments: list[str], progress: Progress) -> Iterator[Page]:
    """Every page that can be read of the files and folders that are named; "-", or nothing, stands for those on stdin,
    one a line. The other files are named on stderr."""
    listed = (line.rstrip("\r\n") for line in sys.stdin if line.strip())
    named = chain.from_iterable(listed if argument == "-" else [argument] for argument in arguments or ["-"])
    for path in imagefile.find(named):
        progress.files += 1
        try:
            for number, pixels in enumerate(imagefile.frames(path), 1):
                yield Page(path, number, pixels)
        except UserError as error:
            progress.failed += 1
            progress.say(f"error: {printable(path)} {error}")
        progress.show()


def batches(pages: Iterable[Page]) -> Iterator[list[Page]]:
    """Consecutive pages of one shape, few enough for memory."""
    for (height, width), alike in groupby(pages, key=lambda page: page.pixels.shape):
        most = max(1, min(BATCH_IMAGES, BATCH_PIXELS // (height * width)))
        while batch := list(islice(alike, most)):
            yield batch


def answers(model: onnxfile.OnnxModel, pages: Iterable[Page], threshold: float, folder: Path | None) -> Iterator[dict]:
    """What the model says of each page, in order, as soon as its batch is done. folder: where overlays go, if any."""
    outputs = ["logit"] + ["typicality"] * model.gives("typicality") + ["evidence"] * bool(folder)
    for batch in batches(pages):
        given = dict(zip(outputs, model.run(outputs, np.stack([page.pixels for page in batch]))))
        probabilities = sigmoid(given["logit"])
        for i, page in enumerate(batch):
            answer = {"image": str(page.path), "page": page.number, "probability": float(probabilities[i])}
            answer |= {"logit": float(given["logit"][i]), "flagged": bool(probabilities[i] >= threshold)}
            if "typicality" in given:
                typicality = given["typicality"][i]
                answer |= {"typicality": float(typicality), "unlike_training": bool(model.unlike(typicality))}
            if folder:
                answer["evidence"] = str(save_overlay(folder, page, given["evidence"][i]))
            yield answer


def save_overlay(folder: Path, page: Page, values: np.ndarray) -> Path:
    """Write NAME_page1.png, or where there is one NAME_page1_2.png and so on. Raises: UserError."""
    name = f"{page.path.stem[:50]}_page{page.number}"  # not too long for a file system, even in UTF-8
    names = chain([name], (f"{name}_{number}" for number in count(2)))
    path = next(path for name in names if not (path := folder / f"{name}.png").exists())
    with files.replacing(path) as beside:
        evidence.overlay(page.pixels, values).save(beside, "PNG")
    return path


def heading(model: onnxfile.OnnxModel, threshold: float, rule: str, folder: Path | None) -> str:
    """What the table stands under: the model, what its operating point means, the scale of overlays, the columns."""
    lines = [f"{model.path.name}, trained on {model.dataset}: {model.intended_use}"]
    lines.append(f"flagged for review from {threshold:.4f} up: {rule}")
    if model.held_out and threshold == model.calibration.threshold:
        lines.append(f"on held-out images of {model.held_out_of}: {tables.promise(model.held_out)}")
    if (rare := model.typicality_threshold) > 0:
        share = f"as {rare:.0%} of images like those are"
        lines.append(f"unlike the training images below a typicality of {rare:g}, {share}")
    if folder:
        full = f"deepest from {evidence.FULL:g} log-odds up"
        lines.append(f"{printable(folder)}: vermillion speaks for malignant, blue against, {full}")
    return "\n".join([*lines, f"{'P(malignant)':>12}  {'typicality':>10}  {'':<26}  {'page':>4}  image"])


def row(answer: dict) -> str:
    """What the model says of an image, under `heading`; n/a where an earlier file gives no typicality."""
    flag = "flagged for review" if answer["flagged"] else "not flagged"
    mark = "unlike the training images" if answer.get("unlike_training") else flag
    typicality = tables.number(answer.get("typicality", math.nan))
    name = printable(answer["image"])
    return f"{answer['probability']:>12.4f}  {typicality:>10}  {mark:<26}  {answer['page']:>4}  {name}"


def main():
    args = parse_args()
    warnings.simplefilter("ignore")  # Pillow and pydicom warn of flaws in files that they still read
    sys.stdin.reconfigure(errors="surrogateescape")  # paths are bytes that need not be text
    sys.stdout.reconfigure(errors="backslashreplace")
    model = onnxfile.load(args.model, args.threads)
    own = model.calibration
    threshold, rule = (own.threshold, own.threshold_rule) if args.threshold is None else (args.threshold, "--threshold")
    about = {"threshold": threshold, "dataset": model.dataset, "intended_use": model.intended_use}
    folder = None if args.evidence is None else Path(args.evidence)
    if folder:
        model.require("evidence")
        with files.writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)

    progress = Progress()
    for answer in answers(model, read(args.images, progress), threshold, folder):
        if not (args.json or progress.images):
            print(heading(model, threshold, rule, folder))
        print(json.dumps(answer | about) if args.json else row(answer), flush=True)
        progress.images += 1
        progress.show()
    if not progress.files:
        raise UserError("IMAGE: no image files there; give files, or folders that hold PNG, JPEG, BMP or TIFF")
    progress.say(str(progress))
    sys.exit(1 if progress.failed else 0)


if __name__ == "__main__":
    flags.run(main)
