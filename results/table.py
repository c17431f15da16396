"""The table and the figure of results in the README, made from the committed files of results/.

python -m results.table      prints the table, in Markdown, and writes results/results.png
"""

import json
from dataclasses import dataclass

from common import figures, intervals
from results import log

METRICS = ("accuracy", "auc")

# Test results at one input size, (source, what, input size, accuracy, AUC); none of them has a published interval.
PUBLISHED = [
    ("Yang et al. 2023", "MedMNIST's ResNet-18, mean of 3 runs", 28, 0.863, 0.901),
    ("Yang et al. 2023", "Google AutoML Vision", 28, 0.861, 0.919),
    ("Doerrich et al. 2025", "ImageNet ResNet-18, mean of 3 seeds", 28, 0.840, 0.876),
    ("Doerrich et al. 2025", "AlexNet, their best at 28×28", 28, 0.865, 0.891),
    ("Doerrich et al. 2025", "ResNet-18, mean of 3 seeds", 64, 0.887, 0.917),
    ("Doerrich et al. 2025", "AlexNet", 128, 0.906, 0.940),
    ("Doerrich et al. 2025", "four large networks voting", 224, 0.930, 0.943),
]


@dataclass(frozen=True)
class Row:
    """One result: {"accuracy": (value, low, high), "auc": …}; low and high are None where there is no interval, and
    `spread` says that they are one standard deviation over seeds or folds to either side."""

    what: str
    size: int
    command: str
    values: dict
    spread: bool = False


def read(name: str) -> dict:
    return json.loads((log.FOLDER / name).read_text())


def scored(what: str, size: int, command: str, scores: dict) -> Row:
    """A row out of a metrics.json: {"auc": …, "auc_ci95": [low, high], …}."""
    return Row(what, size, command, {m: (scores[m], *scores[f"{m}_ci95"]) for m in METRICS})


def spread(what: str, size: int, command: str, samples: list[dict], prefix: str = "") -> Row:
    """A row of mean and standard deviation over seeds or folds."""
    values = {}
    for metric in METRICS:
        mean, std = intervals.mean_std([float(sample[prefix + metric]) for sample in samples])
        values[metric] = (mean, mean - std, mean + std)
    return Row(what, size, command, values, spread=True)


def our_rows() -> list[Row]:
    seeds = log.read("seeds.csv")
    grouped, small, large = (read(f"{name}.json")["splits"] for name in ("crossval", "crossval_28", "crossval_128"))
    compared = read("crossval.json")["compare_groups"]
    seeds_command, grouped_command = "python -m results.seeds", "python crossval.py --compare-groups"
    large_command, study = "python crossval.py --size 128 --epochs 12 --refit", read("seed_study.json")["folds"]
    return [
        spread("one model, seeds 0–9, test", 28, seeds_command, seeds, "test_"),
        spread("… the 93 clean test images", 28, "", seeds, "clean_test_"),
        spread("… val, which chose the epoch", 28, "", seeds, "val_"),
        scored("5 folds, out-of-fold, twins kept together", 28, grouped_command, compared["twins"]),
        scored("… every image by itself", 28, "", compared["none"]),
        scored("ensemble of the five (twins together), test", 28, "", grouped["test"]),
        scored("… the 93 clean test images", 28, "", grouped["clean_test"]),
        scored("one model of all train and val images, test", 28, "python crossval.py --refit", small["test"]),
        scored("… the 93 clean test images", 28, "", small["clean_test"]),
        scored("5 folds, out-of-fold, twins kept together", 128, large_command, large["out_of_fold"]),
        scored("one model of all train and val images, test", 128, "", large["test"]),
        scored("… the 93 clean test images", 128, "", large["clean_test"]),
        spread("the first study's protocol, mean of 5 folds of train", 28,
               "python crossval.py --folds 5 --groups none --pool train", study),
    ]  # fmt: skip


def published_rows() -> list[Row]:
    return [
        Row(f"published: {what}, test", size, source, {"accuracy": (accuracy, None, None), "auc": (auc, None, None)})
        for source, what, size, accuracy, auc in PUBLISHED
    ]


def cell(row: Row, metric: str) -> str:
    value, low, high = row.values[metric]
    if low is None:
        return f"{value:.3f}"
    return f"{value:.3f} ± {high - value:.3f}" if row.spread else f"{value:.3f} ({low:.3f} to {high:.3f})"


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    cells = []
    for row in rows:
        source = f"`{row.command}`" if row.command.startswith("python") else row.command
        cells.append([row.what, str(row.size), source, *(cell(row, metric) for metric in METRICS)])
    return log.markdown("what | input | command or source | accuracy | AUC", cells)


def main():
    ours, published = our_rows(), published_rows()
    print(table(ours + published))
    named = [(f"{row.what}, {row.size}×{row.size}", row in ours, row.values) for row in ours + published]
    title = "BreastMNIST; bars are 95 % intervals, or standard deviations over seeds or folds"
    figures.save(figures.results(named, title), log.FOLDER / "results.png")


if __name__ == "__main__":
    main()
