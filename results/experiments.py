"""Measure configurations by twin-aware 5-fold cross-validation over train+val; test is never read.

    python -m results.experiments [NAME ...] [--seeds 0 1] [--weights=FILE, or another flag for every run, with its "="]

Each row of results/experiments.csv is one configuration at one seed; rows that are there already are not run again.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

TABLE = Path(__file__).with_name("experiments.csv")
COLUMNS = "name seed commit command auc auc_low auc_high accuracy accuracy_low accuracy_high seconds".split()

# The defaults of common/settings.py when the comparison was made, and what each configuration changes.
BASE = "--lr 3e-4 --wd 1e-2 --epochs 20 --batch-size 32 --warmup 0.2 --stages 3 --mixup 0.4 --ema 0.98"
CONFIGURATIONS = {
    "base": "",
    "no mixup": "--mixup 0",
    "focal loss": "--loss focal",
    "12 epochs": "--epochs 12",
    "two stages": "--stages 2",
    "label smoothing 0.1": "--label-smoothing 0.1",
    "lr 1e-3": "--lr 1e-3",
    "balanced classes": "--class-weights balanced",
    "no augmentation": "--augment off",
    "lr 1e-4": "--lr 1e-4",
    "batch 64": "--batch-size 64",
    "30 epochs": "--epochs 30",
    "first stage frozen": "--frozen-stages 1",
    "two stages frozen": "--frozen-stages 2",
    "from scratch": "--weights none",
    "upsampled to 112, four stages": "--upsample 112 --stages 4",
    "64 px, four stages": "--size 64 --stages 4",
}


def done() -> set[tuple[str, str]]:
    """(name, seed) of the rows in the table."""
    if not TABLE.exists():
        return set()
    with open(TABLE, newline="") as file:
        return {(row["name"], row["seed"]) for row in csv.DictReader(file)}


def measure(name: str, seed: int, flags: list[str]) -> dict:
    """Run one configuration. Returns: its row."""
    command = ["crossval.py", "--no-test", "--seed", str(seed), *BASE.split(), *flags, *CONFIGURATIONS[name].split()]
    out = Path("runs/experiments") / f"{name.replace(' ', '_')}_{seed}"
    began = time.perf_counter()
    subprocess.run([sys.executable, *command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    metrics = json.loads((out / "metrics.json").read_text())
    scores = metrics["splits"]["out_of_fold"]
    values = [name, seed, metrics["provenance"]["commit"][:10], "python " + " ".join(command)]
    for metric in ("auc", "accuracy"):
        values += [f"{x:.4f}" for x in (scores[metric], *scores[f"{metric}_ci95"])]
    return dict(zip(COLUMNS, [*values, f"{seconds:.0f}"]))


def append(row: dict) -> None:
    new = not TABLE.exists()
    with open(TABLE, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="configurations to run (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args, flags = parser.parse_known_args()
    for seed in args.seeds:
        for name in args.names or CONFIGURATIONS:
            if (name, str(seed)) not in done():
                append(row := measure(name, seed, flags))
                print(
                    f"{name:<24} seed {seed}  AUC {row['auc']}  accuracy {row['accuracy']}  {row['seconds']} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
