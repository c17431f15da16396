"""Measure how the shipped files answer when BreastMNIST's test images are corrupted as ultrasound images may be.

    python -m results.robustness                    prints the tables, in Markdown
    python -m results.robustness --data-root DIR    first writes results/robustness.csv, from DIR/breastmnist_224.npz
    python -m results.robustness --data-root DIR --files breast_ultrasound.onnx    measures this file alone

Test chooses no model, no setting and no threshold here. Each corruption has five severities. The first seven
corruptions and their severities are those that MedMNIST-C lists for BreastMNIST (Di Salvo, Doerrich & Ledig,
MedMNIST-C, arXiv:2406.17536, 2024), written again in numpy and Pillow. The random numbers depend only on the corruption
and the image, so that a higher severity is more of the same corruption.
"""

import io
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from common import data, intervals, metrics
from common.deploy import onnxfile
from common.progress import shown
from common.run import command
from results import log

SIZE = 224  # side of the input images in pixels; all lengths below refer to this size
SHOWN = ("breast_ultrasound.onnx", "breastmnist_28.onnx")  # in results/README.md
GREY_OF_A_DB = 255 / 60  # grey levels per dB of a display with 60 dB from black to white
LABELS = ("RT BREAST", "LT BREAST 3 O'CLOCK", "AXILLA", "L12-5  60 dB", "D1 1.24 cm", "D2 0.87 cm", "TRANS", "MI 0.8")


def pixelate(image: np.ndarray, scale: float, g) -> np.ndarray:
    """Shrink the image to `scale` of its side and enlarge it again, both by box filter."""
    height, width = image.shape
    small = Image.fromarray(image).resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def jpeg(image: np.ndarray, quality: int, g) -> np.ndarray:
    """Store the image as JPEG and read it again."""
    stored = io.BytesIO()
    Image.fromarray(image).save(stored, "JPEG", quality=quality)
    return np.asarray(Image.open(stored))


def speckle(image: np.ndarray, deviation: float, g) -> np.ndarray:
    """Multiply every pixel by a normal number around 1."""
    return image * (1 + deviation * g.standard_normal(image.shape))


def motion_blur(image: np.ndarray, radius_sigma: tuple[int, float], g) -> np.ndarray:
    """Smear the image in one direction, at a random angle of -45 to 45 degrees.

    The result is the mean of 2 radius + 1 shifts, weighted by half a Gaussian.
    """
    radius, sigma = radius_sigma
    steps, angle = np.arange(2 * radius + 1), g.uniform(-np.pi / 4, np.pi / 4)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    room, (height, width) = len(steps), image.shape
    padded = np.pad(image.astype(float), room, mode="edge")
    down, right = (room + np.rint(steps * part).astype(int) for part in (np.sin(angle), np.cos(angle)))
    shifted = (padded[y : y + height, x : x + width] for y, x in zip(down, right))
    return sum(weight * each for weight, each in zip(weights / weights.sum(), shifted))  # type: ignore[return-value]


def brightness(image: np.ndarray, factor: float, g) -> np.ndarray:
    """Multiply the image by a factor."""
    return image * factor


def contrast(image: np.ndarray, factor: float, g) -> np.ndarray:
    """Multiply the distance of each pixel from the mean of the image by a factor."""
    return image.mean() + factor * (image - image.mean())


def gain(image: np.ndarray, decibels: float, g) -> np.ndarray:
    """Change the gain of the scanner: add grey, because the display is logarithmic. Black stays black."""
    return np.where(image > 0, image + decibels * GREY_OF_A_DB, 0)


def less_depth(image: np.ndarray, share: float, g) -> np.ndarray:
    """Enlarge the upper middle part, a `share` of both sides, to the whole frame."""
    height, width = image.shape
    box = (width * (1 - share) / 2, 0, width * (1 + share) / 2, height * share)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box))


def more_depth(image: np.ndarray, share: float, g) -> np.ndarray:
    """Shrink the frame to `share` of its sides, at the top and in the middle of a black frame."""
    (height, width), frame = image.shape, Image.new("L", image.shape[::-1])
    small = Image.fromarray(image).resize((int(width * share), int(height * share)), Image.Resampling.BILINEAR)
    frame.paste(small, ((width - small.width) // 2, 0))
    return np.asarray(frame)


def blur(image: np.ndarray, sigma: float, g) -> np.ndarray:
    """Blur the image with a Gaussian of `sigma` pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def text(image: np.ndarray, lines: int, g, top: float = 0) -> np.ndarray:
    """Burn white lines of text into the image, at random places below the share `top` of its height."""
    frame, (height, width) = Image.fromarray(image), image.shape
    for _ in range(lines):
        at = g.uniform((0, top * height), (0.6 * width, 0.95 * height))
        ImageDraw.Draw(frame).text(tuple(at), str(g.choice(LABELS)), 255, ImageFont.load_default(12))
    return np.asarray(frame)


def calipers(image: np.ndarray, pairs: int, g) -> np.ndarray:
    """Draw pairs of white crosses with a dotted line between them, each pair near the middle of the image."""
    frame = Image.fromarray(image)
    draw, side = ImageDraw.Draw(frame), min(image.shape)
    for _ in range(pairs):
        centre, angle, reach = side * g.uniform(0.35, 0.65, 2), g.uniform(0, np.pi), side * g.uniform(0.08, 0.2)
        way = reach * np.array([np.cos(angle), np.sin(angle)])
        for x, y in (centre - way, centre + way):
            draw.line([x - 4, y, x + 4, y], 255)
            draw.line([x, y - 4, x, y + 4], 255)
        draw.point([tuple(centre + way * share) for share in np.linspace(-1, 1, 16)], 255)
    return np.asarray(frame)


# {corruption: (function, its five severities, their unit)}
CORRUPTIONS: dict = {
    "pixelate": (pixelate, (0.30, 0.25, 0.20, 0.15, 0.10), "of the side"),
    "JPEG": (jpeg, (50, 30, 15, 10, 7), "quality"),
    "speckle": (speckle, (0.10, 0.15, 0.20, 0.25, 0.30), "standard deviation"),
    "motion blur": (motion_blur, ((5, 5), (9, 7), (9, 10), (13, 10), (17, 12)), "radius, sigma in pixels"),
    "brighter": (brightness, (1.4, 1.5, 1.6, 1.8, 2.0), "factor"),
    "darker": (brightness, (0.55, 0.50, 0.45, 0.40, 0.30), "factor"),
    "less contrast": (contrast, (0.9, 0.8, 0.7, 0.6, 0.4), "factor"),
    "more gain": (gain, (3, 6, 9, 12, 18), "dB"),
    "less gain": (gain, (-3, -6, -9, -12, -18), "dB"),
    "less depth": (less_depth, (0.9, 0.8, 0.7, 0.6, 0.5), "of the frame"),
    "more depth": (more_depth, (0.9, 0.8, 0.7, 0.6, 0.5), "of the side"),
    "blur": (blur, (1, 2, 3, 4, 6), "sigma in pixels"),
    "text": (text, (1, 2, 4, 6, 8), "lines"),
    "text at the bottom": (partial(text, top=0.88), (1, 2, 4, 6, 8), "lines"),
    "calipers": (calipers, (1, 2, 3, 4, 6), "pairs"),
}
CLEAN = "none"


def corrupt(image: np.ndarray, corruption: str, severity: int, number: int = 0) -> np.ndarray:
    """Return an image with a corruption of severity 1 to 5. Severity 0 changes nothing.

    Args: image: uint8 [h, w]; number: of the image, the seed of what is random. Returns: uint8 [h, w].
    """
    if severity == 0:
        return image
    function, severities, _ = CORRUPTIONS[corruption]
    g = np.random.default_rng([*corruption.encode(), number])
    return np.clip(np.rint(function(image, severities[severity - 1], g)), 0, 255).astype(np.uint8)


def corrupted(images: np.ndarray, corruption: str, severity: int) -> np.ndarray:
    """Return images with a corruption, uint8 [n, h, w]."""
    return np.stack([corrupt(image, corruption, severity, number) for number, image in enumerate(images)])


def measure(model: onnxfile.OnnxModel, images: np.ndarray, labels: np.ndarray, counts, clean: np.ndarray | None):
    """Return columns of a row on what a file says of images, and its probabilities [n].

    Args: counts: [resamples, n]; clean: the probabilities of the uncorrupted images, None if `images` are uncorrupted.
    """
    probability, typicality = model.run(["probability", "typicality"], images)
    clean = probability if clean is None else clean

    def areas(weights=None) -> dict:
        area = metrics.auc(labels, probability, weights)
        return {"auc": area, "auc_change": area - metrics.auc(labels, clean, weights)}

    flagged = probability >= model.calibration.threshold
    marked = typicality < model.typicality_threshold
    rates, missed = metrics.rates(labels, flagged), ~flagged & ~marked & (labels == 1)
    numbers = {"sensitivity": rates["recall"], "specificity": rates["specificity"]}
    numbers |= {"mean_probability": float(probability.astype(float).mean()), "marked": marked.mean()}
    numbers |= {"missed_unmarked": missed.sum() / labels.sum()}
    row = log.columns(intervals.with_intervals(areas, counts), auc="auc", auc_change="auc_change")
    return row | {name: f"{number:.4f}" for name, number in numbers.items()}, probability


def conditions() -> Iterator[tuple[str, int]]:
    """Yield each (corruption, severity), first (CLEAN, 0) for uncorrupted images."""
    yield CLEAN, 0
    yield from ((corruption, severity) for corruption in CORRUPTIONS for severity in range(1, 6))


def measure_all(root: str, names: list[str]) -> list[dict]:
    """Return a row for each file, corruption and severity. root: folder of breastmnist_224.npz; names: in models/."""
    test = data.load(data.find(["breastmnist"], root, SIZE), "test")
    counts = intervals.resample_counts(test.labels, test.groups)
    models = [onnxfile.load(log.MODELS / name, 1) for name in names]
    rows: dict[str, list[dict]] = {model.path.name: [] for model in models}
    clean: dict[str, np.ndarray] = {}
    every = list(conditions())
    for corruption, severity in shown(every, "corrupted", len(every)):
        images = corrupted(test.pixels, corruption, severity)
        for model in models:
            name = model.path.name
            found, probability = measure(model, images, test.labels, counts, clean.get(name))
            clean.setdefault(name, probability)
            about = {"model": name, "corruption": corruption, "severity": severity, "n": len(images)}
            rows[name].append(about | found)
    return [row for part in rows.values() for row in part]


def table(file: str) -> str:
    """Return a table of one file in Markdown, with a row for each corruption."""
    rows = {
        (row["corruption"], int(row["severity"])): row for row in log.read("robustness.csv") if row["model"] == file
    }
    lines = [[CLEAN, f"{float(rows[CLEAN, 0]['auc']):.3f}", "", "", *at_last(rows[CLEAN, 0])]]
    for corruption in CORRUPTIONS:
        areas = [f"{float(rows[corruption, severity]['auc']):.3f}" for severity in (1, 3, 5)]
        _, severities, unit = CORRUPTIONS[corruption]
        name = f"{corruption}: {severities[0]} to {severities[-1]} {unit}"
        lines.append([name, *areas, *at_last(rows[corruption, 5])])
    header = "corruption | AUC, severity 1 | 3 | 5 | sensitivity, severity 5 | specificity | marked | missed"
    return log.markdown(header, lines)


def at_last(row: dict) -> list[str]:
    """Return the cells about the highest severity."""
    names = ("sensitivity", "specificity", "marked", "missed_unmarked")
    return [f"{float(row[name]):.2f}" for name in names]


def main():
    parser = log.parser(__doc__)
    parser.add_argument("--data-root", metavar="DIR", help="folder of breastmnist_224.npz; without it, only print")
    log.add_files(parser)
    args = parser.parse_args()
    if args.data_root:
        log.remeasure(args, "robustness.csv", "model", lambda names: measure_all(args.data_root, names))
    for file in dict.fromkeys(row["model"] for row in log.read("robustness.csv")):
        print(f"{file}\n\n{table(file)}\n")


if __name__ == "__main__":
    command.run(main)
