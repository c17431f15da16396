"""The tables of models/README.md, made from what the shipped files and their parity files store.

python -m results.card      prints them, in Markdown
"""

import json
from pathlib import Path

from common.deploy import onnxfile
from common.show import tables
from results import log

MODELS = Path(__file__).parent.parent / "models"
STEMS = ("breastmnist", "breastmnist_128", "breast_ultrasound_128")
SPLITS = ("out_of_fold", "elsewhere", "test", "clean_test")  # and "out_of_fold, HOSPITAL"


def metadata(file: str) -> dict:
    return onnxfile.load(MODELS / file, 1).session.get_modelmeta().custom_metadata_map


def parity(stem: str) -> dict:
    return json.loads((MODELS / f"{stem}.parity.json").read_text())


def splits_of(stored: dict) -> list[str]:
    """The splits that the tables show. stored: {split: metrics} of a file."""
    return [name for name in stored if name.split(",")[0] in SPLITS and not name.endswith("_patients")]


def called(split: str, scores: dict) -> str:
    """ "clean test, 93 images"."""
    return f"{split.replace('_', ' ')}, {scores['n']} images"


def with_interval(scores: dict, metric: str) -> str:
    return tables.with_limits(scores[metric], scores[f"{metric}_ci95"])


def score_table() -> str:
    """Metrics at 0.5 and calibration of the fp32 files."""
    rows = []
    for stem in STEMS:
        about = metadata(f"{stem}.onnx")
        metrics, calibration = json.loads(about["metrics"]), json.loads(about["calibration"])
        for split in splits_of(metrics):
            cells = [with_interval(metrics[split], name) for name in ("auc", "accuracy")]
            cells += [with_interval(calibration[split], name) for name in ("brier", "ece")]
            rows.append([f"`{stem}.onnx`", called(split, metrics[split]), *cells])
    return log.markdown("file | on | AUC | accuracy | Brier score | ECE", rows)


def threshold_table() -> str:
    """Sensitivity and specificity of the fp32 files at their operating points."""
    rows = []
    for stem in STEMS:
        about = metadata(f"{stem}.onnx")
        at_threshold = json.loads(about["metrics_at_threshold"])
        for split, scores in ((name, at_threshold[name]) for name in splits_of(at_threshold)):
            cells = [with_interval(scores, name) for name in ("recall", "specificity")]
            rows.append([f"`{stem}.onnx`", called(split, scores), f"{float(about['threshold']):.4f}", *cells])
    return log.markdown("file | on | threshold | sensitivity | specificity", rows)


def int8_table() -> str:
    """How the int8 files agree with the fp32 ones."""
    rows = []
    for stem in STEMS:
        for row in parity(stem)["int8"]["rows"]:
            if row["split"] in ("train+val", "test"):
                cells = [f"{row['agreement']:.1%}", f"{row['auc_loss']:+.4f}", f"{row['max_difference']:.3f}"]
                rows.append([f"`{stem}.int8.onnx`", row["split"], *cells])
    return log.markdown("file | on | labels that agree | AUC lost | largest difference of P", rows)


def speed_table() -> str:
    """Median latency, load time and memory of every file."""
    rows = []
    for stem in STEMS:
        measured = parity(stem)["benchmark"]
        for model, file in (("fp32", f"{stem}.onnx"), ("int8", f"{stem}.int8.onnx")):
            latency = {(r["threads"], r["batch"]): r for r in measured["latency"] if r["model"] == model}
            process = measured["process"][model]
            cells = [f"{latency[threads, 1]['p50_ms']:.1f} ms" for threads in (1, 2)]
            cells += [f"{latency[2, 64]['images_per_second']:.0f} images/s", f"{process['load_seconds'] * 1e3:.0f} ms"]
            rows.append([f"`{file}`", *cells, f"{process['peak_bytes'] / 1e6:.0f} MB"])
    return log.markdown(
        "file | an image, 1 thread | an image, 2 threads | batches of 64, 2 threads | loads in | memory", rows
    )


def main():
    print(score_table(), threshold_table(), int8_table(), speed_table(), sep="\n\n")


if __name__ == "__main__":
    main()
