"""The log of measurements: rows of this folder's CSV files, and tables of them in Markdown."""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from common import intervals
from common.show import tables

FOLDER = Path(__file__).parent


def read(name: str) -> list[dict]:
    """The rows of a CSV file of this folder as text, none if it is not there yet."""
    path = FOLDER / name
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def append(name: str, row: dict) -> None:
    """Add a row to a CSV file of this folder; the columns of a new file are the row's keys."""
    rows = read(name)
    with open(FOLDER / name, "a", newline="") as file:
        writer = csv.DictWriter(file, list((rows or [row])[0]), lineterminator="\n")
        if not rows:
            writer.writeheader()
        writer.writerow(row)


def add_flags(parser: argparse.ArgumentParser, seeds: list[int]) -> None:
    """What a program that measures configurations is asked. seeds: the default."""
    parser.add_argument("names", nargs="*", help="configurations to run (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=seeds)
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")


def missing(name: str, seeds: list[int], configurations: Iterable[str]) -> list[tuple[str, int]]:
    """The (configuration, seed) that a CSV file of this folder has no row of."""
    done = {(row["name"], row["seed"]) for row in read(name)}
    return [(c, seed) for seed in seeds for c in configurations if (c, str(seed)) not in done]


def crossval(flags: list[str], out: Path) -> tuple[dict, str, str]:
    """Run crossval.py. Returns: (its metrics.json, the command, seconds)."""
    command, began = ["crossval.py", *flags], time.perf_counter()
    subprocess.run([sys.executable, *command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    return json.loads((out / "metrics.json").read_text()), "python " + " ".join(command), f"{seconds:.0f}"


def spread(values: list[float], form: str = ".3f") -> str:
    """Mean ± standard deviation over seeds."""
    return tables.plus_minus(*intervals.mean_std(values), form)


def markdown(header: str, rows: list[list[str]]) -> str:
    """A Markdown table; header: the names of the columns, with " | " between."""
    lines = [f"| {header} |", "|---" * len(header.split(" | ")) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
