"""What files mark as unlike their training images, of pictures that are no breast ultrasound and of some that are.

    python -m results.limits breast/images.csv busbra/images.csv

Pictures are drawn from a seed, or cut at random from those that installed packages ship, where they are installed. All
shipped files see them. Writes results/limits.csv, and prints it as a Markdown table.
"""

import argparse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from common import data, files, imagefile, metrics, phantom
from common.deploy import onnxfile
from common.errors import UserError
from results import log

N = 150  # pictures of a kind
PACKAGES = Path(np.__file__).parent.parent
SAMPLES = {  # pictures in installed packages, by kind
    "photographs": ("sklearn/datasets/images/*.jpg", "matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
    "photographs and other pictures (scikit-image)": ("skimage/data/*.png", "skimage/data/*.jpg"),
    "CT": ("pydicom/data/test_files/*CT_small.dcm", "pydicom/data/test_files/693_J2KI.dcm"),
    "MR": ("pydicom/data/test_files/MR_small.dcm", "pydicom/data/test_files/examples_overlay.dcm"),
}


def drawn(g: np.random.Generator) -> dict[str, np.ndarray]:
    """A picture of each kind, [h, w] in 0 to 255."""
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
    """A page of nonsense, dark on light or light on dark."""
    paper, ink = (int(g.integers(200, 256)), int(g.integers(0, 90)))[:: g.choice([1, -1])]
    page, size = Image.new("L", (500, 500), paper), int(g.integers(10, 30))
    letters = np.array([*"aaabcddeeeeefghiiilmnnoooprrssttuuvy      "])
    for y in range(10, 480, int(size * 1.4)):
        line = "".join(g.choice(letters, g.integers(20, 120)))
        ImageDraw.Draw(page).text((10, y), line, ink, ImageFont.load_default(size))
    return np.asarray(page)


def cut(picture: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """A part of a picture, of at least a third of its sides, with contrast and brightness changed."""
    h, w = (int(g.integers(max(8, side // 3), side + 1)) for side in picture.shape)
    top, left = g.integers(0, picture.shape[0] - h + 1), g.integers(0, picture.shape[1] - w + 1)
    return picture[top : top + h, left : left + w] * g.uniform(0.6, 1.3) + g.uniform(-30, 30)


def samples(patterns: tuple[str, ...]) -> list[np.ndarray]:
    """The pictures that installed packages ship, as many as can be read here."""
    found: list[np.ndarray] = []
    for path in (path for pattern in patterns for path in sorted(PACKAGES.glob(pattern))):
        with suppress(UserError):
            found += imagefile.frames(path)
    return [picture for picture in found if min(picture.shape) >= 32]


def changed(image: np.ndarray, g: np.random.Generator) -> dict[str, np.ndarray]:
    """An ultrasound image as it should not be, and as it may well be."""
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


def pictures(sets: list[str], size: int) -> Iterator[tuple[str, list, np.ndarray | None]]:
    """(kind, pictures [h, w], labels of breast ultrasound whose diagnosis is known)."""
    g = np.random.default_rng(0)
    drawings = [drawn(g) for _ in range(N)]
    yield from ((kind, [of[kind] for of in drawings], None) for kind in drawings[0])
    for kind, patterns in SAMPLES.items():
        if found := samples(patterns):
            yield kind, [cut(found[g.integers(len(found))], g) for _ in range(N)], None
    yield "phantoms", list(phantom.generate(N, 224, seed=0)[0]), None
    (large,) = data.load(data.find("breastmnist", None, 224), "test")
    altered = [changed(image, g) for image in large.images]
    yield from ((kind, [of[kind] for of in altered], None) for kind in altered[0])
    for name, part in [("breastmnist", "test"), *((name, "all") for name in sets)]:
        source = data.find(name, None, size)
        (split,) = data.load(source, part)
        yield source.called, list(split.images), split.labels


def measure(model: onnxfile.OnnxModel, kind: str, shown: list, labels: np.ndarray | None) -> dict:
    """A row: the share marked, and where there are labels the AUC of the marked and of the others."""
    images = [np.clip(picture, 0, 255).astype(np.uint8, order="C") for picture in shown]
    answers = [model.run(["typicality", "probability"], image[np.newaxis]) for image in images]
    typicality, probability = np.concatenate(answers, 1)
    marked = model.unlike(typicality)
    row = {"file": model.path.name, "kind": kind, "n": len(images), "marked": f"{marked.mean():.4f}"}
    aucs = ["" if labels is None else f"{metrics.auc(labels[m], probability[m]):.4f}" for m in (marked, ~marked)]
    return row | dict(zip(("auc_marked", "auc_not_marked"), aucs))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help="breast ultrasound of other hospitals, as evaluate.py's --data")
    sets = parser.parse_args().sets
    models = [onnxfile.load(file, 1) for file in sorted(log.MODELS.glob("*.onnx"))]
    rows = [measure(model, *shown) for model in models for shown in pictures(sets, model.data["size"])]
    files.write_csv(log.FOLDER / "limits.csv", rows)
    shares: dict[str, list[str]] = {}
    for row in rows:
        shares.setdefault(row["kind"], []).append(f"{float(row['marked']):.1%}")
        if row["auc_marked"]:
            print("{file}, {kind}: AUC of the marked {auc_marked}, of the others {auc_not_marked}".format(**row))
    header = " | ".join(["marked", *(model.path.name for model in models)])
    print(log.markdown(header, [[kind, *cells] for kind, cells in shares.items()]))


if __name__ == "__main__":
    main()
