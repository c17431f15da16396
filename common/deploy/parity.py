"""Does an exported file answer as the run that it came from: on the run's own images, and on images of other sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common import imagefile, metrics, phantom
from common.data import Split
from common.deploy import graph, onnxfile
from common.deploy.typicality import Typicality
from common.errors import UserError
from common.metrics import STANDARD_THRESHOLD
from common.model import explain
from common.run.folders import Run

TOLERANCE = 1e-5  # of a probability, between PyTorch and onnxruntime in fp32
AUC_TOLERANCE = 1e-6
MEAN_TOLERANCE = 1e-4  # of a logit, between the mean of the evidence and the logit itself
EVIDENCE_TOLERANCE = 1e-3  # of the evidence at a position, which is many times a logit
TYPICALITY_TOLERANCE = 0.01  # a few training images, which may be as unusual to the last digit
MEAN_BOUND = {"mean_from_logit": MEAN_TOLERANCE}
SPLIT_BOUNDS = MEAN_BOUND | {"max_difference": TOLERANCE, "labels_differ": 0, "auc_difference": AUC_TOLERANCE}
SPLIT_BOUNDS |= {"evidence_difference": EVIDENCE_TOLERANCE, "typicality_difference": TYPICALITY_TOLERANCE}
ANSWERS = ["probability", "logit", "evidence", "typicality"]
BATCHES = (1, 64)
ROUNDING_TOLERANCE = 0.01  # of a probability: what weights in fp16 may cost

# Of the preparation in the graph, from Pillow's: both compute in fixed point, but round the weights differently.
GREY_TOLERANCE = 1  # grey levels
PREPARED_TOLERANCE = 0.02  # of a probability: what one grey level in some pixels may cost
SIZE_BOUNDS = {"max_grey_difference": GREY_TOLERANCE, "max_difference": PREPARED_TOLERANCE}
SIZES = ((8, 8), (8, 300), (9, 13), (27, 29), (31, 57), (64, 64), (128, 100), (333, 500), (471, 562), (1000, 700))
PHANTOMS = 4  # images of each size


@dataclass(frozen=True)
class Reference:
    """What exported files are held to: a run, splits of images, and of each the run's own P(malignant) [n], evidence
    [n, rows, columns] and texture [n, d]."""

    run: Run
    splits: dict[str, Split]
    probabilities: dict[str, np.ndarray]
    evidence: dict[str, np.ndarray]
    textures: dict[str, np.ndarray]

    @classmethod
    def of(cls, run: Run, splits: dict[str, Split]) -> "Reference":
        """The answers of PyTorch. Raises: UserError on images of another size than the run's."""
        probabilities = {name: run.probabilities(split.images) for name, split in splits.items()}
        both = {name: explain(run.predictor, split.images) for name, split in splits.items()}
        evidence, textures = ({name: pair[i] for name, pair in both.items()} for i in (0, 1))
        return cls(run, splits, probabilities, evidence, textures)

    @property
    def thresholds(self) -> tuple[float, float]:
        """Where labels are compared."""
        return STANDARD_THRESHOLD, self.run.calibration.threshold


def check(model: onnxfile.OnnxModel, reference: Reference, fitted: Typicality) -> dict:
    """Hold an fp32 file to the run, and its preparation to Pillow's: the bounds and the rows that parity.json keeps.
    Raises: UserError where they disagree."""
    splits = [
        compare_split(reference, fitted, name, model.run(ANSWERS, split.images, batch), batch)
        for name, split in reference.splits.items()
        for batch in BATCHES
    ]
    sizes = compare_sizes(model)
    typical = max(TYPICALITY_TOLERANCE, 1.5 / (len(fitted.held_out) + 1))  # of few images, one counts for more
    require(splits, SPLIT_BOUNDS | {"typicality_difference": typical})
    require(sizes, SIZE_BOUNDS)
    split_bounds = {"tolerance": TOLERANCE, "auc_tolerance": AUC_TOLERANCE}
    split_bounds |= {"mean_tolerance": MEAN_TOLERANCE, "evidence_tolerance": EVIDENCE_TOLERANCE}
    split_bounds |= {"typicality_tolerance": typical}
    size_bounds = {"grey_tolerance": GREY_TOLERANCE, "prepared_tolerance": PREPARED_TOLERANCE}
    return split_bounds | {"rows": splits} | size_bounds | {"sizes": sizes}


def compare_rounding(run: Run, shipped: Reference) -> list[dict]:
    """What fp16 weights change: a row a split. Raises: UserError where it is too much.
    shipped: of the run with the predictor of `graph.as_shipped`."""
    rows = []
    for name, split in shipped.splits.items():
        apart = np.abs(run.probabilities(split.images) - shipped.probabilities[name])
        rows.append({"split": name, "n": len(split), "max_difference": float(apart.max())})
    require(rows, {"max_difference": ROUNDING_TOLERANCE})
    return rows


def require(rows: list[dict], bounds: dict[str, float]) -> None:
    """Raises: UserError on the first row with a value above its bound, or one that is nan."""
    for row in rows:
        if not all(row[name] <= bound for name, bound in bounds.items()):
            raise UserError(f"onnxruntime disagrees with PyTorch or Pillow, nothing is written: {row}")


def mean_from_logit(logits: np.ndarray, evidence: np.ndarray) -> float:
    """How far, at most, the mean of an evidence map [n, rows, columns] is from its logit [n]."""
    return float(np.abs(evidence.mean((1, 2)) - logits).max())


def compare_split(
    reference: Reference, fitted: Typicality, name: str, answers: Sequence[np.ndarray], batch: int
) -> dict:
    """One split at one batch size; "labels_differ" counts those at 0.5 and at the operating point. An AUC that is
    undefined on both sides, a class being absent, does not differ. answers: `ANSWERS` by onnxruntime."""
    found, logits, evidence, typicality = answers
    labels, expected = reference.splits[name].labels, reference.probabilities[name]
    aucs = [metrics.auc(labels, probabilities) for probabilities in (expected, found)]
    return {
        "split": name,
        "n": len(labels),
        "batch": batch,
        "max_difference": float(np.abs(found - expected).max()),
        "labels_differ": sum(int(np.sum((found >= t) != (expected >= t))) for t in reference.thresholds),
        "auc_difference": 0.0 if np.isnan(aucs).all() else float(abs(aucs[0] - aucs[1])),
        "mean_from_logit": mean_from_logit(logits, evidence),
        "evidence_difference": float(np.abs(evidence - reference.evidence[name]).max()),
        "typicality_difference": float(np.abs(typicality - fitted.p_values(reference.textures[name])).max()),
    }


def compare_sizes(model: onnxfile.OnnxModel) -> list[dict]:
    """Phantoms of other sizes, small and large, wide and tall; and of the model's own, which must pass unchanged."""
    size = model.data["size"]
    own, _ = phantom.generate(PHANTOMS, size, seed=0)
    largest, _ = phantom.generate(PHANTOMS, max(max(sides) for sides in SIZES), seed=0)
    images = [own, *(np.ascontiguousarray(largest[:, :height, :width]) for height, width in SIZES)]
    preparation = onnxfile.open_session(graph.preparation(size).SerializeToString(), 1)
    return [compare_size(model, preparation, phantoms) for phantoms in images]


def compare_size(model: onnxfile.OnnxModel, preparation, images: np.ndarray) -> dict:
    """One image size: the graph's preparation against Pillow's, and the probability that it costs.

    Args: preparation: a session of the graph's, by itself, to look at its grey levels; images: uint8 [n, h, w].
    """
    by_pillow = np.stack([imagefile.prepare(image, model.data["size"]) for image in images])
    (by_graph,) = preparation.run(None, {"image": images})
    grey = np.abs(by_graph.astype(int) - by_pillow)
    apart = np.abs(model.probabilities(images) - model.probabilities(by_pillow))
    return {
        "height": images.shape[1],
        "width": images.shape[2],
        "n": len(images),
        "max_grey_difference": int(grey.max()),
        "share_of_pixels": float(np.mean(grey > 0)),  # that differ
        "max_difference": float(apart.max()),
    }
