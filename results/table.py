"""The table and the figure of docs/results.md, made from the committed files of results/.

python -m results.table      prints the table, in Markdown, and writes results/results.png
"""

import json
from dataclasses import dataclass

from common import intervals
from common.show import figures, tables
from results import log

METRICS = ("accuracy", "auc")

YANG = "[Yang et al. 2023](https://doi.org/10.1038/s41597-022-01721-8)"
DOERRICH = "[Doerrich et al. 2025](https://arxiv.org/abs/2404.15786)"
SOYHAN = "[mustafaerensoyhan/uncertainty-tta-medmnist](https://github.com/mustafaerensoyhan/uncertainty-tta-medmnist)"
SANAP = "[HrushiSanap/medmnist_ensemble_study](https://github.com/HrushiSanap/medmnist_ensemble_study), preprint"
RADIO_DINO = "[Zedda et al. 2025](https://doi.org/10.1016/j.compbiomed.2025.110583)"
BIOFUSE = "[Hossain and Harris-Birtill 2026](https://doi.org/10.1371/journal.pone.0320989)"

# Test results at one input size, (source, what, input size, accuracy, AUC): numbers, or (mean, standard deviation) over
# seeds where that is published.
PUBLISHED: list[tuple] = [
    (YANG, "MedMNIST's ResNet-18, mean of 3 runs", 28, 0.863, 0.901),
    (YANG, "Google AutoML Vision", 28, 0.861, 0.919),
    (DOERRICH, "ImageNet ResNet-18, mean of 3 seeds", 28, 0.840, 0.876),
    (DOERRICH, "AlexNet, the best of their ten networks", 28, 0.865, 0.891),
    (DOERRICH, "ResNet-18, mean of 3 seeds", 64, (0.833, 0.005), (0.871, 0.018)),
    (SOYHAN, "ResNet-18, mean of 3 seeds", 64, (0.887, 0.010), (0.917, 0.005)),
    (DOERRICH, "AlexNet, the best of their ten networks", 128, 0.906, 0.940),
    (SANAP, "four large networks voting, one seed", 224, 0.929, 0.943),
    (RADIO_DINO, "Radio-DINO, small", 224, 0.917, 0.956),
    (BIOFUSE, "BioFuse, five foundation models, chosen on val", 224, 0.897, 0.956),
]  # TODO-LEAD: the ± of Doerrich's rows at 28 and of AlexNet at 128, from the tables of the paper


@dataclass(frozen=True)
class Row:
    """One result: {"accuracy": (value, low, high), "auc": …}; low and high are None where there is no interval, and
    `spread` says that they are one standard deviation over seeds, repeats or folds to either side."""

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


def rows_on_test(what: str, size: int, command: str, splits: dict) -> list[Row]:
    """The whole test split, and the clean images of it, out of the "splits" of a metrics.json."""
    clean = f"… the {splits['clean_test']['n']} clean test images"
    return [scored(f"{what}, test", size, command, splits["test"]), scored(clean, size, "", splits["clean_test"])]


def repeated_rows(name: str, size: int, command: str) -> list[Row]:
    """Repeated cross-validation: one model, the mean of one model a repeat, and all models on test."""
    run = read(name)
    repeats, models = len(run["repeats"]), len(run["folds"])
    return [
        spread(f"5 folds, out-of-fold, {repeats} times", size, command, run["repeats"]),
        scored(f"… mean of the {repeats} models", size, "", run["splits"]["out_of_fold"]),
        *rows_on_test(f"ensemble of all {models}", size, "", run["splits"]),
    ]


def refitted_rows(name: str, size: int, command: str, how: str = "") -> list[Row]:
    """Cross-validation, and the model of all train and val images on test."""
    splits = read(name)["splits"]
    held_out = scored(f"5 folds{how}, out-of-fold", size, command, splits["out_of_fold"])
    return [held_out, *rows_on_test(f"one model of all train and val images{how}", size, "", splits)]


def our_rows() -> list[Row]:
    seeds, grouped = log.read("seeds.csv"), read("crossval.json")
    naive, refitted = read("crossval_28_naive.json")["repeats"], read("crossval_28.json")["splits"]
    study = read("seed_study.json")["folds"]
    seeds_command, study_command = "python -m results.seeds", "python crossval.py --folds 5 --groups none --pool train"
    return [
        spread("one model, seeds 0–9, test", 28, seeds_command, seeds, "test_"),
        spread("… the 93 clean test images", 28, "", seeds, "clean_test_"),
        spread("… val, which chose the epoch", 28, "", seeds, "val_"),
        scored("5 folds, out-of-fold", 28, "python crossval.py --compare-groups", grouped["splits"]["out_of_fold"]),
        *rows_on_test("ensemble of the five", 28, "", grouped["splits"]),
        *repeated_rows("crossval_28_repeated.json", 28, "python crossval.py --repeats 4"),
        spread("near-duplicates not kept together, 4 times", 28, "python crossval.py --repeats 4 --groups none", naive),
        *rows_on_test("one model of all train and val images", 28, "python crossval.py --refit", refitted),
        *refitted_rows(
            "crossval_28_upsampled.json", 28, "python crossval.py --upsample 112 --refit", how=", enlarged to 112"
        ),
        *repeated_rows("crossval_64.json", 64, "python crossval.py --size 64 --repeats 3"),
        *refitted_rows("crossval_128.json", 128, "python crossval.py --size 128 --epochs 12 --refit"),
        spread("the first study's protocol, mean of 5 folds of train", 28, study_command, study),
    ]


def published_rows() -> list[Row]:
    rows = []
    for source, what, size, *numbers in PUBLISHED:
        spread = isinstance(numbers[0], tuple)
        values = [(n[0], n[0] - n[1], n[0] + n[1]) if spread else (n, None, None) for n in numbers]
        rows.append(Row(f"published: {what}, test", size, source, dict(zip(METRICS, values)), spread))
    return rows


def cell(row: Row, metric: str) -> str:
    value, low, high = row.values[metric]
    if low is None:
        return f"{value:.3f}"
    return tables.plus_minus(value, high - value) if row.spread else tables.with_limits(value, (low, high))


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
    title = "BreastMNIST; bars are 95 % intervals, or standard deviations over seeds, repeats or folds"
    figures.save(figures.results(named, title), log.FOLDER / "results.png")


if __name__ == "__main__":
    main()
