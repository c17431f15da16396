"""Print P(malignant) of image files with an .onnx file of export.py. Needs numpy, Pillow and onnxruntime.

IMAGE is a file, a folder, or a FILE.csv. The FILE.csv has the column image. Optional columns are patient, hospital, and
x, y, width and height of the box around the lesion. After the images, each patient gets a row with the highest
probability of their images. predict.py searches a folder and its subfolders for images. In folders, predict.py skips
masks (image_mask.png, masks/), hidden files and other files. A note on stderr counts skipped files. predict.py always
predicts a file that you name. Without IMAGE, or for "-", predict.py reads paths from stdin, one per line.

Formats: PNG, JPEG, BMP, TIFF, GIF, WebP, JPEG 2000, PGM and PPM; DICOM if pydicom is installed. Each page of a TIFF and
each frame of a GIF, WebP or DICOM is a row. Colour becomes grey (Pillow's L). Transparent pixels become black. 16 bits
become 8 bits: white is 65535, but 4095 if no pixel reaches 4096, and 255 if no pixel reaches 256.

Exit status: 0 if all files were predicted; 1 if some files could not be read (stderr names each file); 2 if nothing was
predicted. Research only, not a medical device.
"""

import argparse
import importlib.metadata
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import fingerprints, imagefile, imagefolder
from common.boxes import misplaced
from common.calibration import sigmoid
from common.delimited import SUFFIXES
from common.deploy import onnxfile, patients
from common.errors import UserError, one_line
from common.kinds import FOLDER, SHARE, Kind, not_empty
from common.run import command
from common.show import overlays
from common.show.answers import heading, patient_row, printable, row

LEAST = {"onnxruntime": (1, 17), "pillow": (10, 1)}  # lowest versions that are tested
BATCH_IMAGES, BATCH_PIXELS = 16, 4_000_000  # most images and pixels in a batch, which bounds memory


def parse_args():
    parser = command.Parser(__doc__)
    parser.add_argument("model", metavar="MODEL.onnx", type=not_empty, help="an .onnx file of export.py")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="*", help="files, folders and tables (default: paths from stdin)"
    )
    flagged = "flag an image for review if the probability is at least X"
    command.add(parser, "--threshold", SHARE, flagged, shown="the operating point of the model")
    overlays = "write a PNG of each image into DIR. Vermillion is evidence for malignant, blue is evidence against. No "
    overlays += "file is overwritten. DIR must not be the folder of an IMAGE"
    command.add(parser, "--evidence", FOLDER, overlays, shown="none")
    box = "box around the lesion in pixels of the only IMAGE, for a model that looks for lesions"
    kind, shown = Kind(read_box, "X,Y,WIDTH,HEIGHT"), "the box of a table, otherwise the model finds the box"
    command.add(parser, "--box", kind, box, shown=shown)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line (default: print a table)")
    command.add_machine_flags(parser, device=False)
    args = parser.parse_intermixed_args()  # flags may stand between MODEL.onnx and the images
    if Path(args.model).is_dir() or args.model.lower().endswith(imagefolder.SUFFIXES):
        parser.error(f"{args.model} is not an .onnx file. Name an .onnx file first: predict.py MODEL.onnx IMAGE...")
    of_many = [name for name in args.images if name == "-" or is_table(name) or Path(name).is_dir()]
    if args.box and (of_many or len(args.images) != 1):
        parser.error("argument --box: a box is of one IMAGE. For several images, give a table with the boxes")
    if not args.images and sys.stdin.isatty():
        parser.error("give image files or folders, or their paths on stdin")
    return args


def is_table(name: str) -> bool:
    """Return whether an argument names a table."""
    return name.lower().endswith(SUFFIXES)


def read_box(text: str) -> tuple[float, ...]:
    """Read a box from the text of a flag. Raises: argparse.ArgumentTypeError."""
    try:
        return patients.read_box(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def warn_of_old_packages() -> None:
    """Print a line on stderr for each package that is older than its lowest tested version."""
    for package, least in LEAST.items():
        try:
            version = importlib.metadata.version(package)
            found = tuple(int(part) for part in version.split(".")[:2])
        except (importlib.metadata.PackageNotFoundError, ValueError):  # installed without metadata
            continue
        if found < least:
            needed = ".".join(map(str, least))
            print(f"warning: {package} {version} is too old. Run: pip install '{package}>={needed}'", file=sys.stderr)


class Progress:
    """Count of predicted images and files. A terminal shows the count, unless the results appear on the terminal."""

    def __init__(self):
        self.images = self.files = self.failed = 0
        self.began = time.perf_counter()
        self.live = sys.stderr.isatty() and not sys.stdout.isatty()

    def __str__(self) -> str:
        seconds = time.perf_counter() - self.began
        failed = f", {self.failed} failed" if self.failed else ""
        counts = f"{self.images} image{'s' * (self.images != 1)} of {self.files} file{'s' * (self.files != 1)}{failed}"
        return f"{counts} in {seconds:.1f} s, {self.images / seconds:.0f} images/s"

    def fail(self, line: str) -> None:
        """Count a file that failed, and print why."""
        self.files, self.failed = self.files + 1, self.failed + 1
        self.say(line)

    def say(self, line: str, end: str = "\n") -> None:
        """Print a line on stderr, over the progress."""
        print(f"\r\x1b[K{line}" if self.live else line, end=end, file=sys.stderr, flush=True)

    def show(self) -> None:
        if self.live:
            self.say(str(self), end="")


class Page(NamedTuple):
    """One image of a file. number: from 1; pixels: uint8 [h, w]; known: what a table or --box says about the image."""

    path: Path
    number: int
    pixels: np.ndarray
    known: patients.Known


def named_paths(arguments: list[str]) -> Iterator[str]:
    """Yield the paths of the arguments. For "-", or without arguments, yield the paths on stdin, one per line."""
    listed = (line.rstrip("\r\n") for line in sys.stdin if line.strip())
    return chain.from_iterable(listed if argument == "-" else [argument] for argument in arguments or ["-"])


def expand_tables(named: Iterable[str], box, finds: bool, progress: Progress) -> Iterator[tuple[str, patients.Known]]:
    """Yield each path with the known facts. A table yields the images in the table. Report unreadable tables on stderr.

    As in training, a table is a hospital, if it names no other: patients of two tables are never the same.

    Args: box: of --box, or None; finds: whether the model looks for lesions.
    """
    for name in named:
        if not is_table(name):
            yield name, patients.Known(box=box)
            continue
        try:
            table, notes = patients.read(Path(name))
        except UserError as error:
            progress.fail(f"error: {printable(one_line(str(error)))}")
            continue
        if not finds and any(known.box for known in table.values()):
            notes.append("the boxes are not used, because the model does not look for lesions")
        for note in notes:
            progress.say(f"note: {printable(f'{name}: {note}')}")
        for path, known in table.items():
            yield str(path), known._replace(box=known.box if finds else None, hospital=known.hospital or name)


def read(named: Iterable[tuple[str, patients.Known]], progress: Progress) -> Iterator[Page]:
    """Yield every page of the files and folders. Report on stderr the files that cannot be read or are skipped."""
    for name, known in named:
        listing = imagefolder.find(name)
        if left_out := imagefolder.describe_left_out(listing):
            progress.say(f"note: {printable(f'{name}: ' + '; '.join(left_out))}")
        for path in listing.images:
            try:
                yield from pages(path, known)
                progress.files += 1
            except UserError as error:
                progress.fail(f"error: {printable(path)} {error}")
            progress.show()


def pages(path: Path, known: patients.Known) -> Iterator[Page]:
    """Yield the pages of an image file. Raises: UserError if the file cannot be read, or the box lies outside."""
    for number, pixels in enumerate(imagefile.frames(path), 1):
        if known.box and misplaced(np.array([known.box]), np.array([pixels.shape])).any():
            box, (height, width) = ", ".join(f"{side:g}" for side in known.box), pixels.shape
            raise UserError(
                f"has {width}×{height} pixels, and its box ({box}) does not lie in them. "
                "Check all boxes of the table: x and y are of the left upper corner."
            )
        yield Page(path, number, pixels, known)


def batches(pages: Iterable[Page]) -> Iterator[list[Page]]:
    """Yield batches of consecutive pages with the same shape: one, or at most BATCH_IMAGES and BATCH_PIXELS."""
    for (height, width), alike in groupby(pages, key=lambda page: page.pixels.shape):
        most = max(1, min(BATCH_IMAGES, BATCH_PIXELS // (height * width)))
        while batch := list(islice(alike, most)):
            yield batch


def answers(model: onnxfile.OnnxModel, pages: Iterable[Page], threshold: float, folder: Path | None) -> Iterator[dict]:
    """Yield the answer of the model for each page, in order, after each batch.

    In an answer, "flagged" is None for an image unlike the training images, and for an image without a found lesion.
    "call" says the same in words.

    Args: folder: where to write overlays, or None.
    """
    outputs = ["logit", "typicality", "window", "found"] + ["evidence"] * bool(folder)
    for batch in batches(pages):
        pixels = np.stack([page.pixels for page in batch])
        given = dict(zip(outputs, model.run(outputs, pixels, boxes=boxes_of(model, batch))))
        probabilities, seen = sigmoid(given["logit"]), seen_in_training(model, pixels)
        for i, page in enumerate(batch):
            typicality, found = given["typicality"][i], float(given["found"][i])
            unlike = bool(typicality < model.typicality_threshold)
            flagged, call = call_of(model, float(probabilities[i]), unlike, found, threshold)
            answer: dict = {"image": str(page.path), "page": page.number, "probability": float(probabilities[i])}
            answer |= {"logit": float(given["logit"][i]), "flagged": flagged, "call": call}
            if model.view == "lesion":
                answer |= {"window": given["window"][i].tolist(), "found": found}
            answer |= {"typicality": float(typicality), "unlike_training": unlike, "seen_in_training": bool(seen[i])}
            if folder:
                window = given["window"][i] if model.view != "square" else None
                name = f"{page.path.stem[:50]}_page{page.number}"  # short enough for every file system, even in UTF-8
                answer["evidence"] = str(overlays.save(folder, name, page.pixels, given["evidence"][i], window))
            if page.known.patient:
                answer |= {"patient": page.known.patient, "hospital": page.known.hospital}
            yield answer


def call_of(model: onnxfile.OnnxModel, probability: float, unlike: bool, found: float, threshold: float):
    """Return "flagged" and "call" of an image. "flagged" is None where the model gives no call."""
    if unlike:
        return None, "unlike the training images"
    if found < model.calibration.found_threshold:  # 0 in views without a finder
        return None, "no lesion found"
    flagged = probability >= threshold
    return flagged, "flagged for review" if flagged else "not flagged"


def boxes_of(model: onnxfile.OnnxModel, batch: list[Page]) -> np.ndarray | None:
    """Return the boxes of pages, float32 [n, 4], nan if unknown. None if no box is known or the model takes no box."""
    if model.view != "lesion" or not any(page.known.box for page in batch):
        return None
    return np.array([page.known.box or (math.nan,) * 4 for page in batch], np.float32)


def seen_in_training(model: onnxfile.OnnxModel, images: np.ndarray) -> np.ndarray:
    """Return whether the model was trained on each image, bool [n]. images: uint8 [n, h, w]."""
    return fingerprints.distance(images, model.trained_on) <= fingerprints.SAME


def read_paths_as_stored() -> None:
    """Read paths from stdin in the encoding of the file system, not of the console."""
    encoding = sys.getfilesystemencoding() if os.name == "posix" else None
    sys.stdin.reconfigure(encoding=encoding, errors="surrogateescape")  # type: ignore[union-attr]


def main():
    args = parse_args()
    warnings.simplefilter("ignore")  # Pillow and pydicom warn about flaws in files that they can read
    warn_of_old_packages()
    read_paths_as_stored()
    model = onnxfile.load(args.model, args.threads)
    own = model.calibration
    threshold, rule = (own.threshold, own.threshold_rule) if args.threshold is None else (args.threshold, "--threshold")
    about = {"threshold": threshold, "dataset": model.dataset, "intended_use": model.intended_use}
    if args.box and model.view != "lesion":
        raise UserError(f"--box: {args.model} does not look for lesions. Remove --box, or name another model.")
    progress, answered, folder = Progress(), [], None
    named = expand_tables(named_paths(args.images), args.box, model.view == "lesion", progress)
    if args.evidence is not None:
        named = list(named)
        folder = overlays.make_folder(args.evidence, [name for name, _ in named])

    for answer in answers(model, read(named, progress), threshold, folder):
        if not (args.json or progress.images):
            print(heading(model, threshold, rule, folder))
        answered += [answer] * ("patient" in answer)
        print(json.dumps(answer | about) if args.json else row(answer), flush=True)
        progress.images += 1
        progress.show()
    if not progress.files:
        raise UserError("IMAGE: no image files there. Give image files, or folders with image files.")
    found = patients.highest(answered)
    if found and not args.json:
        print(f"\n{'P(malignant)':>12}  {'':<26}  {'images':>6}  patient")
    several = len({answer["hospital"] for answer in found}) > 1
    for answer in found:
        print(json.dumps(answer | about) if args.json else patient_row(answer, several))
    progress.say(str(progress))
    sys.exit(0 if not progress.failed else 1 if progress.images else 2)


if __name__ == "__main__":
    command.run(main)
