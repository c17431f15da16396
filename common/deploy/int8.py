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
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from common import metrics
from common.deploy import onnxfile, parity
from common.errors import UserError
from common.metrics import STANDARD_THRESHOLD

QUANTIZED = ["Conv", "Add", "Relu"]
BATCH = 32  # images calibrated at once, which bounds memory; the ranges do not depend on it
DECIDING = "train+val"  # together: on the 78 images of val alone one label is more than 1 %
LEAST_AGREEMENT = 0.99  # of labels with fp32's
MOST_AUC_LOSS = 0.005
DESCRIPTION = (
    "QDQ, uint8 activations, int8 weights of 7 bits per output channel; stem and head fp32; calibrated on train"
)


class Images(CalibrationDataReader):
    """What onnxruntime's calibration reads: batches of uint8 images [n, size, size], by the name of the input."""

    def __init__(self, name: str, images: np.ndarray):
        parts = np.split(images, range(BATCH, len(images), BATCH))
        self.inputs = ({name: batch} for batch in parts)

    def get_next(self) -> dict | None:
        return next(self.inputs, None)


def quantize(network: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """An int8 copy of one of `graph.export_networks`. images: uint8 [n, size, size], of train only."""
    weights = {tensor.name: tensor.dims for tensor in network.graph.initializer}
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    stem = [node.name for node in convolutions if weights[node.input[1]][1] == 1]  # of one input channel
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(network, fp32)  # of a model in memory, onnxruntime would take the weights out
        logging.disable(logging.WARNING)  # its hints to developers go to the root logger
        quantize_static(
            fp32,
            int8,
            Images(network.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=QUANTIZED,
            nodes_to_exclude=stem,
        )
        logging.disable(logging.NOTSET)
        return onnx.load(int8)


def straight_line(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """The slope and intercept that take logits [n] to targets [n] with the least squared error; where the logits are
    all the same, or the line falls, (1, the mean difference): it must not change the order of images."""
    logits, targets = logits.astype(float), targets.astype(float)
    slope = np.cov(logits, targets)[0, 1] / np.var(logits, ddof=1) if np.ptp(logits) > 0 else 1.0
    slope = slope if slope > 0 else 1.0
    return float(slope), float(np.mean(targets) - slope * np.mean(logits))


def check(model: onnxfile.OnnxModel, reference: dict[str, parity.Expected], line: tuple[float, float]) -> dict:
    """Hold an int8 file to the run, on each split and on train and val together: what its metadata and parity.json
    keep, with the straight line in it. Raises: UserError where too few labels agree or too much AUC is lost; one that
    is undefined cannot be lost."""
    answers, apart = {}, []
    for name, expected in reference.items():
        outputs = ["probability", "logit", *parity.evidence_of(model)]
        found, logits, *maps = parity.answer(model, outputs, expected)
        answers[name] = expected.labels, expected.probabilities, found
        apart.append(parity.mean_from_logit(logits, np.stack(maps, 1)))
    mean = {"mean_from_logit": max(apart)}
    parity.require([mean], parity.MEAN_BOUND)
    decide = [answers[name] for name in ("train", "val") if name in answers]  # data may have no val
    labels, probabilities, found = map(np.concatenate, zip(*decide))
    answers[DECIDING] = labels, probabilities, found
    thresholds = STANDARD_THRESHOLD, model.calibration.threshold
    rows = [compare_split(name, *answer, thresholds) for name, answer in answers.items()]
    row = rows[-1]  # test is reported and decides nothing
    if row["agreement"] < LEAST_AGREEMENT or row["auc_loss"] > MOST_AUC_LOSS:
        raise UserError(
            f"--int8: differs too much from fp32. On {row['split']}, {row['agreement']:.2%} of {row['n']} labels agree "
            f"(needed: {LEAST_AGREEMENT:.0%}), and the AUC loss is {row['auc_loss']:+.4f} (at most {MOST_AUC_LOSS}). "
            "Nothing is written. Remove --int8, or export another run."
        )
    how = {"description": DESCRIPTION, "logit_slope": line[0], "logit_intercept": line[1]} | mean
    return how | {"least_agreement": LEAST_AGREEMENT, "most_auc_loss": MOST_AUC_LOSS, "rows": rows}


def compare_split(name: str, labels, expected, found, thresholds) -> dict:
    """How int8 answers beside fp32. The losses are positive where int8 is worse; "agreement" is the smaller share of
    equal labels, of those at each threshold. Args: labels [n]; expected, found: P(malignant) [n] in fp32 and int8."""
    auc, difference = metrics.auc(labels, found), np.abs(found - expected)
    return {
        "split": name,
        "n": len(labels),
        "agreement": min(float(np.mean((found >= t) == (expected >= t))) for t in thresholds),
        "auc": auc,
        "auc_loss": metrics.auc(labels, expected) - auc,
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
    }
