"""Does an exported file answer as the run that it came from: on the run's own images, and on images of other sizes."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from common import imagefile, phantom
from common.data import Images
from common.deploy import graph, onnxfile
from common.deploy.typicality import Typicality
from common.errors import UserError
from common.looks import look, windows_around
from common.metrics import STANDARD_THRESHOLD
from common.model import explain, predict
from common.run.folders import Run

# The most that a column of a row may be.
MEAN_BOUND = {"mean_from_logit": 1e-4}  # of a logit, between the mean of the evidence and the logit itself
SPLIT_BOUNDS = MEAN_BOUND | {
    "max_difference": 1e-5,  # of a probability, between PyTorch and onnxruntime in fp32
    "labels_differ": 0,
    "auc_difference": 1e-4,  # of thousands of images, some pairs are as close as the last digits
    "evidence_difference": 1e-3,  # of the evidence at a position, which is many times a logit
    "typicality_difference": 0.01,  # a few training images, which may be as unusual to the last digit
}
ROUNDING_BOUND = {"max_difference": 0.01}  # of a probability: what weights in fp16 may cost
FINDER_BOUND = {"windows_differ": 0.01}  # share of images: a border between two pixels may fall either way
# Of the preparation in the graph, from Pillow's: both compute in fixed point, but round the weights differently.
SIZE_BOUNDS = {
    "max_grey_difference": 1,  # grey levels
    "max_difference": 0.02,  # of a probability: what one grey level in some pixels may cost
}
BATCHES = (1, 64)
SIZES = ((8, 8), (8, 300), (9, 13), (27, 29), (31, 57), (64, 64), (128, 100), (333, 500), (471, 562), (1000, 700))
PHANTOMS = 4  # images of each size


class Expected(NamedTuple):
    """A split, and what PyTorch makes of its images: P(malignant) [n], evidence [n, looks, rows, columns], texture
    [n, d]. images: with windows, in the view lesion; boxes: around which these are, [n, 4] in pixels."""

    images: Images
    boxes: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    evidence: np.ndarray
    textures: np.ndarray


def expect(run: Run, splits: dict[str, Images]) -> dict[str, Expected]:
    """What exported files are held to. Raises: UserError on images of another size than the run's."""
    expected = {}
    for name, images in splits.items():
        run.require_size(images)
        seen, boxes, *_ = look(run.predictor, images)
        explained = explain(run.predictor, seen.seen)
        evidence = explained.evidence.numpy() / run.calibration.temperature + run.calibration.offset
        probabilities = run.calibration.probabilities(predict(run.predictor, seen.seen))
        expected[name] = Expected(seen, boxes, seen.labels, probabilities, evidence, explained.texture.numpy())
    return expected


def answer(model: onnxfile.OnnxModel, outputs: list[str], expected: Expected, batch: int = 64) -> list[np.ndarray]:
    """The named outputs of a file for images as the run sees them: in the view lesion, of whole frames as stored, with
    the boxes that the run found."""
    if model.view == "lesion":
        return model.run_images(outputs, expected.images, batch, expected.boxes)
    return model.run(outputs, expected.images.pixels, batch)


def compare_finders(model: onnxfile.OnnxModel, name: str, expected: Expected) -> dict:
    """How many windows the file places otherwise than the run, where it finds the lesion by itself: "windows_differ",
    a share of the images."""
    (windows,) = model.run_images(["window"], expected.images)
    differ = (windows != windows_around(expected.boxes)).any(1)
    return {"split": name, "n": len(windows), "windows_differ": float(np.mean(differ))}


def evidence_of(model: onnxfile.OnnxModel) -> list[str]:
    """The outputs that are evidence."""
    return ["evidence", "evidence_frame"] if model.view == "lesion" else ["evidence"]


def check(model: onnxfile.OnnxModel, reference: dict[str, Expected], fitted: Typicality) -> dict:
    """Hold an fp32 file to the run, and its preparation to Pillow's: the bounds and the rows that parity.json keeps.
    Raises: UserError where they disagree."""
    typical = max(SPLIT_BOUNDS["typicality_difference"], 1.5 / (len(fitted.held_out) + 1))  # one of few is more
    splits = [compare_split(model, *split, fitted, batch) for split in reference.items() for batch in BATCHES]
    sizes = compare_sizes(model)
    finders = [compare_finders(model, *split) for split in reference.items() if model.view == "lesion"]
    require(finders, FINDER_BOUND)
    require(splits, SPLIT_BOUNDS | {"typicality_difference": typical})
    require(sizes, SIZE_BOUNDS)
    return {
        "tolerance": SPLIT_BOUNDS["max_difference"],
        "auc_tolerance": SPLIT_BOUNDS["auc_difference"],
        "mean_tolerance": SPLIT_BOUNDS["mean_from_logit"],
        "evidence_tolerance": SPLIT_BOUNDS["evidence_difference"],
        "typicality_tolerance": typical,
        "rows": splits,
        "finders": finders,
        "grey_tolerance": SIZE_BOUNDS["max_grey_difference"],
        "prepared_tolerance": SIZE_BOUNDS["max_difference"],
        "sizes": sizes,
    }


def compare_rounding(run: Run, shipped: dict[str, Expected]) -> list[dict]:
    """What fp16 weights change: a row a split. Raises: UserError where it is too much.
    shipped: of the run with the predictor of `graph.as_shipped`."""
    rows = []
    for name, expected in shipped.items():
        logits = predict(run.predictor, expected.images.seen)
        apart = np.abs(run.calibration.probabilities(logits) - expected.probabilities)
        rows.append({"split": name, "n": len(apart), "max_difference": float(apart.max())})
    require(rows, ROUNDING_BOUND)
    return rows


def require(rows: list[dict], bounds: dict[str, float]) -> None:
    """Raises: UserError on the first row with a value above its bound, or one that is nan."""
    for row in rows:
        if not all(row[name] <= bound for name, bound in bounds.items()):
            raise UserError(f"onnxruntime differs from PyTorch or Pillow: {row}. Nothing is written.")


def mean_from_logit(logits: np.ndarray, evidence: np.ndarray) -> float:
    """How far, at most, the mean of evidence maps [n, looks, rows, columns] is from their logit [n]."""
    return float(np.abs(evidence.mean((1, 2, 3)) - logits).max())


def swapped(labels: np.ndarray, expected: np.ndarray, found: np.ndarray) -> float:
    """How much two AUCs differ, without the pairs of a malignant and another image that are as close as the tolerance:
    either may come first. Args: labels: [n]; expected, found: P(malignant) [n]."""
    malignant, close = labels == 1, 2 * SPLIT_BOUNDS["max_difference"]
    apart, other = (p[malignant][:, None] - p[~malignant] for p in (expected, found))
    clear = np.abs(apart) > close
    return float(np.mean(clear * (np.sign(apart) != np.sign(other)))) if apart.size else 0.0


def compare_split(model: onnxfile.OnnxModel, name: str, expected: Expected, fitted: Typicality, batch: int) -> dict:
    """One split at one batch size; "labels_differ" counts those at 0.5 and at the operating point."""
    outputs = ["probability", "logit", "typicality", *evidence_of(model)]
    found, logits, typicality, *maps = answer(model, outputs, expected, batch)
    evidence = np.stack(maps, 1)
    thresholds = STANDARD_THRESHOLD, model.calibration.threshold
    return {
        "split": name,
        "n": len(found),
        "batch": batch,
        "max_difference": float(np.abs(found - expected.probabilities).max()),
        "labels_differ": sum(int(np.sum((found >= t) != (expected.probabilities >= t))) for t in thresholds),
        "auc_difference": swapped(expected.labels, expected.probabilities, found),
        "mean_from_logit": mean_from_logit(logits, evidence),
        "evidence_difference": float(np.abs(evidence - expected.evidence).max()),
        "typicality_difference": float(np.abs(typicality - fitted.p_values(expected.textures)).max()),
    }


def prepare_by_pillow(image: np.ndarray, size: int, view: str) -> np.ndarray:
    """What the network of the frame sees of an image, uint8 [size, size], as Pillow makes it. image: uint8 [h, w]."""
    if view == "square":
        return imagefile.prepare(image, size)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def compare_sizes(model: onnxfile.OnnxModel) -> list[dict]:
    """The graph's preparation against Pillow's, and the probability that it costs, on phantoms of the model's own size,
    which must pass unchanged, and of others, small and large, wide and tall."""
    size, view = model.data["size"], model.view
    preparation = onnxfile.open_session(graph.preparation(size, view).SerializeToString(), 1)
    own, _ = phantom.generate(PHANTOMS, size, seed=0)
    largest, _ = phantom.generate(PHANTOMS, max(max(sides) for sides in SIZES), seed=0)
    rows = []
    for images in [own, *(np.ascontiguousarray(largest[:, :height, :width]) for height, width in SIZES)]:
        by_pillow = np.stack([prepare_by_pillow(image, size, view) for image in images])
        (by_graph,) = preparation.run(["frame_prepared"], {"image": images})
        grey = np.abs(by_graph.astype(int) - by_pillow)
        apart = np.zeros(1)
        if view != "lesion":  # whose window has more pixels than a frame that is prepared already
            apart = np.abs(model.probabilities(images) - model.probabilities(by_pillow))
        row = {"height": images.shape[1], "width": images.shape[2], "n": len(images)}
        row |= {"max_grey_difference": int(grey.max()), "share_of_pixels": float(np.mean(grey > 0))}  # that differ
        rows.append(row | {"max_difference": float(apart.max())})
    return rows
