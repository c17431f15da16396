"""Measure which pictures the shipped files mark as unlike their training images.

    python -m results.limits                  prints the table, in Markdown
    python -m results.limits breast busbra    first writes results/limits.csv
    python -m results.limits breast busbra --files breast_ultrasound.onnx    measures this file alone, other rows stay

Some kinds of pictures are no breast ultrasound. The program draws pictures at random, and cuts parts from pictures that
installed packages contain. Kinds without an installed package are skipped. Breast ultrasound comes from BreastMNIST's
test images and from the data sets that you name, as for --data of evaluate.py.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from common import data, imagefile, metrics, phantom
from common.deploy import onnxfile
from common.errors import UserError
from common.images import Images
from common.run import flags
from results import log

N = 150  # pictures of each kind
PACKAGES = Path(np.__file__).parent.parent
SAMPLES = {  # pictures in installed packages, by kind
    "photographs": ("sklearn/datasets/images/*.jpg", "matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
    "photographs and other pictures (scikit-image)": ("skimage/data/*.png", "skimage/data/*.jpg"),
    "CT": ("pydicom/data/test_files/*CT_small.dcm", "pydicom/data/test_files/693_J2KI.dcm"),
    "MR": ("pydicom/data/test_files/MR_small.dcm", "pydicom/data/test_files/examples_overlay.dcm"),
}
HOSPITALS = {"breast": "BrEaST", "busbra": "BUS-BRA"}  # names of data sets in the table


def drawn(g: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a random picture of each kind, {kind: [h, w]}, grey levels from about 0 to 255."""
    h, w = (int(side) for side in g.integers(48, 500, 2))
    y, x = np.mgrid[:h, :w] / max(h, w)
    low, high, period, angle = g.uniform(0, 90), g.uniform(165, 255), 2 ** g.uniform(-5, -1.5), g.uniform(0, 2 * np.pi)
    ramp = x * np.cos(angle) + y * np.sin(angle)
    noise = g.integers(0, 256, (h, w), np.uint8)
    blurred = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(float(min(h, w) * period / 3)))
    return {
        "black": np.zeros((h, w)),
        "white": np.full((h, w), 255),
        "constant": np.full((h, w), g.integers(1, 255)),
        "noise": noise if g.random() < 0.5 else g.normal(g.uniform(40, 215), g.uniform(15, 80), (h, w)),
        "blurred noise": np.asarray(ImageOps.autocontrast(blurred)),
        "gradients": low + (high - low) * (ramp - ramp.min()) / np.ptp(ramp),
        "checkerboards": low + (high - low) * ((x // period + y // period) % 2),
        "text": text(g),
    }


def text(g: np.random.Generator) -> np.ndarray:
    """Return a page of random letters, dark on light or light on dark, uint8 [500, 500]."""
    paper, ink = (int(g.integers(200, 256)), int(g.integers(0, 90)))[:: g.choice([1, -1])]
    page, size = Image.new("L", (500, 500), paper), int(g.integers(10, 30))
    letters = np.array([*"aaabcddeeeeefghiiilmnnoooprrssttuuvy      "])
    for y in range(10, 480, int(size * 1.4)):
        line = "".join(g.choice(letters, g.integers(20, 120)))
        ImageDraw.Draw(page).text((10, y), line, ink, ImageFont.load_default(size))
    return np.asarray(page)


def samples(patterns: tuple[str, ...]) -> Iterator[np.ndarray]:
    """Yield the pictures of installed packages that match the patterns and can be read."""
    for pattern in patterns:
        for path in sorted(PACKAGES.glob(pattern)):
            with suppress(UserError):
                yield from imagefile.frames(path)


def cut(picture: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """Return a random part of a picture, at least a third of each side, with changed contrast and brightness."""
    h, w = (int(g.integers(max(8, side // 3), side + 1)) for side in picture.shape)
    top, left = g.integers(0, picture.shape[0] - h + 1), g.integers(0, picture.shape[1] - w + 1)
    return picture[top : top + h, left : left + w] * g.uniform(0.6, 1.3) + g.uniform(-30, 30)


def changed(image: np.ndarray, g: np.random.Generator) -> dict[str, np.ndarray]:
    """Return changed copies of an ultrasound image: five that a file should mark, and two that it should not."""
    side = len(image)
    part, screen = side // 4, np.full((2 * side, 2 * side), g.choice([0, 30, 240, 255]), np.uint8)
    top, left = g.integers(0, side - part, 2)
    screen[top : top + side, left : left + side] = image
    return {
        "test, upside down": image[::-1],
        "test, inverted": 255 - image,
        "test, zoomed fourfold": image[top : top + part, left : left + part],
        "test, blurred": np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(side / 25))),
        "test, in a screenshot": screen,
        "test, mirrored": image[:, ::-1],
        "test, darker": image * 0.7,
    }


def pictures() -> Iterator[tuple[str, np.ndarray]]:
    """Yield (kind, picture [h, w]). A file should mark all kinds, except mirrored and darker test images."""
    g = np.random.default_rng(0)
    for _ in range(N):
        yield from drawn(g).items()
    for kind, patterns in SAMPLES.items():
        if found := list(samples(patterns)):
            yield from ((kind, cut(found[g.integers(len(found))], g)) for _ in range(N))
    yield from (("phantoms", image) for image in phantom.generate(N, 224, seed=0)[0])
    for image in data.load(data.find(["breastmnist"], None, 224), "test").pixels:
        yield from changed(image, g).items()


def measure(model: onnxfile.OnnxModel, kind: str, images: list[np.ndarray]) -> dict:
    """Return a row: the share of pictures, [h, w] each, that a file marks."""
    (typicality,) = np.concatenate([model.run(["typicality"], image[np.newaxis]) for image in images], 1)
    return row(model, kind, typicality < model.typicality_threshold)


def measure_ultrasound(model: onnxfile.OnnxModel, kind: str, images: Images) -> dict:
    """Return a row: the share of breast ultrasound that a file marks, and the AUC of marked and of other images."""
    answer = model.answer(images)
    aucs = [f"{metrics.auc(images.labels[m], answer.probabilities[m]):.4f}" for m in (answer.unlike, ~answer.unlike)]
    return row(model, kind, answer.unlike, *aucs)


def row(model: onnxfile.OnnxModel, kind: str, marked: np.ndarray, auc_marked="", auc_not_marked="") -> dict:
    about = {"file": model.path.name, "kind": kind, "n": len(marked), "marked": f"{marked.mean():.4f}"}
    return about | {"auc_marked": auc_marked, "auc_not_marked": auc_not_marked}


def measure_all(sets: list[str], names: list[str]) -> Iterator[dict]:
    """Yield a row for each named file and kind of picture. Breast ultrasound with known diagnosis comes last."""
    shown: dict[str, list[np.ndarray]] = {}
    for kind, picture in pictures():
        shown.setdefault(kind, []).append(np.clip(picture, 0, 255).astype(np.uint8, order="C"))
    for model in (onnxfile.load(log.MODELS / name, 1) for name in names):
        yield from (measure(model, kind, images) for kind, images in shown.items())
        for name in ["breastmnist", *sets]:
            found = data.find([name], None, model.data["size"], undivided="all", view="square")
            images = data.load(found, *(["test"] if name == "breastmnist" else found.splits))
            yield measure_ultrasound(model, found.name, images)


def table() -> str:
    """Return the share of each kind that each file marks, in Markdown."""
    rows = sorted(log.read("limits.csv"), key=lambda row: (".int8." in row["file"], row["file"]))
    shares: dict[str, list[str]] = {}
    for row in rows:
        kind = HOSPITALS.get(row["kind"], row["kind"])
        shares.setdefault(kind, [kind]).append(f"{float(row['marked']):.1%}")
    return log.markdown(" | ".join(["kind of picture", *dict.fromkeys(row["file"] for row in rows)]), shares.values())


def main():
    parser = log.parser(__doc__)
    parser.add_argument("sets", nargs="*", help="breast ultrasound of other hospitals, as evaluate.py's --data")
    log.add_files(parser)
    args = parser.parse_args()
    if args.sets:
        log.remeasure(args, "limits.csv", "file", lambda names: list(measure_all(args.sets, names)))
    print(table())


if __name__ == "__main__":
    flags.run(main)
