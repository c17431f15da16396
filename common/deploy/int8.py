"""Make int8 networks, with convolutions in whole numbers, calibrated on training images.

Each choice was measured on train and val of BreastMNIST, on two runs; the straight line on five. The measure is the
mean difference of a probability from fp32.

- The stem, which sees the grey image, stays fp32. The difference is 0.002 instead of 0.003 to 0.007. The stem is a
  thirtieth of the work.
- Weights have 7 bits. Without VNNI instructions, x86 adds pairs of products in 16 bits, which weights of 8 bits can
  saturate (0.012 with the stem). Answers would then depend on the processor. Without saturation, 8 bits were no better.
- Ranges are minimum and maximum. Percentiles and entropy were no better, or worse.
- A straight line, fitted on train, takes the logits to the logits of fp32. The remaining difference is mostly a shift.
- In the view lesion, only the network of the window is int8. An int8 finder places 13 % of the windows elsewhere.
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
BATCH = 32  # images calibrated at once, to bound memory; the ranges do not depend on the batch
DECIDING = "train+val"  # both together, because on the 78 images of val alone, one label is more than 1 %
LEAST_AGREEMENT = 0.99  # lowest share of labels that agree with fp32
MOST_AUC_LOSS = 0.005
DESCRIPTION = (
    "QDQ, uint8 activations, int8 weights of 7 bits per output channel; stem and head fp32; calibrated on train"
)


class Batches(CalibrationDataReader):
    """Images for the calibration of onnxruntime: batches of uint8 [n, size, size] for the input `name`."""

    def __init__(self, name: str, images: np.ndarray):
        parts = np.split(images, range(BATCH, len(images), BATCH))
        self.inputs = ({name: batch} for batch in parts)

    def get_next(self) -> dict | None:
        return next(self.inputs, None)


def quantize(network: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """Return an int8 copy of a network of `graph.export_networks`. images: of train only, uint8 [n, size, size]."""
    weights = {tensor.name: tensor.dims for tensor in network.graph.initializer}
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    stem = [node.name for node in convolutions if weights[node.input[1]][1] == 1]  # only the stem has one input channel
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(network, fp32)  # from a model in memory, onnxruntime would remove the weights
        logging.disable(logging.WARNING)  # onnxruntime writes hints for developers to the root logger
        quantize_static(
            fp32,
            int8,
            Batches(network.graph.input[0].name, images),
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
    """Return slope and intercept of the line from logits [n] to targets [n] with the least squared error.

    If all logits are equal or the line falls, slope is 1 and intercept the mean difference, to keep the image order.
    """
    logits, targets = logits.astype(float), targets.astype(float)
    slope = np.cov(logits, targets)[0, 1] / np.var(logits, ddof=1) if np.ptp(logits) > 0 else 1.0
    slope = slope if slope > 0 else 1.0
    return float(slope), float(np.mean(targets) - slope * np.mean(logits))


def check(model: onnxfile.OnnxModel, reference: dict[str, parity.Expected], line: tuple[float, float]) -> dict:
    """Compare an int8 file with the run, on each split, and on train and val together.

    Args: line: slope and intercept of the file. Returns: the entry for the metadata and parity.json, with the line.
    Raises: UserError when too few labels agree or too much AUC is lost on train and val. An undefined AUC passes.
    UserError also when the mean of the evidence is not the logit.
    """
    answers, apart = {}, []
    for name, expected in reference.items():
        outputs = ["probability", "logit", *parity.evidence_of(model)]
        found, logits, *evidence = parity.answer(model, outputs, expected)
        answers[name] = expected.look.images.labels, expected.probabilities, found
        apart.append(parity.mean_from_logit(logits, evidence))
    mean = {"mean_from_logit": max(apart)}
    parity.require([mean], parity.MEAN_BOUND)
    decide = [answers[name] for name in ("train", "val") if name in answers]  # some data sets have no val
    labels, probabilities, found = map(np.concatenate, zip(*decide))
    answers[DECIDING] = labels, probabilities, found
    thresholds = STANDARD_THRESHOLD, model.calibration.threshold
    rows = [compare_split(name, *answer, thresholds) for name, answer in answers.items()]
    row = rows[-1]  # train and val decide; test does not
    if row["agreement"] < LEAST_AGREEMENT or row["auc_loss"] > MOST_AUC_LOSS:
        raise UserError(
            f"--int8: differs too much from fp32. On {row['split']}, {row['agreement']:.2%} of {row['n']} labels agree "
            f"(needed: {LEAST_AGREEMENT:.0%}), and the AUC loss is {row['auc_loss']:+.4f} (at most {MOST_AUC_LOSS}). "
            "Nothing is written. Remove --int8, or export another run."
        )
    description = DESCRIPTION + "; the network of the frame is fp32" * (model.view == "lesion")
    how = {"description": description, "logit_slope": line[0], "logit_intercept": line[1]} | mean
    return how | {"least_agreement": LEAST_AGREEMENT, "most_auc_loss": MOST_AUC_LOSS, "rows": rows}


def compare_split(name: str, labels, expected, found, thresholds) -> dict:
    """Return a row that compares int8 with fp32. A positive "auc_loss" means that int8 is worse.

    Args: labels: [n]; expected, found: P(malignant) [n] in fp32 and in int8; thresholds: "agreement" is the share of
    equal labels at the threshold where this share is smallest.
    """
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
