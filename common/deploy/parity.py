"""Check that an exported file answers as the exported run does, on the images of the run and on other image sizes."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from common import imagefile, phantom
from common.data import Images
from common.deploy import graph, onnxfile
from common.deploy.typicality import Typicality
from common.errors import UserError
from common.looks import Look, lesion_windows, look
from common.metrics import STANDARD_THRESHOLD
from common.model import explain, predict
from common.run.folders import Run

# Largest allowed value of each column of a row.
MEAN_BOUND = {"mean_from_logit": 1e-4}  # of a logit, between the mean of the evidence and the logit
SPLIT_BOUNDS = MEAN_BOUND | {
    "max_difference": 1e-5,  # of a probability, between PyTorch and onnxruntime in fp32
    "labels_differ": 0,
    "auc_difference": 1e-4,  # among thousands of images, some pairs differ only in the last digits
    "evidence_difference": 1e-3,  # evidence at a position is many times a logit
    "typicality_difference": 0.01,  # a few training images may be equally unusual up to the last digit
}
ROUNDING_BOUND = {"max_difference": 0.01}  # of a probability, caused by weights in fp16
FINDER_BOUND = {"windows_differ": 0.01}  # share of images: an edge near the border of two pixels may round either way
# The graph and Pillow both prepare images in fixed point, but round the weights differently.
SIZE_BOUNDS = {
    "max_grey_difference": 1,  # grey levels
    "max_difference": 0.02,  # of a probability, caused by one grey level in some pixels
}
BATCHES = (1, 64)
SIZES = ((8, 8), (8, 300), (9, 13), (27, 29), (31, 57), (64, 64), (128, 100), (333, 500), (471, 562), (1000, 700))
PHANTOMS = 4  # images of each size


class Expected(NamedTuple):
    """The images of a split, with the answers of PyTorch.

    look: the images, and where the run looks in them; probabilities: P(malignant), [n]; evidence: for each look
    [n, rows, columns]; textures: [n, d].
    """

    look: Look
    probabilities: np.ndarray
    evidence: list[np.ndarray]
    textures: np.ndarray


def expect(run: Run, splits: dict[str, Images]) -> dict[str, Expected]:
    """Compute with PyTorch the answers that exported files must give. Raises: UserError on images of a wrong size."""
    expected = {}
    for name, images in splits.items():
        run.require_size(images)
        looked = look(run.predictor, images)
        explained = explain(run.predictor, *looked.inputs)
        line = run.calibration
        evidence = [maps.numpy() / line.temperature + line.offset for maps in explained.evidence]
        probabilities = run.calibration.probabilities(predict(run.predictor, *looked.inputs))
        expected[name] = Expected(looked, probabilities, evidence, explained.texture.numpy())
    return expected


def answer(model: onnxfile.OnnxModel, outputs: list[str], expected: Expected, batch: int = 64) -> list[np.ndarray]:
    """Return the named outputs of a file, float32 [n, ...] each, for the images that the run sees.

    In the view lesion, the file gets the frames as stored, with the boxes that the run found.
    """
    if model.view == "lesion":
        return model.run_images(outputs, expected.look.images, batch, expected.look.boxes)
    return model.run(outputs, expected.look.images.pixels, batch)


def compare_finders(model: onnxfile.OnnxModel, name: str, expected: Expected) -> dict:
    """Return a row with "windows_differ": the share of images where file and run find different windows."""
    (windows,) = model.run_images(["window"], expected.look.images)
    differ = (windows != lesion_windows(expected.look.boxes)).any(1)
    return {"split": name, "n": len(windows), "windows_differ": float(np.mean(differ))}


def evidence_of(model: onnxfile.OnnxModel) -> list[str]:
    """Return the names of the outputs that are evidence."""
    return ["evidence", "evidence_frame"] if model.view == "lesion" else ["evidence"]


def check(model: onnxfile.OnnxModel, reference: dict[str, Expected], fitted: Typicality) -> dict:
    """Compare an fp32 file with the run, and the preparation in the file with Pillow.

    Args: fitted: typicality in the file. Returns: bounds and rows for parity.json. Raises: UserError beyond a bound.
    """
    typical = max(SPLIT_BOUNDS["typicality_difference"], 1.5 / (len(fitted.held_out) + 1))  # allows one image of few
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
    """Return a row per split with the change of the probabilities by fp16 weights.

    Args: shipped: from `expect`, with the predictor of `graph.as_shipped`. Raises: UserError beyond ROUNDING_BOUND.
    """
    rows = []
    for name, expected in shipped.items():
        logits = predict(run.predictor, *expected.look.inputs)
        apart = np.abs(run.calibration.probabilities(logits) - expected.probabilities)
        rows.append({"split": name, "n": len(apart), "max_difference": float(apart.max())})
    require(rows, ROUNDING_BOUND)
    return rows


def require(rows: list[dict], bounds: dict[str, float]) -> None:
    """Raise a `UserError` on the first row with a value that is nan or above the bound. bounds: {column: bound}."""
    for row in rows:
        if not all(row[name] <= bound for name, bound in bounds.items()):
            raise UserError(f"onnxruntime differs from PyTorch or Pillow: {row}. Nothing is written.")


def mean_from_logit(logits: np.ndarray, evidence: list[np.ndarray]) -> float:
    """Return the largest difference of a logit [n] and the mean of its evidence, for each look [n, rows, columns]."""
    return float(np.abs(np.mean([maps.mean((1, 2)) for maps in evidence], 0) - logits).max())


def share_of_swapped_pairs(labels: np.ndarray, expected: np.ndarray, found: np.ndarray) -> float:
    """Return the share of pairs of a malignant and another image that change order. AUCs differ by no more.

    Pairs with expected probabilities within 2 * the bound "max_difference" do not count, because either image may come
    first. Without a pair, the share is 0. Args: labels: [n]; expected, found: P(malignant), [n].
    """
    malignant, close = labels == 1, 2 * SPLIT_BOUNDS["max_difference"]
    apart, other = (p[malignant][:, None] - p[~malignant] for p in (expected, found))
    clear = np.abs(apart) > close
    return float(np.mean(clear * (np.sign(apart) != np.sign(other)))) if apart.size else 0.0


def compare_split(model: onnxfile.OnnxModel, name: str, expected: Expected, fitted: Typicality, batch: int) -> dict:
    """Return the row of a split at a batch size. "labels_differ" counts labels at 0.5 and at the operating point."""
    outputs = ["probability", "logit", "typicality", *evidence_of(model)]
    found, logits, typicality, *evidence = answer(model, outputs, expected, batch)
    thresholds = STANDARD_THRESHOLD, model.calibration.threshold
    return {
        "split": name,
        "n": len(found),
        "batch": batch,
        "max_difference": float(np.abs(found - expected.probabilities).max()),
        "labels_differ": sum(int(np.sum((found >= t) != (expected.probabilities >= t))) for t in thresholds),
        "auc_difference": share_of_swapped_pairs(expected.look.images.labels, expected.probabilities, found),
        "mean_from_logit": mean_from_logit(logits, evidence),
        "evidence_difference": max(float(np.abs(own - other).max()) for own, other in zip(evidence, expected.evidence)),
        "typicality_difference": float(np.abs(typicality - fitted.p_values(expected.textures)).max()),
    }


def prepare_by_pillow(image: np.ndarray, size: int, view: str) -> np.ndarray:
    """Prepare an image, uint8 [h, w], for the network of the frame with Pillow. Returns: uint8 [size, size]."""
    if view == "square":
        return imagefile.prepare(image, size)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def compare_sizes(model: onnxfile.OnnxModel) -> list[dict]:
    """Compare the preparation in the graph with Pillow on phantoms: a row per image size.

    The first row has the size of the model, which needs no resize. The other sizes are small, large, wide and tall.
    "max_difference" is of probabilities. The view lesion does not compare probabilities: the difference is 0.
    """
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
        if view != "lesion":  # the window in an image has more pixels than the window in a prepared frame
            apart = np.abs(model.probabilities(images) - model.probabilities(by_pillow))
        row = {"height": images.shape[1], "width": images.shape[2], "n": len(images)}
        row |= {"max_grey_difference": int(grey.max()), "share_of_pixels": float(np.mean(grey > 0))}  # that differ
        rows.append(row | {"max_difference": float(apart.max())})
    return rows
