"""Measure configurations by cross-validation over train and val; test is never read.

    python -m results.experiments [NAME ...] [--seeds 0 1] [--weights=FILE, or another flag for every run, with its "="]
    python -m results.experiments --also=HOSPITAL [NAME ...]    train at one hospital, predict the other, both ways
    python -m results.experiments --table

HOSPITAL is a folder or table of images as crossval.py takes it. Each row of results/experiments.csv, or with --also of
results/travel.csv, is one configuration at one seed; rows that are there already are not run again.
"""

import argparse
import time

from results import log

HOME, TRAVEL = "experiments.csv", "travel.csv"

# What every run is given (at home, the defaults of common/settings.py when the comparison was made), and what each
# configuration changes: a later flag wins. Travel had two more at commit cf93b76b69 alone, which the table shows.
BASE = {
    HOME: "--no-test --lr 3e-4 --wd 1e-2 --epochs 20 --batch-size 32 --warmup 0.2 --stages 3 --mixup 0.4 --ema 0.98",
    TRAVEL: "--no-test --groups hospitals --size 64 --epochs 12 --zoom 0.5",
}
CONFIGURATIONS = {
    HOME: {
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
    },
    TRAVEL: {
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
    },
}


def measure(table: str, name: str, seed: int, flags: list[str]) -> dict:
    """Run one configuration. Returns: its row."""
    what = [*BASE[table].split(), *flags, *CONFIGURATIONS[table][name].split()]
    words, began = ["crossval.py", "--seed", str(seed), *what], time.perf_counter()
    run = log.run(words, f"runs/{table.removesuffix('.csv')}/{name.replace(' ', '_')}_{seed}")
    row = {"name": name, "seed": seed, "commit": run["provenance"]["commit"][:10], "command": log.command(words)}
    row["seconds"] = f"{time.perf_counter() - began:.0f}"
    if table == TRAVEL:
        back, there = (f"{fold['auc']:.4f}" for fold in run["folds"])  # the first fold holds out --data
        return row | {"precision": run["provenance"]["precision"], "there": there, "back": back}
    scores = run["splits"]["out_of_fold"]
    return row | log.with_limits("auc", scores, "auc") | log.with_limits("accuracy", scores, "accuracy")


def values(rows: list[dict], column: str) -> list[float]:
    return [float(row[column]) for row in rows]


def home_line(rows: list[dict], base: list[dict]) -> tuple[float, list[str]]:
    """The gain of a configuration over the base on the seeds that both have, which means on the same folds; and its
    cells: scores over seeds, of one seed with their intervals, and the gain between them."""
    base_auc = dict(zip(values(base, "seed"), values(base, "auc")))
    gains = [auc - base_auc[seed] for seed, auc in zip(values(rows, "seed"), values(rows, "auc")) if seed in base_auc]
    auc, accuracy = (
        log.spread(values(rows, name)) if len(rows) > 1 else log.cell(rows[0], name) for name in ("auc", "accuracy")
    )
    return sum(gains) / len(gains), [auc, log.spread(gains, "+.3f") if rows != base else "", accuracy]


def travel_line(rows: list[dict], base: list[dict]) -> tuple[float, list[str]]:
    """The mean AUC of a configuration over both ways; and its cells: each way, and the mean."""
    there, back = values(rows, "there"), values(rows, "back")
    both = [(a + b) / 2 for a, b in zip(there, back)]
    return sum(both) / len(both), [log.spread(aucs) for aucs in (there, back, both)]


def markdown_table(table: str) -> str:
    """All configurations, the best first."""
    line, header = {
        HOME: (home_line, "AUC | minus base | accuracy"),
        TRAVEL: (travel_line, "AUC elsewhere | AUC the way back | mean of both"),
    }[table]
    by_name: dict[str, list[dict]] = {}
    for row in log.read(table):
        by_name.setdefault(row["name"], []).append(row)
    lines = []
    for name, rows in by_name.items():
        merit, cells = line(rows, by_name["base"])
        lines.append((merit, [name, str(len(rows)), *cells]))
    lines.sort(key=lambda pair: pair[0], reverse=True)
    return log.markdown(f"configuration | seeds | {header}", [cells for _, cells in lines])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="configurations to run (default: all)")
    parser.add_argument("--also", metavar="HOSPITAL", help="images of another hospital")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, and run nothing")
    args, flags = parser.parse_known_args()
    if args.table:
        print(markdown_table(HOME), markdown_table(TRAVEL), sep="\n\n")
        return
    table, also = (TRAVEL, ["--also", args.also]) if args.also else (HOME, [])
    if unknown := [name for name in args.names if name not in CONFIGURATIONS[table]]:
        parser.error(f"no such configuration: {unknown[0]}; known are {', '.join(CONFIGURATIONS[table])}")
    done = {(row["name"], row["seed"]) for row in log.read(table)}
    for seed in args.seeds:
        for name in args.names or CONFIGURATIONS[table]:
            if (name, str(seed)) not in done:
                log.append(table, row := measure(table, name, seed, [*also, *flags]))
                print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
