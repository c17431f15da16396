"""Make the tables of models/README.md from the shipped files, their parity files and results/hospitals.csv.

    python -m results.card                      prints the tables, in Markdown
    python -m results.card breast busbra.csv    first scores all files on these sets, and writes results/hospitals.csv

Data sets are named as for --data of evaluate.py: breast is the folder of BrEaST as downloaded, and busbra.csv is the
table of results.busbra_table.
This external validation trains and chooses nothing. The files get whole frames at full size, as from an app.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import files
from common.deploy import onnxfile
from common.run import flags
from common.show import tables
from results import log

STEMS = ("breast_ultrasound", "breastmnist_28")


def metadata(file: str) -> dict:
    return onnxfile.load(log.MODELS / file, 1).session.get_modelmeta().custom_metadata_map


def parity(stem: str) -> dict:
    return json.loads((log.MODELS / f"{stem}.parity.json").read_text(encoding="utf-8"))


def score(model: Path, images: str) -> list[dict]:
    """Return rows of hospitals.csv: a file on a data set, per image and per patient, with found and given boxes."""
    with tempfile.TemporaryDirectory() as out:
        words = ["evaluate.py", str(model), "--data", images, "--split", "all"]
        found = log.run(words, out, f"{model.stem}/evaluation_all.json")
    made, seen = found["provenance"], found["seen"]
    about = {"file": model.name, "set": made["data"]["sets"][0]["hospital"]}
    whole = [entry for entry in found["results"] if entry["subset"] == "all"]
    rows = []
    names = ("standard", "operating point")
    for scores, chosen in zip(*([one for one in whole if one["threshold_name"] == name] for name in names)):
        row = about | {"unit": scores["unit"], "boxes": scores.get("boxes", ""), "n": scores["n"]}
        row |= {"trained_on": seen["trained on"], "commit": made["commit"][:10]}
        row |= log.columns(scores, auc="auc", accuracy="accuracy", brier="brier")
        rows.append(row | log.columns(chosen, sensitivity="recall", specificity="specificity"))
    return rows


def stored(about: dict) -> Iterator[tuple[str, dict, dict]]:
    """Yield (name, metrics at 0.5, metrics at the threshold) for each part of the images in a file's metadata."""
    results = json.loads(about["results"])
    standard, chosen = (tables.named(results, name) for name in ("standard", "operating point"))
    yield from ((name, scores, chosen[name]) for name, scores in standard.items())


def splits() -> Iterator[tuple[list[str], str, dict, dict]]:
    """Yield ([file, part], threshold, metrics at 0.5, metrics at the threshold) of each fp32 file and part."""
    for file in (f"{stem}.onnx" for stem in STEMS):
        about = metadata(file)
        for name, scores, chosen in stored(about):
            yield [f"`{file}`", f"{name}, {scores['n']} {scores['unit']}s"], about["threshold"], scores, chosen


def score_rows() -> Iterator[list[str]]:
    for on, _, scores, _ in splits():
        yield [*on, *(log.cell(scores, metric) for metric in ("auc", "accuracy", "brier", "ece"))]


def threshold_rows() -> Iterator[list[str]]:
    for on, threshold, _, flagged in splits():
        yield [*on, f"{float(threshold):.4f}", log.cell(flagged, "recall"), log.cell(flagged, "specificity")]


def hospital_rows() -> Iterator[list[str]]:
    """Yield a row for each file and data set of hospitals.csv, unless the file was trained on the data set."""
    for row in log.read("hospitals.csv"):
        if row["trained_on"] != "0":
            continue
        cells = [log.cell(row, name) for name in ("auc", "accuracy", "brier", "sensitivity", "specificity")]
        what = f"{row['set']}, {row['n']} {row['unit']}s" + f", boxes {row['boxes']}" * bool(row["boxes"])
        yield [f"`{row['file']}`", what, *cells]


def int8_rows() -> Iterator[list[str]]:
    """Yield rows on how int8 files agree with fp32 files."""
    for stem in STEMS:
        for row in parity(stem).get("int8", {"rows": []})["rows"]:
            if row["split"] in ("train+val", "test"):
                cells = f"{row['agreement']:.1%}", f"{row['auc_loss']:+.4f}", f"{row['max_difference']:.3f}"
                yield [f"`{stem}.int8.onnx`", row["split"], *cells]


def speed_rows() -> Iterator[list[str]]:
    """Yield a row for each file: median latency, images per second, load time and peak memory."""
    for stem in STEMS:
        measured = parity(stem)["benchmark"]
        for model, process in measured["process"].items():
            file = f"{stem}.onnx" if model == "fp32" else f"{stem}.{model}.onnx"
            latency = {(r["threads"], r["batch"]): r for r in measured["latency"] if r["model"] == model}
            one, two, batches = latency[1, 1], latency[2, 1], latency[2, 64]
            times = f"{one['p50_ms']:.1f} ms", f"{two['p50_ms']:.1f} ms", f"{batches['images_per_second']:.0f} images/s"
            load = f"{process['load_seconds'] * 1e3:.0f} ms", f"{process['peak_bytes'] / 1e6:.0f} MB"
            yield [f"`{file}`", *times, *load]


TABLES = {
    "file | images | AUC | accuracy at 0.5 | Brier score | ECE": score_rows,
    "file | images | threshold | sensitivity | specificity": threshold_rows,
    "file | images | AUC | accuracy at 0.5 | Brier score | sensitivity | specificity": hospital_rows,
    "file | images | labels that agree | AUC loss (negative: better) | largest difference of P": int8_rows,
    "file | an image, 1 thread | an image, 2 threads | batches of 64, 2 threads | loads in | memory": speed_rows,
}


def main():
    parser = log.parser(__doc__)
    parser.add_argument("sets", nargs="*", help="images of other hospitals, to be scored before")
    args = parser.parse_args()
    models = sorted(log.MODELS.glob("*.onnx"))
    scored = [row for images in args.sets for model in models for row in score(model, images)]
    if scored:
        files.write_csv(log.FOLDER / "hospitals.csv", scored)
    print(*(log.markdown(header, rows()) for header, rows in TABLES.items()), sep="\n\n")


if __name__ == "__main__":
    flags.run(main)
