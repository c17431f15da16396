"""Does an exported file answer as the run that it came from: on the run's own images, and on images of other sizes."""

from dataclasses import asdict, dataclass

import numpy as np
import onnx

from common import imagefile, metrics, phantom
from common.calibration import Calibration
from common.data import Split
from common.deploy import onnxfile
from common.errors import UserError
from common.metrics import STANDARD_THRESHOLD

TOLERANCE = 1e-5  # of a probability, between PyTorch and onnxruntime in fp32
AUC_TOLERANCE = 1e-6
BATCHES = (1, 64)

# Of the preparation in the graph, from Pillow's: both compute in fixed point, but round the weights differently.
GREY_TOLERANCE = 1  # grey levels
PREPARED_TOLERANCE = 0.02  # of a probability: what one grey level in some pixels may cost
SIZES = ((8, 8), (8, 300), (9, 13), (27, 29), (31, 57), (64, 64), (128, 100), (333, 500), (471, 562), (1000, 700))
PHANTOMS = 4  # images of each size


@dataclass(frozen=True)
class Row:
    """The figures of one split at one batch size. `labels_differ` counts those at 0.5 and at the operating point."""

    split: str
    n: int
    batch: int
    max_difference: float
    labels_differ: int
    auc_difference: float

    @property
    def acceptable(self) -> bool:
        """Written so that nan is not, but for an AUC that is undefined on both sides, a class being absent."""
        same_auc = self.auc_difference <= AUC_TOLERANCE
        return self.max_difference <= TOLERANCE and not self.labels_differ and same_auc


@dataclass(frozen=True)
class SizeRow:
    """The figures of one image size: the graph's preparation against Pillow's, and the probability that it costs."""

    height: int
    width: int
    n: int
    max_grey_difference: int
    share_of_pixels: float  # that differ
    max_difference: float

    @property
    def acceptable(self) -> bool:
        return self.max_grey_difference <= GREY_TOLERANCE and self.max_difference <= PREPARED_TOLERANCE


def compare(name: str, split: Split, expected: np.ndarray, found: np.ndarray, batch: int, thresholds) -> Row:
    """expected, found: P(malignant) [n] by PyTorch and by onnxruntime."""
    differ = sum(int(np.sum((found >= threshold) != (expected >= threshold))) for threshold in thresholds)
    aucs = [metrics.auc(split.labels, probabilities) for probabilities in (expected, found)]
    apart = 0.0 if np.isnan(aucs).all() else abs(aucs[0] - aucs[1])
    return Row(name, len(split), batch, float(np.abs(found - expected).max()), differ, float(apart))


def thresholds(calibration: Calibration) -> tuple[float, float]:
    """Where labels are compared."""
    return STANDARD_THRESHOLD, calibration.threshold


def of_splits(model: onnxfile.OnnxModel, splits: dict[str, Split], expected: dict[str, np.ndarray]) -> list[Row]:
    """Every split at every batch size. expected: {split: P(malignant) [n] by PyTorch}."""
    return [
        compare(
            name,
            split,
            expected[name],
            model.probabilities(split.images, batch),
            batch,
            thresholds(model.calibration),
        )
        for name, split in splits.items()
        for batch in BATCHES
    ]


def of_sizes(model: onnxfile.OnnxModel, preparation: onnx.ModelProto, size: int) -> list[SizeRow]:
    """Phantoms of other sizes, small and large, wide and tall; and of the model's own size, which must pass unchanged.

    Args: preparation: the graph's, by itself (`onnxgraph.preparation`), to look at its grey levels.
    """
    session = onnxfile.open_session(preparation.SerializeToString(), 1)
    largest, _ = phantom.generate(PHANTOMS, max(max(sides) for sides in SIZES), seed=0)
    own, _ = phantom.generate(PHANTOMS, size, seed=0)
    images = [own, *(largest[:, :height, :width] for height, width in SIZES)]
    return [compare_size(model, session, np.ascontiguousarray(some), size) for some in images]


def compare_size(model: onnxfile.OnnxModel, session, images: np.ndarray, size: int) -> SizeRow:
    """images: uint8 [n, h, w]."""
    by_pillow = np.stack([imagefile.prepare(image, size) for image in images])
    (by_graph,) = session.run(None, {"image": images})
    grey = np.abs(by_graph.astype(int) - by_pillow)
    apart = np.abs(model.probabilities(images) - model.probabilities(by_pillow))
    n, height, width = images.shape
    return SizeRow(height, width, n, int(grey.max()), float(np.mean(grey > 0)), float(apart.max()))


def require(rows: list) -> None:
    """Raises: UserError on the first row that is not acceptable."""
    for row in rows:
        if not row.acceptable:
            raise UserError(f"onnxruntime disagrees with PyTorch or Pillow, nothing is written: {asdict(row)}")


def text(rows: list[Row]) -> str:
    """A fixed-width table."""
    header = (
        f"{'split':<8}{'images':>8}{'batch':>8}{'max |difference|':>20}{'labels differ':>16}{'|AUC difference|':>20}"
    )
    lines = [
        f"{r.split:<8}{r.n:>8}{r.batch:>8}{r.max_difference:>20.2e}{r.labels_differ:>16}{r.auc_difference:>20.2e}"
        for r in rows
    ]
    return "\n".join([header, *lines])


def sizes_text(rows: list[SizeRow]) -> str:
    """A fixed-width table."""
    header = (
        f"{'height × width':<16}{'images':>8}{'max grey levels':>20}{'pixels that differ':>20}{'max |difference|':>20}"
    )
    lines = [
        f"{f'{r.height} × {r.width}':<16}{r.n:>8}{r.max_grey_difference:>20}{r.share_of_pixels:>20.2%}"
        f"{r.max_difference:>20.2e}"
        for r in rows
    ]
    return "\n".join([header, *lines])
