"""Measure configurations by leaving one hospital out: train on BreastMNIST (train and val), predict another, and the
reverse. Neither BreastMNIST's test split nor any third hospital is read.

    python -m results.travel HOSPITAL [NAME ...] [--seeds 0 1] [--weights=FILE, or another flag for every run]
    python -m results.travel --table

HOSPITAL is a folder or table of images as --also takes it. Each row of results/travel.csv is one configuration at one
seed; rows that are there already are not run again.
"""

import argparse
from pathlib import Path

from results import log

TABLE = "travel.csv"
BASE = "--groups hospitals --no-test --size 64 --epochs 12 --zoom 0.5"  # a later flag wins
CONFIGURATIONS = {  # and, at commit cf93b76b69 alone, scanner augmentation and equalised histograms
    "base": "",
    "zoom 0.15": "--zoom 0.15",
    "28 pixels": "--size 28",
    "three stages": "--stages 3",
    "three stages, no mixup": "--stages 3 --mixup 0",
    "three stages, longer average": "--stages 3 --ema 0.995",
    "three stages, weight decay 0.1": "--stages 3 --wd 0.1",
    "three stages, 24 epochs": "--stages 3 --epochs 24",
    "three stages, zoom 0.7": "--stages 3 --zoom 0.7",
    "three stages, balanced classes": "--stages 3 --class-weights balanced",
    "three stages, first stage frozen": "--stages 3 --frozen-stages 1",
    "three stages, 128 pixels": "--stages 3 --size 128",
    "three stages, 128 pixels, 24 epochs": "--stages 3 --size 128 --epochs 24",
    "three stages, 128 pixels, 40 epochs": "--stages 3 --size 128 --epochs 40",
    "three stages, 128 pixels, 24 epochs, zoom 0.15": "--stages 3 --size 128 --epochs 24 --zoom 0.15",
    "128 pixels, zoom 0.15": "--size 128 --zoom 0.15",
    "128 pixels": "--size 128",
    "128 pixels, zoom 0.15, 24 epochs": "--size 128 --zoom 0.15 --epochs 24",
    "128 pixels, zoom 0.15, lr 1e-4": "--size 128 --zoom 0.15 --lr 1e-4",
    "128 pixels, zoom 0.15, two stages frozen": "--size 128 --zoom 0.15 --frozen-stages 2",
    "224 pixels, zoom 0.15": "--size 224 --zoom 0.15",
    "three stages, 224 pixels, 24 epochs": "--stages 3 --size 224 --epochs 24",
}


def measure(hospital: str, name: str, seed: int, flags: list[str]) -> dict:
    """Run one configuration. Returns: its row."""
    words = ["--also", hospital, "--seed", str(seed), *BASE.split(), *flags, *CONFIGURATIONS[name].split()]
    run, command, seconds = log.crossval(words, Path("runs/travel", f"{name.replace(' ', '_')}_{seed}"))
    back, there = (fold["auc"] for fold in run["folds"])  # the first fold holds out --data, the second --also
    made = {"commit": run["provenance"]["commit"][:10], "precision": run["provenance"]["precision"]}
    row = {"name": name, "seed": seed, **made, "command": command}
    return row | {"there": f"{there:.4f}", "back": f"{back:.4f}", "seconds": seconds}


def markdown_table(rows: list[dict]) -> str:
    """All configurations, by their mean over both ways."""
    lines = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        found = [row for row in rows if row["name"] == name]
        there, back = ([float(row[way]) for row in found] for way in ("there", "back"))
        both = [(a + b) / 2 for a, b in zip(there, back)]
        lines[sum(both) / len(both), name] = [name, str(len(found)), *map(log.spread, (there, back, both))]
    header = "configuration | seeds | AUC elsewhere | AUC the way back | mean of both"
    return log.markdown(header, [lines[key] for key in sorted(lines, reverse=True)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hospital", nargs="?", help="images of another hospital")
    log.add_flags(parser, [0, 1])
    args, flags = parser.parse_known_args()
    if args.table:
        print(markdown_table(log.read(TABLE)))
        return
    for name, seed in log.missing(TABLE, args.seeds, args.names or CONFIGURATIONS):
        log.append(TABLE, row := measure(args.hospital, name, seed, flags))
        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
