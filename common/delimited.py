"""Read delimited text tables of spreadsheets and programs. Needs only the standard library."""

import csv
import io
import re
import unicodedata
from pathlib import Path

from common.errors import UserError

SUFFIXES = (".csv", ".tsv", ".txt")
BOX = ["x", "y", "width", "height"]
UNKNOWN = {"", "nan", "na", "n/a", "#n/a", "<na>", "none", "null", "-", "?", "unknown"}
PATIENT_NAMES = {"patientid", "case", "caseid", "subject", "subjectid"}  # without spaces, underscores and hyphens
SPREADSHEET_SUFFIXES = (".xlsx", ".xls", ".ods")
SPREADSHEETS = (b"PK\3\4", b"\xd0\xcf\x11\xe0")  # the first bytes of .xlsx and .xls
DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


def decode(content: bytes, path: Path) -> str:
    """Decode UTF-8 or UTF-16, with or without a byte-order mark. Raises: UserError on any other encoding."""
    if content.startswith(SPREADSHEETS):
        raise UserError(f"{path}: is a spreadsheet. Save its sheet as CSV (in Excel: CSV UTF-8) and give the CSV file.")
    encoding = "utf-8-sig"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in content[:2]:
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path}: is not UTF-8 text. Save the table as UTF-8 (in Excel: CSV UTF-8).")
    return unicodedata.normalize("NFC", text)


def split_rows(text: str) -> tuple[dict[int, list[str]], str]:
    """Split a text into cells by the delimiter of its header, or by the delimiter in a first line such as `sep=;`.

    Returns: {row number as in a spreadsheet: stripped cells} without blank rows, delimiter.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    named = re.match(r"sep=(.)$", lines[0], re.IGNORECASE) if lines else None
    counts = {mark: len(next(csv.reader(lines[:1], delimiter=mark, skipinitialspace=True), [])) for mark in ",;\t"}
    delimiter = named[1] if named else max(counts, key=lambda mark: counts[mark])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = {number: [cell.strip() for cell in row] for number, row in enumerate(reader, 1) if any(map(str.strip, row))}
    if named:
        del rows[min(rows)]
    return rows, delimiter


def name_columns(header: list[str], rows: list[list[str]]) -> dict[int, str]:
    """Name the columns in lower case. A nameless index column, and empty columns without a name, are dropped.

    Returns: {position: name}.
    """
    nameless = [not name or re.fullmatch(r"unnamed: [\d.]+", name, re.IGNORECASE) for name in header]
    kept = [i for i in range(len(header)) if not nameless[i] or i > 0 and any(row[i] for row in rows)]
    return {i: header[i].casefold() or f"column {i + 1}" for i in kept}


def patient_column(names) -> str | None:
    """Return the column of patients: "patient", or else the only column with a usual name for patients."""
    found = [name for name in names if re.sub(r"[\s_-]", "", name) in PATIENT_NAMES]
    return "patient" if "patient" in names else found[0] if len(found) == 1 else None


def patient_name(cell: str) -> str:
    """Return the name of a patient. pandas writes the number 7 as 7.0 if the column has empty cells."""
    return re.sub(r"^(\d+)\.0$", r"\1", cell)


def read(path: Path) -> dict[int, dict[str, str]]:
    """Read a table: {row number as a spreadsheet shows it: {column: stripped cell}}. The header is row 1.

    Column names are in lower case. An index column without a name is dropped. All rows have the same columns.
    Raises: UserError if the file is not a table; OSError.
    """
    if path.suffix.lower() not in SUFFIXES + SPREADSHEET_SUFFIXES:
        raise UserError(f"{path}: is neither a folder nor a table. Give a folder, or a table in .csv, .tsv or .txt.")
    text = decode(path.read_bytes(), path)
    try:
        rows, delimiter = split_rows(text)
    except csv.Error as error:
        raise UserError(f"{path}: is not a table ({error}). Check its quotation marks.") from None
    if len(rows) < 2:
        raise UserError(
            f"{path}: has no rows. Write the column names into the first row, and one image into each other row."
        )
    header = rows.pop(min(rows))
    for number, row in rows.items():
        if len(row) < len(header) or any(row[len(header) :]):
            counts = f"{len(row)} cells, but the header has {len(header)}"
            raise UserError(f"{path}, row {number}: has {counts}. Check the delimiters and quotation marks.")
        if delimiter != ",":
            row[:] = [cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell for cell in row]
    names = name_columns(header, list(rows.values()))
    if twice := [name for name in names.values() if list(names.values()).count(name) > 1]:
        raise UserError(f"{path}: has several columns with the name '{twice[0]}'. Rename all but one.")
    return {number: {name: row[i] for i, name in names.items()} for number, row in rows.items()}
