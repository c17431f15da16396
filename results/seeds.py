"""Train one model for each of several seeds, and report mean ± standard deviation: never the best run.

    python -m results.seeds --seeds 0 1 2 3 4 5 6 7 8 9 [FLAGS OF train.py]

Writes results/seeds.csv, a row a seed, and prints the mean and standard deviation. Rows of the same command that are
there already are not run again. Every run has one CPU thread, and as many run at once as there are cores.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor

from common import intervals
from common.metrics import NAMES
from common.parallel import cpu_count
from results import log

TABLE = "seeds.csv"


def train(seed: int, words: list[str]) -> dict:
    """Run train.py at one seed. Returns: its row, every metric of every split."""
    run = log.run(words, f"runs/seeds/{seed}")
    row = {"seed": seed, "commit": run["provenance"]["commit"][:10], "command": log.command(words)}
    row |= {name: run["provenance"][name] for name in ("precision", "weights_md5")}
    row["best_epoch"] = run["best_epoch"]
    return row | {f"{split}_{m}": f"{scores[m]:.6f}" for split, scores in run["splits"].items() for m in NAMES}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    args, flags = parser.parse_known_args()
    runs = {seed: ["train.py", "--seed", str(seed), "--threads", "1", *flags] for seed in args.seeds}
    wanted, stored = {log.command(words) for words in runs.values()}, {row["command"] for row in log.read(TABLE)}
    missing = {seed: words for seed, words in runs.items() if log.command(words) not in stored}
    if missing and not stored <= wanted:
        parser.error(f"results/{TABLE} holds rows of other commands; move it away, or give the same flags")
    with ThreadPoolExecutor(cpu_count()) as pool:
        for row in pool.map(train, missing.keys(), missing.values()):
            log.append(TABLE, row)
    rows = [row for row in log.read(TABLE) if row["command"] in wanted]
    print(f"mean ± std over {len(rows)} seeds")
    for split in ("val", "test", "clean_test"):
        spread = {m: intervals.mean_std([float(row[f"{split}_{m}"]) for row in rows]) for m in NAMES}
        print(f"{split:<12}" + "".join(f"  {m} {mean:.4f} ± {std:.4f}" for m, (mean, std) in spread.items()))


if __name__ == "__main__":
    main()
