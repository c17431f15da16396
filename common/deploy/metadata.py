"""Metadata of an .onnx file: text entries that describe the model to callers."""

import json

from common import fingerprints
from common.deploy import graph, onnxfile, typicality
from common.run.folders import Run

PREPARED = {"square": "of the middle square", "frame": "of the whole frame", "lesion": "of the window and of the frame"}
OUTPUTS = [
    "probability: calibrated P(malignant), float32 [batch]; logit: its log-odds, float32 [batch]; "
    f"{evidence}; typicality: about the share of training images that are at least as unusual, float32 [batch]; "
    "window: x, y, width, height of what the network looked at, in pixels, float32 [batch, 4]; "
    "found: how sure the finder is of a lesion, 0 to 1, float32 [batch]"
    for evidence in (
        "evidence: what each position of the window adds, float32 [batch, rows, columns], its mean the logit",
        "evidence, evidence_frame: what each position of the window and of the frame adds, float32 [batch, rows, "
        "columns]; the mean of both maps' means is the logit",
    )
]


def describe(run: Run, metrics: dict) -> dict[str, str]:
    """Return the metadata_props of the file of a run: {key: text}. metrics: the content of metrics.json of the run."""
    size, view, dataset = run.data["size"], run.data["view"], " + ".join(one["hospital"] for one in run.data["sets"])
    image = "image: uint8 [batch, height, width], grey, as stored; height and width from 8 up"
    box = "; box, which may be left out: float32 [batch, 4] or [1, 4], x, y, width, height of the lesion in pixels"
    return {
        "input": image + box * (view == "lesion"),
        "outputs": OUTPUTS[view == "lesion"],
        "preparation": f"in the graph: antialiased bilinear resize to {size}x{size} {PREPARED[view]}",
        "input_size": str(size),
        "view": view,
        "classes": json.dumps(["normal or benign", "malignant"]),
        "positive_class": "malignant",
        "typicality_threshold": repr(typicality.THRESHOLD),
        "typicality_rule": typicality.RULE,
        "fingerprints_trained_on": fingerprints.encode(run.trained_on),
        "fingerprints_chosen_on": fingerprints.encode(run.chosen_on),
        "members": str(len(run.predictor.members)),
        "mirror": "on" if run.predictor.mirror else "off",
        "dataset": "PHANTOM data (generated, not ultrasound)" if run.data["synthetic"] else dataset,
        "dataset_source": json.dumps(run.data),
        "dataset_md5": run.data["md5"],
        "metrics": json.dumps(metrics["splits"]),
        "results": json.dumps(metrics["results"]),
        "version": graph.VERSION,
        "license": "Apache-2.0",
        "intended_use": "research only, not a medical device",
    } | onnxfile.describe_calibration(run.calibration)
