"""The tables of models/README.md, from what the shipped files and their parity files store, and from hospitals.csv.

    python -m results.card                                        prints them, in Markdown
    python -m results.card breast/images.csv busbra/images.csv    writes results/hospitals.csv before

External validation, which trains and chooses nothing: every shipped file on whole frames, at full size, as an app would
give them. A set is a folder or table as evaluate.py's --data takes it; results/README.md says where to get these two.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import files
from common.data import file_name
from common.deploy import onnxfile
from common.run import flags
from results import log

STEMS = ("breastmnist", "breastmnist_128", "breast_ultrasound_128")


def metadata(file: str) -> dict:
    return onnxfile.load(log.MODELS / file, 1).session.get_modelmeta().custom_metadata_map


def parity(stem: str) -> dict:
    return json.loads((log.MODELS / f"{stem}.parity.json").read_text())


def score(model: Path, images: str) -> dict:
    """A row of hospitals.csv: one file on all images of one set."""
    with tempfile.TemporaryDirectory() as out:
        words = ["evaluate.py", str(model), "--data", images, "--split", "all"]
        found = log.run(words, out, "evaluation_all.json")
    scores, flagged = found["splits"]["all"], found["operating_point"]["splits"]["all"]
    row = {"file": model.name, "set": file_name(images), "n": scores["n"]}
    row |= {"trained_on": (found["seen"] or {}).get("trained_on", ""), "commit": found["provenance"]["commit"][:10]}
    row |= log.columns(scores | found["calibration"]["all"], auc="auc", accuracy="accuracy", brier="brier")
    return row | log.columns(flagged, sensitivity="recall", specificity="specificity")


def splits() -> Iterator[tuple[list[str], str, dict, dict]]:
    """Of each fp32 file and split: [file, split], the threshold, metrics at 0.5 with calibration, metrics at it."""
    for file in (f"{stem}.onnx" for stem in STEMS):
        about = metadata(file)
        metrics, *others = (json.loads(about[key]) for key in ("metrics", "calibration", "metrics_at_threshold"))
        for split, scores in metrics.items():
            on = [f"`{file}`", f"{split.replace('_', ' ')}, {scores['n']} images"]
            calibration, flagged = (part[split] for part in others)
            yield on, about["threshold"], scores | calibration, flagged


def score_rows() -> Iterator[list[str]]:
    for on, _, scores, _ in splits():
        yield [*on, *(log.cell(scores, metric) for metric in ("auc", "accuracy", "brier", "ece"))]


def threshold_rows() -> Iterator[list[str]]:
    for on, threshold, _, flagged in splits():
        yield [*on, f"{float(threshold):.4f}", log.cell(flagged, "recall"), log.cell(flagged, "specificity")]


def hospital_rows() -> Iterator[list[str]]:
    """Every file at other hospitals; what a model was trained on is said, not scored."""
    for row in log.read("hospitals.csv"):
        cells = [log.cell(row, name) for name in ("auc", "accuracy", "brier", "sensitivity", "specificity")]
        if int(row["trained_on"] or 0):
            cells = [f"trained on {row['trained_on']} of them", "", "", "", ""]
        yield [f"`{row['file']}`", f"{row['set']}, {row['n']} images", *cells]


def int8_rows() -> Iterator[list[str]]:
    """How the int8 files agree with the fp32 ones."""
    for stem in STEMS:
        for row in parity(stem)["int8"]["rows"]:
            if row["split"] in ("train+val", "test"):
                cells = f"{row['agreement']:.1%}", f"{row['auc_loss']:+.4f}", f"{row['max_difference']:.3f}"
                yield [f"`{stem}.int8.onnx`", row["split"], *cells]


def speed_rows() -> Iterator[list[str]]:
    """Median latency, load time and memory of every file."""
    for stem in STEMS:
        measured = parity(stem)["benchmark"]
        for model, file in (("fp32", f"{stem}.onnx"), ("int8", f"{stem}.int8.onnx")):
            latency = {(r["threads"], r["batch"]): r for r in measured["latency"] if r["model"] == model}
            one, two, batches, process = latency[1, 1], latency[2, 1], latency[2, 64], measured["process"][model]
            times = f"{one['p50_ms']:.1f} ms", f"{two['p50_ms']:.1f} ms", f"{batches['images_per_second']:.0f} images/s"
            load = f"{process['load_seconds'] * 1e3:.0f} ms", f"{process['peak_bytes'] / 1e6:.0f} MB"
            yield [f"`{file}`", *times, *load]


TABLES = {
    "file | on | AUC | accuracy | Brier score | ECE": score_rows,
    "file | on | threshold | sensitivity | specificity": threshold_rows,
    "file | images | AUC | accuracy at 0.5 | Brier score | sensitivity | specificity": hospital_rows,
    "file | on | labels that agree | AUC lost | largest difference of P": int8_rows,
    "file | an image, 1 thread | an image, 2 threads | batches of 64, 2 threads | loads in | memory": speed_rows,
}


def main():
    parser = log.parser(__doc__)
    parser.add_argument("sets", nargs="*", help="images of other hospitals, to be scored before")
    args = parser.parse_args()
    scored = [score(model, images) for images in args.sets for model in sorted(log.MODELS.glob("*.onnx"))]
    if scored:
        files.write_csv(log.FOLDER / "hospitals.csv", scored)
    print(*(log.markdown(header, rows()) for header, rows in TABLES.items()), sep="\n\n")


if __name__ == "__main__":
    flags.run(main)
