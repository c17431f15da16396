"""Run a script with other flags at several seeds, log each run, and print the log as a table.

    python -m results.measure experiments                                    prints the log, in Markdown
    python -m results.measure experiments "lr 1e-4" --seeds 0 1 --lr 1e-4    first runs what the log lacks

The logs are CSV files in results/. experiments has runs of crossval.py on train and val. travel has runs of
crossval.py that train at one hospital and score the other, both ways. seeds has runs of train.py, and seeds_scratch
has runs of train.py from random weights. Runs that are worse than the base are logged, too. A configuration is a name
and added flags. The command of the first row, `base`, gets the added flags; the last flag wins. Runs with one thread
run in parallel.
"""

import csv
import re
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean

from common.metrics import NAMES
from common.parallel import cpu_count
from common.run import flags
from results import log

SEEDS = (
    "val: accuracy | AUC | test: accuracy | AUC | clean test: accuracy | AUC",
    ("val_accuracy", "val_auc", "test_accuracy", "test_auc", "clean_test_accuracy", "clean_test_auc"),
    "val_auc",
)
LOGS = {  # header, columns, and the column that ranks; `values` computes "gain" and "both"
    "experiments": ("AUC | minus base | accuracy", ("auc", "gain", "accuracy"), "gain"),
    "travel": ("AUC at BrEaST | AUC at BreastMNIST | mean of both", ("there", "back", "both"), "both"),
    "seeds": SEEDS,
    "seeds_scratch": SEEDS,
}


# {flag of version 1, which made the first rows: flag of this version}
RENAMED = {"--also breast/images.csv": "--data breastmnist breast", "--groups hospitals": "--groups hospital"}


def at_seed(command: str, seed: int | str) -> str:
    """Return a command with the flags of this version, at another seed."""
    for before, now in RENAMED.items():
        command = command.replace(before, now)
    return re.sub(r"--seed \d+", f"--seed {seed}", command)


def configurations(name: str) -> dict[str, list[dict]]:
    """Return {configuration: its rows}, by name, or by the command at "--seed N" in a log without names."""
    found: dict[str, list[dict]] = {}
    for row in log.read(f"{name}.csv"):
        found.setdefault(row.get("name") or at_seed(row["command"], "N"), []).append(row)
    return found


def measure(command: str, seed: int, name: str, folder: str) -> dict:
    """Run a command at a seed. Returns: a row with all columns that a log may keep."""
    command, began = at_seed(command, seed), time.perf_counter()
    run = log.run(shlex.split(command)[1:], f"{folder}/{name.replace(' ', '_')}_{seed}")
    made, splits = run["provenance"], run["splits"]
    row = {"name": name, "seed": seed, "commit": made["commit"][:10], "command": command}
    row |= {"precision": made["precision"], "weights_md5": made["weights_md5"], "best_epoch": run.get("best_epoch")}
    row |= {f"{split}_{metric}": f"{scores[metric]:.6f}" for split, scores in splits.items() for metric in NAMES}
    if "out_of_fold" in splits:
        row |= log.columns(splits["out_of_fold"], auc="auc", accuracy="accuracy")
        folds = {fold["hospital"]: f"{fold['auc']:.4f}" for fold in run["folds"]}
        row |= {"there": folds.get("breast", ""), "back": folds.get("breastmnist", "")}  # of the log travel
    return row | {"seconds": f"{time.perf_counter() - began:.0f}"}


def values(rows: list[dict], base: list[dict], column: str) -> list[float]:
    """Return a column of a configuration, one value per seed.

    "both" is the mean of the two ways. "gain" is the AUC minus the AUC of the base, at the seeds (so the folds) of
    both.
    """
    if column == "both":
        return [(float(row["there"]) + float(row["back"])) / 2 for row in rows]
    if column == "gain":
        base_auc = {row["seed"]: float(row["auc"]) for row in base}
        return [float(row["auc"]) - base_auc[row["seed"]] for row in rows if row["seed"] in base_auc]
    return [float(row[column]) for row in rows]


def cell(rows: list[dict], base: list[dict], column: str) -> str:
    """Return mean ± standard deviation over seeds; for one seed, the value, with its interval if the log has one."""
    if column == "gain":
        return "" if rows == base else log.spread(values(rows, base, column), "+.3f")
    if len(rows) == 1 and f"{column}_low" in rows[0]:
        return log.cell(rows[0], column)
    return log.spread(values(rows, base, column))


def table(name: str) -> str:
    """Return all configurations of a log in Markdown, the best first."""
    header, columns, ranking = LOGS[name]
    found = configurations(name)
    base = next(iter(found.values()))
    ranked = []
    for called, rows in found.items():
        mean = fmean(values(rows, base, ranking) or [-1])  # last, without a seed of the base
        ranked.append((mean, [called, str(len(rows)), *(cell(rows, base, column) for column in columns)]))
    ranked.sort(key=lambda entry: entry[0], reverse=True)
    return log.markdown(f"configuration | seeds | {header}", (cells for _, cells in ranked))


def main():
    parser = log.parser(__doc__)
    parser.add_argument("log", choices=LOGS)
    parser.add_argument("name", nargs="?", default="base", help="of a configuration; its flags follow")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args, added = parser.parse_known_args()
    rows = log.read(f"{args.log}.csv")
    command = " ".join([rows[0]["command"], *map(shlex.quote, added)])
    for row in rows:
        if row.get("name") == args.name and at_seed(row["command"], "N") != at_seed(command, "N"):
            parser.error(f"{args.name} is the name of {row['command']}; give the same flags, or another name")
    stored = {at_seed(row["command"], row["seed"]) for row in rows}
    missing = [seed for seed in args.seeds if at_seed(command, seed) not in stored]
    at_once = cpu_count() if re.search("--threads[ =]1( |$)", command) else 1
    with ThreadPoolExecutor(at_once) as pool:
        for row in pool.map(lambda seed: measure(command, seed, args.name, f"runs/{args.log}"), missing):
            with open(log.FOLDER / f"{args.log}.csv", "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, list(rows[0]), extrasaction="ignore", lineterminator="\n").writerow(row)
    print(table(args.log))


if __name__ == "__main__":
    flags.run(main)
