"""int8: a network whose convolutions compute with whole numbers, calibrated on training images.

Measured on BreastMNIST, by train and val alone, as the mean difference of a probability from fp32's (on two runs; the
straight line on five):

- the stem, which sees the grey image, stays fp32: 0.002 instead of 0.003 to 0.007, for a thirtieth of the work;
- weights have 7 bits: without VNNI instructions x86 adds pairs of products in 16 bits, which weights of 8 bits can
  saturate (0.012 with the stem), so that answers depend on the processor; 8 bits were no better where they did not;
- ranges are minimum and maximum: percentiles and entropy were no better, or worse;
- a straight line, fitted on train, takes the logits back to fp32's: much of what is left is a common shift.
"""

import logging
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from common import metrics
from common.deploy import onnxfile

QUANTIZED = ["Conv", "Add", "Relu"]
BATCH = 32  # images calibrated at once, which bounds memory; the ranges do not depend on it
DECIDING = "train+val"  # together: on the 78 images of val alone one label is more than 1 %
LEAST_AGREEMENT = 0.99  # of labels with fp32's
MOST_AUC_LOSS = 0.005
DESCRIPTION = (
    "QDQ, uint8 activations, int8 weights of 7 bits per output channel; stem and head fp32; calibrated on train"
)


class Images(CalibrationDataReader):
    """What onnxruntime's calibration reads: batches of uint8 images [n, size, size]."""

    def __init__(self, images: np.ndarray):
        self.batches = iter(images[start : start + BATCH] for start in range(0, len(images), BATCH))

    def get_next(self) -> dict | None:
        batch = next(self.batches, None)
        return None if batch is None else {"prepared": batch}


@contextmanager
def no_advice():
    """Silence onnxruntime's hints to developers, which go to the root logger."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def stem(network: onnx.ModelProto) -> list[str]:
    """Names of the convolutions of one input channel: those that see the grey image."""
    weights = {tensor.name: tensor.dims for tensor in network.graph.initializer}
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    return [node.name for node in convolutions if weights[node.input[1]][1] == 1]


def quantize(network: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """An int8 copy of what `onnxgraph.export_network` made. images: uint8 [n, size, size], of train only."""
    with tempfile.TemporaryDirectory() as folder, no_advice():
        fp32, int8 = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(network, fp32)
        quantize_static(
            fp32,
            int8,
            Images(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=QUANTIZED,
            nodes_to_exclude=stem(network),
        )
        return onnx.load(int8)


def logits(network: onnx.ModelProto, images: np.ndarray, threads: int) -> np.ndarray:
    """float64 [n], of a network that is not joined yet. images: uint8 [n, size, size]."""
    session = onnxfile.open_session(network.SerializeToString(), threads)
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return np.concatenate([session.run(None, {"prepared": part})[0] for part in parts]).astype(float)


def straight_line(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """The slope and intercept that take logits [n] to targets [n] with the least squared error; where the logits are
    all the same, or the line falls, (1, the mean difference): it must not change the order of images."""
    slope = np.cov(logits, targets)[0, 1] / np.var(logits, ddof=1) if np.ptp(logits) > 0 else 1.0
    slope = slope if slope > 0 else 1.0
    return float(slope), float(np.mean(targets) - slope * np.mean(logits))


@dataclass(frozen=True)
class Agreement:
    """How an int8 model's answers on a split compare with the fp32 one's. The losses are positive where int8 is worse;
    `agreement` is the smaller share of equal labels, of those at 0.5 and at the operating point."""

    split: str
    n: int
    agreement: float
    auc: float
    auc_loss: float
    max_difference: float
    mean_difference: float

    @property
    def acceptable(self) -> bool:
        """Test is reported and decides nothing. An AUC that is undefined, a class being absent, cannot be lost."""
        lost = self.auc_loss > MOST_AUC_LOSS
        return self.split != DECIDING or (self.agreement >= LEAST_AGREEMENT and not lost)


def compare(split: str, labels, expected, found, thresholds) -> Agreement:
    """Args: labels [n]; expected, found: P(malignant) [n] in fp32 and int8; thresholds: where labels are compared."""
    same = [float(np.mean((found >= threshold) == (expected >= threshold))) for threshold in thresholds]
    auc, difference = metrics.auc(labels, found), np.abs(found - expected)
    loss = metrics.auc(labels, expected) - auc
    return Agreement(split, len(labels), min(same), auc, loss, float(difference.max()), float(difference.mean()))


def figures(rows: list[Agreement], line: tuple[float, float]) -> dict:
    """What the file's metadata and parity.json keep: how it was made, the bounds, and what was measured."""
    return {
        "description": DESCRIPTION,
        "logit_slope": line[0],
        "logit_intercept": line[1],
        "least_agreement": LEAST_AGREEMENT,
        "most_auc_loss": MOST_AUC_LOSS,
        "rows": [asdict(row) for row in rows],
    }


def text(rows: list[Agreement]) -> str:
    """A fixed-width table, and what the bounds are."""
    columns = ("labels agree", "AUC", "AUC loss", "mean |difference|", "max |difference|")
    lines = [
        f"{'split':<10}{'images':>8}{columns[0]:>16}{columns[1]:>12}{columns[2]:>12}{columns[3]:>20}{columns[4]:>20}"
    ]
    lines += [
        f"{r.split:<10}{r.n:>8}{r.agreement:>16.2%}{r.auc:>12.4f}{r.auc_loss:>+12.4f}{r.mean_difference:>20.4f}"
        f"{r.max_difference:>20.4f}"
        for r in rows
    ]
    bounds = f"bounds: labels agree at least {LEAST_AGREEMENT:.0%}, AUC loss at most {MOST_AUC_LOSS}"
    return "\n".join([*lines, f"{bounds}, on train and val together; test decides nothing"])


def refusal(rows: list[Agreement]) -> str:
    """One line with the figures of what is not acceptable."""
    faults = "; ".join(
        f"{row.split}: {row.agreement:.2%} of {row.n} labels agree, AUC loss {row.auc_loss:+.4f}"
        for row in rows
        if not row.acceptable
    )
    return (
        f"--int8 answers otherwise than fp32, nothing is written ({faults}; needed are {LEAST_AGREEMENT:.0%} and at "
        f"most {MOST_AUC_LOSS}); leave --int8 out, or export another run or an ensemble"
    )
