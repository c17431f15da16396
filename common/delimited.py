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
SHORTENED = re.compile(r"\d+([.,]\d+)?E\+\d+", re.IGNORECASE)  # how a spreadsheet shortens a long number
LIKE = {  # {columns that may hold patients, hospitals or boxes, by their names: the way out}
    re.compile(r"patient|subject|case|exam|study|person|(?<![a-z])(pid|mrn|pat[ _]?(id|nr|no))(?![a-z])"): (
        "If the column names patients, rename it to 'patient'"
    ),
    re.compile(
        r"^(bbox.*|box.*|[xy][_ ]?(0|1|2|min|max|cent(er|re))|cent(er|re)[_ ]?[xy]|left|top|right|bottom|[wh]"
        r"|(x|y|width|height)\W.*)$"
    ): "A box needs the columns x, y, width and height, in pixels",
    re.compile(r"hospital|clinic(?!al)|klinik|institut|(?<![a-z])(site|cent(er|re))(?![a-z])"): (
        "If the column names hospitals, rename it to 'hospital'"
    ),
}
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


def as_cell(text: str) -> str:
    """Return a text as it comes back from a table: stripped, with composed accents."""
    return unicodedata.normalize("NFC", text).strip()


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


def describe_unused(names) -> dict[str, str]:
    """Return {column: note} for the columns that look like patients, hospitals or boxes. names: of unused columns."""
    found = {name: next((way_out for like, way_out in LIKE.items() if like.search(name)), None) for name in names}
    return {name: f"column '{name}' is not used. {way_out}" for name, way_out in found.items() if way_out}


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
    table = {number: {name: row[i] for i, name in names.items()} for number, row in rows.items()}
    if column := patient_column(names.values()):
        for number, cells in table.items():
            if SHORTENED.fullmatch(cells[column]):
                way_out = "Format the column as text in the spreadsheet, and save the table again."
                raise UserError(f"{path}, row {number}: patient '{cells[column]}' is a shortened number. {way_out}")
    return table
