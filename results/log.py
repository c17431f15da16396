"""The log of measurements: rows of this folder's CSV files, and tables of them in Markdown."""

import csv
import json
import subprocess
import sys
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


def run(words: list[str], out: str, made: str = "metrics.json") -> dict:
    """Run a script with its flags. Returns: what it wrote in the JSON file `made`."""
    subprocess.run([sys.executable, *words, "--out", out], check=True, stdout=subprocess.DEVNULL)
    return json.loads(Path(out, made).read_text())


def command(words: list[str]) -> str:
    return "python " + " ".join(words)


def with_limits(column: str, scores: dict, metric: str) -> dict:
    """A metric and its interval as three columns of a row, which `cell` shows. scores: {"auc", "auc_ci95", …}."""
    values = scores[metric], *scores[f"{metric}_ci95"]
    return {f"{column}{end}": f"{value:.4f}" for end, value in zip(("", "_low", "_high"), values)}


def value_and_limits(row: dict, column: str) -> tuple[float, ...]:
    """(value, low, high) out of the columns of `with_limits`."""
    return tuple(float(row[column + end]) for end in ("", "_low", "_high"))


def cell(row: dict, column: str) -> str:
    """A value with its interval."""
    value, *limits = value_and_limits(row, column)
    return tables.with_limits(value, limits)


def spread(values: list[float], form: str = ".3f") -> str:
    """Mean ± standard deviation over seeds."""
    return tables.plus_minus(*intervals.mean_std(values), form)


def markdown(header: str, rows: list[list[str]]) -> str:
    """A Markdown table; header: the names of the columns, with " | " between."""
    lines = [f"| {header} |", "|---" * len(header.split(" | ")) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
