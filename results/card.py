"""The tables of models/README.md, from what the shipped files and their parity files store, and from hospitals.csv.

    python -m results.card                                        prints them, in Markdown
    python -m results.card breast/images.csv busbra/images.csv    writes results/hospitals.csv before

External validation: every shipped file on whole frames of other hospitals, at full size, as an app would give them. A
set is a folder or table as evaluate.py's --data takes it; results/README.md says where to get these two, and names
their licences. Intervals draw whole patients. Nothing here trains or chooses anything.
"""

import argparse
import json
import tempfile
from pathlib import Path

from common import files
from common.data import file_name
from common.deploy import onnxfile
from results import log

STEMS = ("breastmnist", "breastmnist_128", "breast_ultrasound_128")
SPLITS = ("out_of_fold", "elsewhere", "test", "clean_test")  # and "out_of_fold, HOSPITAL"


def metadata(file: str) -> dict:
    return onnxfile.load(log.MODELS / file, 1).session.get_modelmeta().custom_metadata_map


def parity(stem: str) -> dict:
    return json.loads((log.MODELS / f"{stem}.parity.json").read_text())


def rows_of_splits(metrics: list[str], *keys: str) -> list[list[str]]:
    """Of each fp32 file and split: file, split, and metrics with intervals, out of these parts of the metadata."""
    rows = []
    for file in (f"{stem}.onnx" for stem in STEMS):
        parts = [json.loads(metadata(file)[key]) for key in keys]
        for split in parts[0]:
            if split.split(",")[0] in SPLITS and not split.endswith("_patients"):
                scores = {name: value for part in parts for name, value in part[split].items()}
                cells = [log.with_interval(scores, metric) for metric in metrics]
                rows.append([f"`{file}`", f"{split.replace('_', ' ')}, {scores['n']} images", *cells])
    return rows


def score_table() -> str:
    """Metrics at 0.5 and calibration of the fp32 files."""
    rows = rows_of_splits(["auc", "accuracy", "brier", "ece"], "metrics", "calibration")
    return log.markdown("file | on | AUC | accuracy | Brier score | ECE", rows)


def threshold_table() -> str:
    """Sensitivity and specificity of the fp32 files at their operating points."""
    rows = rows_of_splits(["recall", "specificity"], "metrics_at_threshold")
    for row in rows:
        row.insert(2, f"{float(metadata(row[0].strip('`'))['threshold']):.4f}")
    return log.markdown("file | on | threshold | sensitivity | specificity", rows)


def score(model: Path, images: str) -> dict:
    """A row of hospitals.csv: one file on all images of one set."""
    with tempfile.TemporaryDirectory() as out:
        words = ["evaluate.py", str(model), "--data", images, "--split", "all"]
        found = log.run(words, out, "evaluation_all.json")
    scores, flagged = found["splits"]["all"], found["operating_point"]["splits"]["all"]
    row = {"file": model.name, "set": file_name(images), "n": scores["n"]}
    row |= {"trained_on": (found["seen"] or {}).get("trained_on", ""), "commit": found["provenance"]["commit"][:10]}
    row |= log.with_limits("auc", scores, "auc") | log.with_limits("accuracy", scores, "accuracy")
    row |= log.with_limits("brier", found["calibration"]["all"], "brier")
    row |= log.with_limits("sensitivity", flagged, "recall")
    return row | log.with_limits("specificity", flagged, "specificity")


def hospital_table() -> str:
    """Every file at other hospitals; what a model was trained on is said, not scored."""
    rows = []
    for row in log.read("hospitals.csv"):
        cells = [log.cell(row, name) for name in ("auc", "accuracy", "brier", "sensitivity", "specificity")]
        if int(row["trained_on"] or 0):
            cells = [f"trained on {row['trained_on']} of them", "", "", "", ""]
        rows.append([f"`{row['file']}`", f"{row['set']}, {row['n']} images", *cells])
    return log.markdown("file | images | AUC | accuracy at 0.5 | Brier score | sensitivity | specificity", rows)


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
    header = "file | an image, 1 thread | an image, 2 threads | batches of 64, 2 threads | loads in | memory"
    return log.markdown(header, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help="images of other hospitals, to be scored before")
    args = parser.parse_args()
    if rows := [score(model, images) for images in args.sets for model in sorted(log.MODELS.glob("*.onnx"))]:
        files.write_csv(log.FOLDER / "hospitals.csv", rows)
    print(score_table(), threshold_table(), hospital_table(), int8_table(), speed_table(), sep="\n\n")


if __name__ == "__main__":
    main()
