"""The table and the figure of docs/results.md, made from the committed files of results/.

python -m results.table      prints the table, in Markdown, and writes results/results.png
"""

import json
from collections.abc import Iterable
from math import nan

from matplotlib.figure import Figure

from common.show import figures, tables
from results import card, hospitals, log

METRICS = ("accuracy", "auc")

YANG = "[Yang et al. 2023](https://doi.org/10.1038/s41597-022-01721-8)"
DOERRICH = "[Doerrich et al. 2025](https://arxiv.org/abs/2404.15786)"
SOYHAN = "[mustafaerensoyhan/uncertainty-tta-medmnist](https://github.com/mustafaerensoyhan/uncertainty-tta-medmnist)"
SANAP = "[HrushiSanap/medmnist_ensemble_study](https://github.com/HrushiSanap/medmnist_ensemble_study), preprint"
RADIO_DINO = "[Zedda et al. 2025](https://doi.org/10.1016/j.compbiomed.2025.110583)"
BIOFUSE = "[Hossain and Harris-Birtill 2026](https://doi.org/10.1371/journal.pone.0320989)"

# Test results at one input size, (source, what, its name in the figure, input size, accuracy, AUC): numbers, or (mean,
# standard deviation) over seeds where that is published.
PUBLISHED: list[tuple] = [
    (YANG, "MedMNIST's ResNet-18, mean of 3 runs", "ResNet, Yang", 28, 0.863, 0.901),
    (YANG, "Google AutoML Vision", "AutoML, Yang", 28, 0.861, 0.919),
    (DOERRICH, "ImageNet ResNet-18, mean of 3 seeds", "ResNet, Doerrich", 28, 0.840, 0.876),
    (DOERRICH, "AlexNet, the best of their ten networks", "AlexNet, Doerrich", 28, 0.865, 0.891),
    (DOERRICH, "ResNet-18, mean of 3 seeds", "ResNet, Doerrich", 64, (0.833, 0.005), (0.871, 0.018)),
    (SOYHAN, "ResNet-18, mean of 3 seeds", "ResNet, Soyhan", 64, (0.887, 0.010), (0.917, 0.005)),
    (DOERRICH, "AlexNet, the best of their ten networks", "AlexNet, Doerrich", 128, 0.906, 0.940),
    (SANAP, "four large networks voting, one seed", "four networks, Sanap", 224, 0.929, 0.943),
    (RADIO_DINO, "Radio-DINO, small", "", 224, 0.917, 0.956),
    (BIOFUSE, "BioFuse, five foundation models, chosen on val", "BioFuse, Radio-DINO", 224, 0.897, 0.956),
]

# What the figure shows of ours, an input side each.
BY_SIDE = ("crossval_28_repeated.json", "crossval_64.json", "crossval_128.json")
PLACES = {"breast/images.csv": "BrEaST", "busbra/images.csv": "BUS-BRA"}


def read(name: str) -> dict:
    return json.loads((log.FOLDER / name).read_text())


def row(what: str, made: dict, cells: Iterable[str]) -> list[str]:
    """A row of ours: under what, the input size, and the full command with precision and first digits of the weights'
    MD5. made: a provenance; cells: of METRICS."""
    weights = f"weights {made['weights_md5'][:8]}" if made["weights_md5"] else "downloaded weights"
    return [what, str(made["data"]["size"]), f"`{made['command']}`, {made['precision']}, {weights}", *cells]


def scored(what: str, run: dict, split: str) -> list[str]:
    """A row out of a metrics.json, with intervals."""
    return row(what, run["provenance"], (card.with_interval(run["splits"][split], metric) for metric in METRICS))


def spread(what: str, made: dict, samples: list[dict], prefix: str = "") -> list[str]:
    """A row of mean and standard deviation over seeds, repeats or folds."""
    return row(what, made, (log.spread([float(s[prefix + metric]) for s in samples]) for metric in METRICS))


def rows_on_test(what: str, run: dict) -> list[list[str]]:
    """The whole test split, and the clean images of it."""
    clean = f"… the {run['splits']['clean_test']['n']} clean test images"
    return [scored(f"{what}, test", run, "test"), scored(clean, run, "clean_test")]


def repeated_rows(run: dict) -> list[list[str]]:
    """Repeated cross-validation: one model, the mean of one model a repeat, and all models on test."""
    repeats, models = len(run["repeats"]), len(run["folds"])
    return [
        spread(f"5 folds, out-of-fold, {repeats} times", run["provenance"], run["repeats"]),
        scored(f"… mean of the {repeats} models", run, "out_of_fold"),
        *rows_on_test(f"ensemble of all {models}", run),
    ]


def refitted_rows(run: dict, how: str = "") -> list[list[str]]:
    """Cross-validation, and the model of all train and val images on test."""
    held_out = scored(f"5 folds{how}, out-of-fold", run, "out_of_fold")
    return [held_out, *rows_on_test(f"one model of all train and val images{how}", run)]


def our_rows() -> list[list[str]]:
    grouped, naive, study = map(read, ("crossval.json", "crossval_28_naive.json", "seed_study.json"))
    seeds, two = log.read("seeds.csv"), read("crossval_hospitals.json")
    command = "python -m results.seeds" + seeds[0]["command"].partition(" --threads 1")[2]
    made = seeds[0] | {"command": command, "data": {"size": 28}}
    return [
        spread("one model, seeds 0–9, test", made, seeds, "test_"),
        spread("… the 93 clean test images", made, seeds, "clean_test_"),
        spread("… val, which chose the epoch", made, seeds, "val_"),
        scored("5 folds, out-of-fold", grouped, "out_of_fold"),
        *rows_on_test("ensemble of the five", grouped),
        *repeated_rows(read("crossval_28_repeated.json")),
        spread("near-duplicates not kept together, 4 times", naive["provenance"], naive["repeats"]),
        *rows_on_test("one model of all train and val images", read("crossval_28.json")),
        *refitted_rows(read("crossval_28_upsampled.json"), ", enlarged to 112"),
        *repeated_rows(read("crossval_64.json")),
        *refitted_rows(read("crossval_128.json")),
        *rows_on_test("one model of three stages", read("crossval_128_small.json")),
        scored("trained at BrEaST alone, scored on train and val", two, "out_of_fold, BreastMNIST"),
        scored("trained on train and val alone, on BrEaST", two, "out_of_fold, breast/images.csv"),
        *rows_on_test("one model of both hospitals", two),
        spread("the first study's protocol, mean of 5 folds of train", study["provenance"], study["folds"]),
    ]


def mean_and_std(published) -> tuple[float, float]:
    """Of a number in PUBLISHED, or of a pair of them; the standard deviation is nan where it is not published."""
    return published if isinstance(published, tuple) else (published, nan)


def published_rows() -> list[list[str]]:
    return [
        [f"published: {what}, test", str(size), source, *(tables.plus_minus(*mean_and_std(n)) for n in numbers)]
        for source, what, _, size, *numbers in PUBLISHED
    ]


def table(rows: list[list[str]]) -> str:
    """The rows in Markdown; the command of ours is said once, where those below are of the same."""
    lines, above = [], ""
    for what, size, source, *cells in rows:
        lines.append([what, size, "" if source == above and "`" in above else source, *cells])
        above = source
    return log.markdown("what | input | command or source | accuracy | AUC", lines)


def at_hospitals() -> dict:
    """{fp32 file: {hospital: (AUC, low, high)}}, its own test images first."""
    found: dict = {}
    for row in log.read(hospitals.TABLE):
        if ".int8" not in row["file"] and row["trained_on"] in ("", "0"):
            test = json.loads(card.metadata(row["file"])["metrics"])["test"]
            points = found.setdefault(row["file"], {"own test": (test["auc"], *test["auc_ci95"])})
            points[PLACES.get(row["set"], row["set"])] = log.value_and_limits(row, "auc")
    return found


def draw() -> Figure:
    """What the table and results/hospitals.csv say, at one look."""
    ours: dict = {"ours, out of fold, 95 % interval": {}, "ours, on test, 95 % interval": {}}
    for run in map(read, BY_SIDE):
        for points, split in zip(ours.values(), ("out_of_fold", "test")):
            scores = run["splits"][split]
            points[run["provenance"]["data"]["size"]] = scores["auc"], *scores["auc_ci95"]
    others = [(name, side, *mean_and_std(auc)) for *_, name, side, _, auc in PUBLISHED]
    title = "AUC: of pairs, the share in which the malignant image gets the higher probability"
    return figures.results(ours, others, at_hospitals(), title)


def main():
    print(table(our_rows() + published_rows()))
    figures.save(draw(), log.FOLDER / "results.png")


if __name__ == "__main__":
    main()
