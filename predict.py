"""P(malignant) of image files, by an .onnx file that export.py wrote. Needs numpy, Pillow and onnxruntime, no torch.

Images are PNG, JPEG, BMP or TIFF (each page is a row), or DICOM where pydicom is installed; folders are searched for
them; without IMAGE, or for "-", paths are read from stdin, one a line. Colour becomes grey as Pillow's L, 16 bits
become 8 over their whole range, transparency becomes black. A file that cannot be read is named on stderr, the others
are done, and the exit status is 1. Research only, not a medical device.
"""

import json
import os
import sys
import time
import warnings
from dataclasses import dataclass, field

import numpy as np

from common import imagefile
from common.calibration import sigmoid
from common.deploy import onnxfile
from common.errors import UserError
from common.run import flags
from common.settings import SHARE

BATCH_IMAGES, BATCH_PIXELS = 16, 4_000_000  # together at most: bounds memory
PROGRESS_SECONDS = 0.2


def parse_args():
    parser = flags.Parser(__doc__)
    parser.add_argument("model", metavar="MODEL.onnx", help="a file that export.py wrote")
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="files and folders (default: paths from stdin)")
    parser.add_argument(
        "--threshold",
        type=SHARE,
        metavar="P",
        help="call an image malignant from this probability up (default: the model's operating point)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object a line (default: a table)")
    flags.add_machine_flags(parser, device=False)
    args = parser.parse_intermixed_args()  # flags may stand between MODEL.onnx and the images
    if not args.images and sys.stdin.isatty():
        parser.error("give image files or folders, or their paths on stdin")
    return args


@dataclass
class Tally:
    """What has been done so far, and whether to show it: on a terminal, unless the results appear there too."""

    began: float = field(default_factory=time.perf_counter)
    images: int = 0
    files: int = 0
    failed: int = 0
    shown: float = 0.0
    live: bool = field(default_factory=lambda: sys.stderr.isatty() and not sys.stdout.isatty())

    def text(self) -> str:
        seconds = time.perf_counter() - self.began
        failed = f", {self.failed} failed" if self.failed else ""
        counts = f"{self.images} image{'s' * (self.images != 1)} of {self.files} file{'s' * (self.files != 1)}{failed}"
        return f"{counts} in {seconds:.1f} s, {self.images / seconds:.0f} images/s"

    def show(self) -> None:
        """Rewrite the line of progress, a few times a second."""
        if self.live and time.perf_counter() - self.shown > PROGRESS_SECONDS:
            self.shown = time.perf_counter()
            print(f"\r{self.text()}\x1b[K", end="", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line of its own on stderr, in the place of the progress."""
        print(f"\r\x1b[K{line}" if self.live else line, file=sys.stderr, flush=True)


def named_paths(arguments):
    """The paths on the command line; "-", or none, stands for those on stdin, one a line."""
    for argument in arguments or ["-"]:
        if argument == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield argument


def read(paths, tally):
    """(path, page from 1, image uint8 [h, w]) of every image that can be read; the others are reported."""
    for path in imagefile.find(paths):
        tally.files += 1
        try:
            for page, image in enumerate(imagefile.frames(path), 1):
                yield path, page, image
        except UserError as error:
            tally.failed += 1
            tally.say(f"error: {printable(path)} {error}")
        tally.show()


def batches(items):
    """Lists of consecutive items whose images have one shape, few enough for memory."""
    batch = []
    for item in items:
        shape = item[2].shape
        most = min(BATCH_IMAGES, max(1, BATCH_PIXELS // (shape[0] * shape[1])))
        if batch and (batch[0][2].shape != shape or len(batch) >= most):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def printable(path) -> str:
    """A path without characters that would command a terminal or break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))


def called(probability: float, threshold: float) -> str:
    return "malignant" if probability >= threshold else "normal or benign"


def header(model, threshold, rule) -> str:
    """What the reader of a table must know, and its columns."""
    return (
        f"{model.path.name}, trained on {model.dataset}: {model.intended_use}\n"
        f"called malignant from {threshold:.4f} up: {rule}\n"
        f"{'P(malignant)':>12}  {'called':<16}  {'page':>4}  image"
    )


def row(path, page, probability, threshold) -> str:
    return f"{probability:>12.4f}  {called(probability, threshold):<16}  {page:>4}  {printable(path)}"


def json_line(path, page, probability, logit, threshold, model) -> str:
    """Everything that a table says, in one JSON object."""
    values = {"image": str(path), "page": page, "probability": float(probability), "logit": float(logit)}
    values |= {"called": called(probability, threshold), "threshold": threshold}
    return json.dumps(values | {"dataset": model.dataset, "intended_use": model.intended_use})


def predict(model, items, threshold, rule, as_json, tally) -> None:
    """Print a line for each item, in order, as soon as its batch is done; in a table, a header above the first."""
    for batch in batches(items):
        if not (as_json or tally.images):
            print(header(model, threshold, rule))
        images = np.stack([image for _, _, image in batch])
        logits = model.logits(images)
        for (path, page, _), logit, probability in zip(batch, logits, sigmoid(logits)):
            print(
                json_line(path, page, probability, logit, threshold, model)
                if as_json
                else row(path, page, probability, threshold)
            )
        tally.images += len(batch)
        sys.stdout.flush()
        tally.show()


def main():
    args = parse_args()
    warnings.simplefilter("ignore")  # Pillow and pydicom warn of flaws in files that they still read
    sys.stdin.reconfigure(errors="surrogateescape")  # paths are bytes that need not be text
    sys.stdout.reconfigure(errors="backslashreplace")
    model = onnxfile.load(args.model, args.threads)
    own = model.calibration
    threshold, rule = (own.threshold, own.threshold_rule) if args.threshold is None else (args.threshold, "--threshold")
    tally = Tally()
    try:
        predict(model, read(named_paths(args.images), tally), threshold, rule, args.json, tally)
    except BrokenPipeError:  # whoever reads has enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell reports a process that SIGPIPE ended
    if not tally.files:
        raise UserError("IMAGE: no image files there; give files, or folders that hold PNG, JPEG, BMP or TIFF")
    tally.say(tally.text())
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    flags.run(main)
