"""Text tables: encodings, delimiters, headers and blank rows, and what is no table."""

import codecs
import unicodedata
from pathlib import Path

import pytest
from conftest import refusal
from test_imagetable import columns, listed, put, write

from common.imagetable import list_images
from common.tablefile import COLUMNS


@pytest.fixture
def scans(tmp_path) -> Path:
    return put(tmp_path, "a.png", "b.png")


PLAIN = "image,label,patient\na.png,malignant,Zoë\nb.png,benign,p2\n"
FORMS = {
    "UTF-8": PLAIN.encode(),
    "byte-order mark": codecs.BOM_UTF8 + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16, little end first": codecs.BOM_UTF16_LE + PLAIN.encode("utf-16-le"),
    "UTF-16, big end first": codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
    "UTF-16 without mark": PLAIN.encode("utf-16-le"),
    "UTF-16 without mark, big end first": PLAIN.encode("utf-16-be"),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "Excel's sep=": "sep=;\n" + PLAIN.replace(",", ";"),
    "Windows's line ends": PLAIN.replace("\n", "\r\n"),
    "old line ends": PLAIN.replace("\n", "\r"),
    "blank rows": PLAIN.replace("\n", "\n\n") + ",,\n",
    "capitals and spaces": PLAIN.replace("image,label,patient", " Image , LABEL,Patient ").replace(
        "benign", " Benign "
    ),
    "decomposed accents": unicodedata.normalize("NFD", PLAIN),
    "spaces before quotation marks": PLAIN.replace(",malignant", ', "malignant"'),
    "quotation marks": PLAIN.replace("b.png", '"b.png"'),
    "an index": PLAIN.replace("image", ",image").replace("a.png", "0,a.png").replace("b.png", "1,b.png"),
    "pandas's index": PLAIN.replace("image", "Unnamed: 0,image")
    .replace("a.png", "0,a.png")
    .replace("b.png", "1,b.png"),
    "empty columns at the end": PLAIN.replace("patient\n", "patient,\n").replace("Zoë", "Zoë,").replace("p2", "p2,,"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["images.csv", "images.TSV", "images.txt"])
def test_forms_of_one_table(scans, form, name):
    found = listed(scans, FORMS[form], name)
    assert columns(found, "image", "label", "patient") == [("a.png", 1, "Zoë"), ("b.png", 0, "p2")]
    assert list(found.table.columns) == [*COLUMNS, "class"] and found.notes == []


BAD_TABLES: dict[str | bytes, str] = {
    "": "has no rows",
    "image,label\n": "has no rows",
    "file,label\na.png,1\n": "has no column 'image'. Name the columns image and label. The table has: file, label",
    "image\na.png\n": "has no column 'label'",
    "image,label,Label\na.png,1,1\n": "has several columns with the name 'label'",
    "image,label\né.png,1\n".encode("cp1252"): "is not UTF-8 text. Save the table as UTF-8",
    b"\xff\xfe\x00": "is not UTF-8 text",
    b"image,label\n\0,1\n": "is not UTF-8 text",
    b"PK\3\4 and so on": "is a spreadsheet. Save its sheet as CSV",
    b'image,label\n"' + b"x" * 200_000: "is not a table",
}


@pytest.mark.parametrize("content", BAD_TABLES)
def test_what_is_no_table(scans, content):
    table = write(scans, content)
    assert refusal(list_images, table).startswith(f"{table}: {BAD_TABLES[content]}")


@pytest.mark.parametrize("name, reason", [("t.xlsx", "is a spreadsheet"), ("a.png", "is neither a folder nor a table")])
def test_other_files(scans, name, reason):
    assert reason in refusal(list_images, write(scans, b"PK\3\4", name))
