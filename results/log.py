"""What the programs in results/ share: CSV files, runs of scripts, and tables in Markdown."""

import csv
import json
import subprocess
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from common import files, intervals
from common.errors import UserError
from common.run import flags
from common.show import tables

FOLDER = Path(__file__).parent
MODELS = FOLDER.parent / "models"


def parser(docstring: str | None) -> flags.Parser:
    """Return the parser of a program. Its --help shows the docstring as written."""
    parser = flags.Parser(docstring)
    parser.formatter_class = RawDescriptionHelpFormatter
    return parser


def read(name: str) -> list[dict]:
    """Return the rows of a CSV file in results/, as text."""
    with open(FOLDER / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(words: list[str], out: str, made: str = "metrics.json") -> dict:
    """Run a script with --out. Returns: the JSON file `made` in `out`. If the script fails, exit with its status."""
    try:
        subprocess.run([sys.executable, *words, "--out", out], check=True, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode if error.returncode > 0 else str(error))  # the script printed why, unless killed
    return json.loads(Path(out, made).read_text(encoding="utf-8"))


def remeasure(args, name: str, column: str, measure: Callable[[list[str]], list[dict]]) -> None:
    """Write a CSV file in results/, sorted by file: the rows of `measure` for --files, and the kept rows of others.

    Args: args: with `files`, from `add_files`; column: has the name of the file; measure: takes the names of files.
    """
    kept = [row for row in read(name) if row[column] in set(shipped()) - set(args.files)]
    files.write_csv(FOLDER / name, sorted([*kept, *measure(args.files)], key=lambda row: row[column]))


def shipped() -> list[str]:
    """Return the names of the shipped .onnx files."""
    return sorted(file.name for file in MODELS.glob("*.onnx"))


def add_files(parser: flags.Parser) -> None:
    """Add the flag --files, the shipped files to measure."""
    parser.add_argument("--files", nargs="+", choices=shipped(), default=shipped(), help="to measure (default: all)")


def columns(scores: dict, **metrics: str) -> dict:
    """Return metrics as columns of a row: COLUMN, COLUMN_low and COLUMN_high for COLUMN="metric"."""
    row: dict[str, str] = {}
    for column, metric in metrics.items():
        value, low, high = (f"{number:.4f}" for number in limits(scores, metric))
        row |= {column: value, f"{column}_low": low, f"{column}_high": high}
    return row


def limits(scores: dict, metric: str) -> tuple[float, ...]:
    """Return (value, low, high) of a metric, from {"auc", "auc_ci95"} of a JSON file or from a row of `columns`."""
    value, interval = float(scores[metric]), scores.get(f"{metric}_ci95")
    return value, *map(float, interval or [scores[f"{metric}_low"], scores[f"{metric}_high"]])


def cell(scores: dict, metric: str) -> str:
    """Return a metric with its interval as text. scores: as for `limits`."""
    value, *interval = limits(scores, metric)
    return tables.with_limits(value, interval)


def spread(values: list[float], form: str = ".3f") -> str:
    """Return mean ± standard deviation over seeds as text."""
    return tables.plus_minus(*intervals.mean_std(values), form)


def markdown(header: str, rows: Iterable[list[str]]) -> str:
    """Return a Markdown table. header: names of the columns, separated by " | "."""
    lines = [f"| {header} |", "|---" * len(header.split(" | ")) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table of images, and replace only an earlier table with the same columns. Raises: UserError."""
    if path.exists() and path.read_text(encoding="utf-8", errors="replace").split("\n")[0] != ",".join(table.columns):
        raise UserError(f"{path}: exists, and is no table of this program. Choose another name.")
    with files.replacing(path) as beside:
        table.to_csv(beside, index=False)
