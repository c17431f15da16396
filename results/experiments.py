"""Measure configurations by twin-aware 5-fold cross-validation over train+val; test is never read.

    python -m results.experiments [NAME ...] [--seeds 0 1] [--weights=FILE, or another flag for every run, with its "="]
    python -m results.experiments --table

Each row of results/experiments.csv is one configuration at one seed; rows that are there already are not run again. The
table gives a configuration's gain over the base on the seeds that both have, which means on the same folds.
"""

import argparse
from pathlib import Path

from common.show import tables
from results import log

TABLE = "experiments.csv"
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
}


def measure(name: str, seed: int, flags: list[str]) -> dict:
    """Run one configuration. Returns: its row."""
    words = ["--no-test", "--seed", str(seed), *BASE.split(), *flags, *CONFIGURATIONS[name].split()]
    metrics, command, seconds = log.crossval(words, Path("runs/experiments", f"{name.replace(' ', '_')}_{seed}"))
    scores = metrics["splits"]["out_of_fold"]
    values = [name, seed, metrics["provenance"]["commit"][:10], command]
    for metric in ("auc", "accuracy"):
        values += [f"{x:.4f}" for x in (scores[metric], *scores[f"{metric}_ci95"])]
    return dict(zip(COLUMNS, [*values, seconds]))


def score_text(rows: list[dict], metric: str) -> str:
    """The mean over seeds and their standard deviation; of one seed, its value and interval."""
    if len(rows) > 1:
        return log.spread([float(row[metric]) for row in rows])
    value, *limits = (float(rows[0][metric + limit]) for limit in ("", "_low", "_high"))
    return tables.with_limits(value, limits)


def table_line(rows: list[dict], base: list[dict]) -> list[str]:
    """One line of the Markdown table, from the rows of a configuration and of the base."""
    base_auc = {row["seed"]: float(row["auc"]) for row in base}
    gains = [float(row["auc"]) - base_auc[row["seed"]] for row in rows if row["seed"] in base_auc]
    gain = log.spread(gains, "+.3f") if rows != base else ""
    return [rows[0]["name"], str(len(rows)), score_text(rows, "auc"), gain, score_text(rows, "accuracy")]


def markdown_table(rows: list[dict]) -> str:
    """All configurations, in order of their gain in AUC over the base."""
    by_name: dict[str, list[dict]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    lines = [table_line(found, by_name["base"]) for found in by_name.values()]
    lines.sort(key=lambda line: float((line[3] or "0").split()[0]), reverse=True)
    return log.markdown("configuration | seeds | AUC | minus base | accuracy", lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    log.add_flags(parser, [0])
    args, flags = parser.parse_known_args()
    if args.table:
        print(markdown_table(log.read(TABLE)))
        return
    for name, seed in log.missing(TABLE, args.seeds, args.names or CONFIGURATIONS):
        log.append(TABLE, row := measure(name, seed, flags))
        found = f"AUC {row['auc']}  accuracy {row['accuracy']}  {row['seconds']} s"
        print(f"{name:<24} seed {seed}  {found}", flush=True)


if __name__ == "__main__":
    main()
