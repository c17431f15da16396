"""Score the two looks of the view lesion, alone and together, at a hospital that the model has not seen.

    python crossval.py --data busi.csv breast --groups hospital --size 128 --no-test … --out RUN
    python -m results.looks NAME RUN [RUN …]        adds a row for each hospital to results/looks.csv
    python -m results.looks                         prints the table, in Markdown

Several runs are one ensemble: the mean of their heat maps finds the lesion, and the mean of their logits is the answer.
The AUC is over all images of a hospital. With given boxes, the AUC is over the images that have a box.
"""

import csv

import numpy as np

from common import data, looks, metrics
from common.boxes import in_shares, overlap
from common.images import Images
from common.model import Predictor, predict
from common.run import flags, folders
from results import log

AUCS = ["frame", "window_found", "both_found", "window_given", "both_given"]
COLUMNS = ["name", "scored_on", "n", *AUCS, "iou", "iou_below_0.3", "commit", "settings"]
SETTINGS = ("epochs", "lr", "zoom", "mixup", "stages", "precision", "repeats", "seed")


def score(predictor: Predictor, images: Images) -> dict:
    """Return the AUC of each look, and the overlap (IoU) of found windows and windows around the given boxes."""
    boxed = images.boxed
    found, given = (looks.look(predictor, images, given=given) for given in (False, True))
    frame = Predictor([member.frame for member in predictor.members], predictor.mirror)
    window = Predictor([member.window for member in predictor.members], predictor.mirror)
    of_frame = predict(frame, images.pixels)
    of_found, of_given = (predict(window, one.images.network_input("window")) for one in (found, given))
    iou = overlap(found.windows[boxed], in_shares(looks.lesion_windows(images.boxes[boxed]), images.sizes[boxed]))
    every, lesions = np.ones(len(images), bool), boxed
    logits = {"frame": (of_frame, every), "window_found": (of_found, every), "both_found": (of_frame + of_found, every)}
    logits |= {"window_given": (of_given, lesions), "both_given": (of_frame + of_given, lesions)}
    aucs = {name: metrics.auc(images.labels[which], values[which]) for name, (values, which) in logits.items()}
    return aucs | {"iou": np.median(iou), "iou_below_0.3": (iou < 0.3).mean()}


def add(name: str, paths: list[str]) -> None:
    """Score an ensemble of runs at each hospital, and add a row for each hospital to looks.csv."""
    runs = [folders.load(path) for path in paths]
    described, made = runs[0].data, folders.read_metrics(runs[0].path)
    config = made["config"]
    specs = [one["spec"] for one in described["sets"]]
    found = data.find(specs, None, described["size"], described["seed"], None, runs[0].table, "train", "lesion")
    pool = data.load(found, "train", "val", optional=["val"])
    hospitals = np.unique(pool.hospitals)  # in the order of the folds
    about = {
        "name": name,
        "commit": made["provenance"]["commit"][:7],
        "settings": {key: config[key] for key in SETTINGS},
    }
    with open(log.FOLDER / "looks.csv", "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            writer.writeheader()
        for i, hospital in enumerate(hospitals):
            members = [member for run in runs for member in list(run.predictor.members)[i :: len(hospitals)]]
            here = pool[pool.hospitals == hospital]
            scores = score(Predictor(members, runs[0].predictor.mirror).eval(), here)
            rounded = {key: f"{value:.4f}" for key, value in scores.items()}
            writer.writerow(about | {"scored_on": hospital, "n": len(here)} | rounded)
            print(hospital, rounded, flush=True)


def main():
    parser = log.parser(__doc__)
    parser.add_argument("name", nargs="?")
    parser.add_argument("runs", nargs="*", metavar="RUN")
    args = parser.parse_args()
    if args.runs:
        add(args.name, args.runs)
    else:
        shown = COLUMNS[:-2]
        print(log.markdown(" | ".join(shown), [[row[key] for key in shown] for row in log.read("looks.csv")]))


if __name__ == "__main__":
    flags.run(main)
