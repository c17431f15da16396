"""External validation: every shipped file on whole frames of other hospitals, at full size, as an app would give them.

    python -m results.hospitals breast/images.csv busbra/images.csv    writes results/hospitals.csv, prints the table
    python -m results.hospitals --table                                prints the table alone

A set is a folder or table as evaluate.py's --data takes it; results/README.md says where to get these two, and names
their licences. Intervals draw whole patients. Nothing here trains or chooses anything.
"""

import argparse
import tempfile
from pathlib import Path

from common import files
from common.data import file_name
from results import log

TABLE = "hospitals.csv"
MODELS = Path(__file__).parent.parent / "models"
COLUMNS = ("auc", "accuracy", "brier", "sensitivity", "specificity")


def score(model: Path, images: str) -> dict:
    """A row: one file on all images of one set."""
    with tempfile.TemporaryDirectory() as out:
        words = ["evaluate.py", str(model), "--data", images, "--split", "all"]
        found = log.run(words, out, "evaluation_all.json")
    row = {"file": model.name, "set": file_name(images), "n": found["splits"]["all"]["n"]}
    seen = found["seen"] or {}
    row |= {"trained_on": seen.get("trained_on", ""), "commit": found["provenance"]["commit"][:10]}
    flagged, calibrated = found["operating_point"]["splits"]["all"], found["calibration"]["all"]
    row |= log.with_limits("auc", found["splits"]["all"], "auc")
    row |= log.with_limits("accuracy", found["splits"]["all"], "accuracy")
    row |= log.with_limits("brier", calibrated, "brier")
    row |= log.with_limits("sensitivity", flagged, "recall")
    return row | log.with_limits("specificity", flagged, "specificity")


def markdown_table(rows: list[dict]) -> str:
    """All rows; what a model was trained on is said, not scored."""
    lines = []
    for row in rows:
        seen = int(row["trained_on"] or 0)
        cells = [f"trained on {seen} of them", *[""] * 4] if seen else [log.cell(row, name) for name in COLUMNS]
        lines.append([f"`{row['file']}`", f"{row['set']}, {row['n']} images", *cells])
    return log.markdown("file | images | AUC | accuracy at 0.5 | Brier score | sensitivity | specificity", lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help="images of other hospitals")
    parser.add_argument("--table", action="store_true", help="print the table from hospitals.csv, and score nothing")
    args = parser.parse_args()
    if not (args.table or args.sets):
        parser.error("give images of other hospitals, or --table")
    if not args.table:
        rows = [score(model, images) for images in args.sets for model in sorted(MODELS.glob("*.onnx"))]
        files.write_csv(log.FOLDER / TABLE, rows)
    print(markdown_table(log.read(TABLE)))


if __name__ == "__main__":
    main()
