"""Run a script with other flags at several seeds, log every run, also when it lost, and print the log as a table.

    python -m results.measure experiments                                    prints what is there
    python -m results.measure experiments "lr 1e-4" --seeds 0 1 --lr 1e-4    runs what is not there yet before

The logs: experiments (crossval.py over train and val), travel (crossval.py, which trains at one hospital and predicts
the other, both ways) and seeds (train.py). A configuration is a name, and the command of the first row, `base`, with
flags added, of which the last wins. Runs of one thread each go side by side.
"""

import argparse
import csv
import re
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean as mean

from common.metrics import NAMES
from common.parallel import cpu_count
from results import log


def at_seed(command: str, seed: int | str) -> str:
    return re.sub(r"--seed \d+", f"--seed {seed}", command)


def configurations(name: str) -> dict[str, list[dict]]:
    """{a configuration's name, or its command at "--seed N" in a log without names: its rows}."""
    found: dict[str, list[dict]] = {}
    for row in log.read(f"{name}.csv"):
        found.setdefault(row.get("name") or at_seed(row["command"], "N"), []).append(row)
    return found


def measure(command: str, seed: int, name: str, folder: str) -> dict:
    """Run a command. Returns: all columns that a log may keep of it."""
    command, began = at_seed(command, seed), time.perf_counter()
    run = log.run(shlex.split(command)[1:], f"{folder}/{name.replace(' ', '_')}_{seed}")
    made, splits = run["provenance"], run["splits"]
    row = {"name": name, "seed": seed, "commit": made["commit"][:10], "command": command}
    row |= {"precision": made["precision"], "weights_md5": made["weights_md5"], "best_epoch": run.get("best_epoch")}
    row |= {f"{split}_{metric}": f"{scores[metric]:.6f}" for split, scores in splits.items() for metric in NAMES}
    if "out_of_fold" in splits:
        row |= log.with_limits("auc", splits["out_of_fold"], "auc")
        row |= log.with_limits("accuracy", splits["out_of_fold"], "accuracy")
        row["back"], row["there"] = (f"{fold['auc']:.4f}" for fold in run["folds"][:2])  # the first holds out --data
    return row | {"seconds": f"{time.perf_counter() - began:.0f}"}


def values(rows: list[dict], column: str) -> list[float]:
    return [float(row[column]) for row in rows]


def experiment(rows: list[dict], base: list[dict]) -> tuple[float, list[str]]:
    """The gain of a configuration over the base on the seeds that both have, which means on the same folds; and its
    cells: scores over seeds, of one seed with their intervals, and the gain between them."""
    base_auc = {row["seed"]: float(row["auc"]) for row in base}
    gains = [float(row["auc"]) - base_auc[row["seed"]] for row in rows if row["seed"] in base_auc]
    gain = log.spread(gains, "+.3f") if rows != base else ""
    if len(rows) == 1:
        return gains[0], [log.cell(rows[0], "auc"), gain, log.cell(rows[0], "accuracy")]
    return mean(gains), [log.spread(values(rows, "auc")), gain, log.spread(values(rows, "accuracy"))]


def journey(rows: list[dict], base: list[dict]) -> tuple[float, list[str]]:
    """The mean AUC of a configuration over both ways; and its cells: each way, and the mean."""
    there, back = values(rows, "there"), values(rows, "back")
    both = [(a + b) / 2 for a, b in zip(there, back)]
    return mean(both), [log.spread(aucs) for aucs in (there, back, both)]


def study(rows: list[dict], base: list[dict]) -> tuple[float, list[str]]:
    """The mean AUC on val; and cells: accuracy and AUC on each split."""
    columns = [f"{split}_{metric}" for split in ("val", "test", "clean_test") for metric in ("accuracy", "auc")]
    return mean(values(rows, "val_auc")), [log.spread(values(rows, column)) for column in columns]


LOGS = {  # how each is shown
    "experiments": (experiment, "AUC | minus base | accuracy"),
    "travel": (journey, "AUC elsewhere | AUC the way back | mean of both"),
    "seeds": (study, "val: accuracy | AUC | test: accuracy | AUC | clean test: accuracy | AUC"),
}


def table(name: str) -> str:
    """All configurations of a log, the best first."""
    line, header = LOGS[name]
    found = configurations(name)
    base = next(iter(found.values()))
    ranked = [(*line(rows, base), called, str(len(rows))) for called, rows in found.items()]
    ranked.sort(key=lambda entry: entry[0], reverse=True)
    rows = [[called, seeds, *cells] for _, cells, called, seeds in ranked]
    return log.markdown(f"configuration | seeds | {header}", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.allow_abbrev = False  # --seed is the script's
    parser.add_argument("log", choices=LOGS)
    parser.add_argument("name", nargs="?", default="base", help="of a configuration; its flags follow")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args, flags = parser.parse_known_args()
    rows = log.read(f"{args.log}.csv")
    command = " ".join([rows[0]["command"], *map(shlex.quote, flags)])
    for row in rows:
        if row.get("name") == args.name and at_seed(row["command"], "N") != at_seed(command, "N"):
            parser.error(f"{args.name} is the name of {row['command']}; give the same flags, or another name")
    stored = {row["command"] for row in rows}
    missing = [seed for seed in args.seeds if at_seed(command, seed) not in stored]
    at_once = cpu_count() if re.search("--threads[ =]1( |$)", command) else 1
    with ThreadPoolExecutor(at_once) as pool:
        for row in pool.map(lambda seed: measure(command, seed, args.name, f"runs/{args.log}"), missing):
            with open(log.FOLDER / f"{args.log}.csv", "a", newline="") as file:
                csv.DictWriter(file, list(rows[0]), extrasaction="ignore", lineterminator="\n").writerow(row)
    print(table(args.log))


if __name__ == "__main__":
    main()
