"""Check what calibrate.py promises: calibrate a file on random parts of a hospital, and measure on the rest.

    python -m results.recalibration MODEL.onnx FOLDER_OF_THE_HOSPITAL

Each row of results/recalibration.csv is about 200 random parts of one size (--parts). "held" is the share of parts in
which the rate on the rest lies in the 95 % predictive interval. The predictive interval is the interval for new images,
made wider because the rest holds few images. "width" is the mean width of the interval for new images. Sensitivity,
specificity, Brier score and calibration in the large are on the rest, with calibrate.py and without. A group (patients
and near-duplicates) is never divided.
"""

from pathlib import Path

import numpy as np

from common import data, intervals, metrics, recalibration
from common.calibration import brier, calibrated, in_the_large, sigmoid
from common.deploy import onnxfile
from common.errors import UserError
from common.files import write_csv
from common.kinds import POSITIVE_INT
from common.recalibration import Unit
from common.run import command
from common.show import tables
from common.thresholds import Rule
from results import log

SIZES, PARTS = (50, 100, 200, 500), 200
DRAWS = 2000  # random draws for a predictive interval
RULE = Rule("sensitivity", 0.95)


def draw(groups: np.ndarray, n: int, generator) -> np.ndarray:
    """Return which images a random part has, bool [images]: random groups until they hold at least n images."""
    order = generator.permutation(np.unique(groups))
    sizes = np.cumsum([np.sum(groups == group) for group in order])
    return np.isin(groups, order[: int(np.searchsorted(sizes, n)) + 1])


def measure(unit: Unit, probabilities: np.ndarray, threshold: float) -> dict:
    """Return sensitivity, specificity, Brier score and calibration in the large of probabilities at a threshold."""
    rates = metrics.rates(unit.labels, probabilities >= threshold)
    found = {"sensitivity": rates["recall"], "specificity": rates["specificity"]}
    found |= {"brier": float(brier(unit.labels, probabilities))}
    return found | {"in_the_large": float(in_the_large(unit.labels, probabilities))}


def one_part(whole: Unit, n: int, threshold: float, generator) -> dict | None:
    """Calibrate on a random part of a hospital, and measure on the rest.

    Returns: a dict, or None if the part has too few groups of a class, or the rest only one class.
    """
    inside = draw(whole.groups, n, generator)
    part, rest = (Unit(whole.labels[m], whole.logits[m], whole.groups[m]) for m in (inside, ~inside))
    counts = intervals.class_groups(part.labels, part.groups)
    if min(counts) < recalibration.LEAST or len(np.unique(rest.labels)) < 2:
        return None
    fitted = recalibration.fit(part, part, threshold, RULE)
    new = calibrated(rest.logits, fitted.temperature, fitted.offset)
    row: dict = {"without": measure(rest, sigmoid(rest.logits), threshold)}
    row |= {"with": measure(rest, new, fitted.threshold)}
    for name, key, label in (("sensitivity", "recall", 1), ("specificity", "specificity", 0)):
        low, high = fitted.after[f"{key}_ci95"]
        of_part, of_rest = (intervals.effective_number(unit.groups[unit.labels == label]) for unit in (part, rest))
        placed = key == "recall"  # the malignant images placed the threshold
        reached = fitted.after[key] * (of_part + placed)
        rates = generator.beta(reached + 0.5 * (not placed), of_part - reached + 0.5 * (1 + placed), DRAWS)
        widest = np.percentile(generator.binomial(round(of_rest), rates) / round(of_rest), intervals.LEVELS)
        row |= {f"{name}_held": widest[0] <= row["with"][name] <= widest[1], f"{name}_width": high - low}
    return row


def summarise(rows: list[dict], n: int, parts: int) -> dict:
    """Return a row of recalibration.csv. rows: of `one_part`; n: images of a part; parts: number of parts tried."""
    found: dict = {"images": n, "parts": len(rows), "refused": parts - len(rows)}
    for name in ("sensitivity", "specificity"):
        found[f"{name}_held"] = np.mean([row[f"{name}_held"] for row in rows])
        found[f"{name}_width"] = np.mean([row[f"{name}_width"] for row in rows])
        for how in ("without", "with"):
            low, middle, high = np.percentile([row[how][name] for row in rows], (5, 50, 95))
            found[f"{name}_{how}"] = f"{middle:.3f} ({low:.3f} to {high:.3f})"
    for how in ("without", "with"):
        found[f"brier_{how}"] = np.mean([row[how]["brier"] for row in rows])
        found[f"in_the_large_{how}"] = np.mean([abs(row[how]["in_the_large"]) for row in rows])
    return found


def main():
    parser = log.parser(__doc__)
    parser.add_argument("model", metavar="MODEL.onnx", help="a file that was not trained on the hospital")
    parser.add_argument("data", metavar="FOLDER", help="images of a hospital, as --data takes them")
    command.add(parser, "--parts", POSITIVE_INT, "random parts of each size", PARTS)
    args = parser.parse_args()
    model = onnxfile.load(args.model, 1)
    asked = data.find([args.data], None, model.data["size"], undivided="all")
    images = data.load(asked, *asked.splits, optional=asked.splits)
    logits = model.run_images(["logit"], images)[0].astype(float)
    whole = recalibration.units(images, logits, "image")
    rows = []
    for n in (n for n in SIZES if n <= 0.8 * len(images)):
        generator = np.random.default_rng(n)
        found = [one_part(whole, n, model.calibration.threshold, generator) for _ in range(args.parts)]
        about = {"model": Path(args.model).name, "hospital": images.hospitals[0]}
        if accepted := [row for row in found if row]:
            rows.append(about | summarise(accepted, n, args.parts))
    if not rows:
        raise UserError(f"{args.data}: has too few images to calibrate on parts of them. Give {SIZES[0] * 2} or more.")
    path = log.FOLDER / "recalibration.csv"
    earlier = log.read(path.name) if path.exists() else []
    kept = [row for row in earlier if (row["model"], row["hospital"]) != (rows[0]["model"], rows[0]["hospital"])]
    write_csv(path, [*kept, *rows])
    print(tables.columns(rows))


if __name__ == "__main__":
    command.run(main)
