"""The log of measurements: rows of this folder's CSV files, and tables of them in Markdown."""

import csv
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


def spread(values: list[float], form: str = ".3f") -> str:
    """Mean ± standard deviation over seeds."""
    return tables.plus_minus(*intervals.mean_std(values), form)


def markdown(header: str, rows: list[list[str]]) -> str:
    """A Markdown table; header: the names of the columns, with " | " between."""
    lines = [f"| {header} |", "|---" * len(header.split(" | ")) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
