"""The log of measurements: rows of this folder's CSV files, and tables of them in Markdown."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from common import intervals
from common.show import tables

FOLDER = Path(__file__).parent
MODELS = FOLDER.parent / "models"


def read(name: str) -> list[dict]:
    """The rows of a CSV file of this folder, as text."""
    with open(FOLDER / name, newline="") as file:
        return list(csv.DictReader(file))


def run(words: list[str], out: str, made: str = "metrics.json") -> dict:
    """Run a script with its flags. Returns: what it wrote in the JSON file `made`."""
    subprocess.run([sys.executable, *words, "--out", out], check=True, stdout=subprocess.DEVNULL)
    return json.loads(Path(out, made).read_text())


def with_limits(column: str, scores: dict, metric: str) -> dict:
    """A metric and its interval as three columns of a row, for `limits`. scores: {"auc", "auc_ci95", …}."""
    values = scores[metric], *scores[f"{metric}_ci95"]
    return {f"{column}{end}": f"{value:.4f}" for end, value in zip(("", "_low", "_high"), values)}


def limits(row: dict, column: str) -> tuple[float, ...]:
    """(value, low, high) out of the columns of `with_limits`."""
    return tuple(float(row[column + end]) for end in ("", "_low", "_high"))


def cell(row: dict, column: str) -> str:
    """A value with its interval."""
    value, *interval = limits(row, column)
    return tables.with_limits(value, interval)


def with_interval(scores: dict, metric: str) -> str:
    """The same, out of a JSON file's {"auc", "auc_ci95", …}."""
    return tables.with_limits(scores[metric], scores[f"{metric}_ci95"])


def spread(values: list[float], form: str = ".3f") -> str:
    """Mean ± standard deviation over seeds."""
    return tables.plus_minus(*intervals.mean_std(values), form)


def markdown(header: str, rows: list[list[str]]) -> str:
    """A Markdown table; header: the names of the columns, with " | " between."""
    lines = [f"| {header} |", "|---" * len(header.split(" | ")) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
