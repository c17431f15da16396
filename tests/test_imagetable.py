"""Tables and folders of images: how forgiving they are in form, what they refuse, and what they say."""

import codecs
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import refusal
from PIL import Image

from common.imagetable import list_images
from common.tablefile import COLUMNS

ACCENT = "é.png"


def put(folder: Path, *names: str) -> Path:
    """Write image files. Returns: their folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 8)).save(folder / name, "PNG")
    return folder


@pytest.fixture
def scans(tmp_path) -> Path:
    """A folder with a.png, b.png, c.png and deep/d.png, and z.png beside the folder."""
    put(tmp_path, "z.png")
    return put(tmp_path / "scans", "a.png", "b.png", "c.png", "deep/d.png")


def write(folder: Path, text: str | bytes, name: str = "images.csv") -> Path:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def listed(folder: Path, text: str | bytes, name: str = "images.csv"):
    return list_images(write(folder, text, name))


def columns(found, *names: str) -> list[tuple]:
    return list(found.table[list(names)].itertuples(index=False, name=None))


def test_a_table_has_all_columns_with_their_types_and_its_own_as_text(scans):
    found = listed(scans, "image,label,Device ,age\na.png,malignant,GE,51\nb.png,normal,NA,\n")
    assert list(found.table.columns) == [*COLUMNS, "device", "age", "class"]
    assert columns(found, "image", "label", "device", "age", "class") == [
        ("a.png", 1, "GE", "51", "malignant"),
        ("b.png", 0, "", "", "normal"),
    ]
    assert (found.table[["split", "hospital", "patient"]] == "").all(axis=None)
    assert found.table[["x", "y", "width", "height"]].isna().all(axis=None)
    assert found.folder == scans and found.notes == []


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


@pytest.mark.parametrize(
    "label, expected", [("1", 1), ("0", 0), ("1.0", 1), ("0.0", 0), ("MALIGNANT", 1), ("Normal", 0)]
)
def test_labels(scans, label, expected):
    assert listed(scans, f"image,label\na.png,{label}\n").table["label"].tolist() == [expected]
    assert listed(scans, f"image;label\na.png;{label.replace('.', ',')}\n").table["label"].tolist() == [expected]


def test_numeric_labels_say_what_1_means(scans):
    (note,) = listed(scans, "image,label\na.png,1\nb.png,1\nc.png,0\n").notes
    assert note.startswith("label 1 means malignant: 2 of 3 images (67 %). If 1 means benign")


@pytest.mark.parametrize(
    "split, expected", [("Train", "train"), ("valid", "val"), ("VALIDATION", "val"), ("test", "test")]
)
def test_splits(scans, split, expected):
    assert listed(scans, f"image,label,Split\na.png,1,{split}\n").table["split"].tolist() == [expected]


@pytest.mark.parametrize("word", ["", "nan", "NaN", "NA", "N/A", "None", "null", "-", "?", "unknown"])
def test_unknown_cells(scans, word):
    header, row = "image,label,patient,split,hospital,x,y,width,height,device", f"a.png,1{f',{word}' * 8}"
    found = listed(scans, f"{header}\n{row}\n")
    assert columns(found, "patient", "split", "hospital", "device") == [("",) * 4]
    assert found.table[["x", "y", "width", "height"]].isna().all(axis=None)


# paths

PATHS = {
    "./a.png": "a.png",
    "deep//d.png": "deep/d.png",
    "deep\\d.png": "deep/d.png",
    "..\\scans\\a.png": "a.png",
    "../z.png": "../z.png",
    "{folder}/a.png": "a.png",
    "{folder}/../z.png": "{above}/z.png",
    "/moved/away/deep/d.png": "deep/d.png",
    "C:\\moved\\away\\deep\\d.png": "deep/d.png",
    "\\\\server\\scans\\a.png": "a.png",
}


@pytest.mark.parametrize("cell", PATHS)
def test_paths(scans, cell):
    places = {"folder": scans.as_posix(), "above": scans.parent.as_posix()}
    found = listed(scans, f"image,label\n{cell.format(**places)},malignant\n")
    assert found.table["image"].tolist() == [PATHS[cell].format(**places)]
    assert (found.folder / found.table["image"][0]).is_file()
    moved = [f"1 absolute paths no longer exist. Their files are found in {scans}"]
    assert found.notes == (moved if "moved" in cell or "server" in cell else [])


def test_a_path_that_moved_is_found_by_its_longest_end(scans):
    put(scans, "d.png")
    assert listed(scans, "image,label\n/old/deep/d.png,malignant\n").table["image"].tolist() == ["deep/d.png"]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_accents_composed_and_decomposed(scans, on_disk, in_table):
    own = unicodedata.normalize(on_disk, f"Zoë/{ACCENT}")
    put(scans, own)
    found = listed(scans, unicodedata.normalize(in_table, f"image,label\nZoë/{ACCENT},malignant\n"))
    assert (scans / found.table["image"][0]).is_file()
    assert found.table["image"][0] in (own, unicodedata.normalize("NFC", own))  # macOS takes both


def test_a_relative_table_and_a_link(scans, monkeypatch):
    (scans / "link.png").symlink_to(scans.parent / "z.png")
    write(scans, "image,label\nlink.png,malignant\na.png,benign\n")
    monkeypatch.chdir(scans)
    found = list_images(Path("images.csv"))
    assert found.folder == Path(".") and found.table["image"].tolist() == ["link.png", "a.png"]


def test_an_absolute_path_through_a_linked_folder_lies_inside(scans):
    (scans.parent / "other").symlink_to(scans)
    text = f"image,label\n{scans.parent}/other/a.png,malignant\n"
    assert listed(scans, text).table["image"].tolist() == ["a.png"]


# patients, splits and other columns


@pytest.mark.parametrize("name", ["patient_id", "PatientID", "patient id", "Case", "case-id", "subject", "Subject_ID"])
def test_other_names_of_patients_are_taken_and_said(scans, name):
    found = listed(scans, f"image,label,{name}\na.png,malignant,7\nb.png,benign,\n")
    assert columns(found, "patient") == [("7",), ("",)]
    assert found.notes == [f"column '{name.casefold()}' is taken as the patient"]


def test_two_possible_columns_of_patients_are_not_used(scans):
    found = listed(scans, "image,label,case,subject\na.png,malignant,7,8\n")
    assert columns(found, "patient", "case", "subject") == [("", "7", "8")]
    assert [note.split(".")[0] for note in found.notes] == [
        f"column '{name}' is not used" for name in ("case", "subject")
    ]


@pytest.mark.parametrize(
    "name, target",
    [("case", "patient"), ("exam_no", "patient"), ("StudyUID", "patient"), ("person", "patient")]
    + [(name, "split") for name in ("set", "Subset", "fold", "fold1", "partition", "group", "phase", "is_train")],
)
def test_columns_that_look_like_patients_or_splits_are_named(scans, name, target):
    found = listed(scans, f"image,label,patient,{name}\na.png,malignant,p1,1\n")
    (note,) = found.notes
    assert f"'{name.casefold()}' is not used" in note and note.endswith(f"rename it to '{target}'")
    assert found.table[name.casefold()].tolist() == ["1"]


def test_a_column_of_split_names_is_named_and_others_are_not(scans):
    found = listed(scans, "image,label,usage,dataset,age\na.png,malignant,Train,X,50\nb.png,benign,test,X,\n")
    assert len(found.notes) == 1 and "'usage' is not used" in found.notes[0]


def test_patients_as_pandas_writes_numbers(scans):
    found = listed(scans, "image,label,patient\na.png,malignant,7.0\nb.png,benign,7\nc.png,benign,\n")
    assert found.table["patient"].tolist() == ["7", "7", ""]


def test_a_patient_number_counts_once_in_each_hospital(scans):
    rows = ["a.png,1,1,train,A", "b.png,0,1,test,B", "c.png,0,,train,", "deep/d.png,0,,test,"]
    found = listed(scans, "\n".join(["image,label,patient,split,hospital", *rows]))
    assert found.table["hospital"].tolist() == ["A", "B", "", ""]


# boxes


def test_boxes(scans):
    found = listed(scans, "image;label;x;y;width;height\na.png;malignant;1,5;2;3;4,25\nb.png;benign;;;;\n")
    assert found.table.loc[0, ["x", "y", "width", "height"]].tolist() == [1.5, 2, 3, 4.25]
    assert found.table.loc[1, ["x", "y", "width", "height"]].isna().all()


def test_width_and_height_alone_are_no_box(scans):
    found = listed(scans, "image,label,width,height\na.png,malignant,640,480\n")
    assert found.table[["x", "y", "width", "height"]].isna().all(axis=None)
    assert found.notes == ["columns width, height are not used: a box needs the columns x, y, width and height"]


# rows that repeat an image


def test_a_repeated_row_counts_once_with_a_box_around_all(scans):
    text = (
        "image,label,patient,x,y,width,height\na.png,1,p,1,1,2,2\nb.png,0,q,,,,\na.png,1.0,p,5,0,2,2\n./b.png,0,q,,,,\n"
    )
    found = listed(scans, text)
    assert found.table["image"].tolist() == ["a.png", "b.png"]
    assert found.table.loc[0, ["x", "y", "width", "height"]].tolist() == [1, 0, 6, 3]
    assert found.table.loc[1, ["x", "y", "width", "height"]].isna().all()
    assert any("repeat an image count once" in note and note.endswith("rows 4, 5") for note in found.notes)


# what is refused

BOXES = "image,label,x,y,width,height\n"
SPLITS = "image,label,patient,split\n"
BAD_ROWS = {
    "image,label\na.png,1\n\nb.png,maligne": "row 4: unknown label 'maligne'. Use malignant, benign or normal.",
    "image,label\na.png,": "row 2: unknown label ''",
    "image,label\na.png,nan": "row 2: unknown label 'nan'",
    "image,label\na.png,2\nb.png,3\nc.png,4": "row 2: unknown label '2'. Use malignant, benign or normal. (2 more rows",
    "image,label\n,1": "row 2: there is no file ''",
    "image,label\na.png,1\nabsent.png,1": "row 3: there is no file 'absent.png' in ",
    f"image,label\n{'a' * 5000},1": "row 2: there is no file 'aaa",
    "image,label\ndeep,1": "row 2: there is no file 'deep'",
    "image,label\n/gone/absent.png,1": "row 2: there is no file '/gone/absent.png'",
    "image,label\na.png": "row 2: has 1 cells, but the header has 2",
    "image,label\na.png,1,more": "row 2: has 3 cells, but the header has 2",
    'image,label\n"a.png,1\n': "row 2: has 1 cells",
    "image,label\na.png,malignant\nb.png,1\na.png,normal": "row 4: 'a.png' is also in row 2, with another label",
    SPLITS + "a.png,1,p,train\na.png,1,q,train": "row 3: 'a.png' is also in row 2, with another patient",
    SPLITS + "a.png,1,p,train\ndeep/../a.png,1,p,val": "row 3: 'a.png' is also in row 2, with another split",
    SPLITS + "a.png,1,p,later": "row 2: unknown split 'later'. Use train, val or test.",
    SPLITS + "a.png,1,p,train\nb.png,0,q,\nc.png,1,r,-": "row 3: has no split, but other rows have one",
    SPLITS + "a.png,1,q,train\nb.png,0,p,val\nc.png,0,q,test": "row 4: patient 'q' is in train (row 2) and in test.",
    BOXES + "a.png,1,1,2,x,4": "row 2: width is 'x'. Use a number of pixels",
    BOXES + "a.png,1,1,2,inf,4": "row 2: width is 'inf'",
    BOXES + 'a.png,1,"1,5",2,3,4': "row 2: x is '1,5'",
    BOXES + "a.png,1,1,2,3,4\nb.png,1,1,2,3,": "row 3: the box is incomplete",
    BOXES + "a.png,1,1,2,0,4": "row 2: width and height of a box must be above 0",
}


@pytest.mark.parametrize("text", BAD_ROWS)
def test_bad_rows_are_named(scans, text):
    table = write(scans, text)
    message = refusal(list_images, table)
    assert message.startswith(f"{table}, {BAD_ROWS[text]}"), message


BAD_TABLES: dict[str | bytes, str] = {
    "": "has no rows",
    "image,label\n": "has no rows",
    "file,label\na.png,1\n": "has no column 'image'. Name the columns image and label. It has: file, label",
    "image\na.png\n": "has no column 'label'",
    "image,label,Label\na.png,1,1\n": "has several columns with the name 'label'",
    "image,label\né.png,1\n".encode("cp1252"): "is not UTF-8 text. Save the table as UTF-8",
    b"\xff\xfe\x00": "is not UTF-8 text",
    b"image,label\n\0,1\n": "is not UTF-8 text",
    b"PK\3\4 and so on": "is a spreadsheet. Save its sheet as CSV",
    b'image,label\n"' + b"x" * 200_000: "is no table",
}


@pytest.mark.parametrize("content", BAD_TABLES)
def test_what_is_no_table(scans, content):
    table = write(scans, content)
    assert refusal(list_images, table).startswith(f"{table}: {BAD_TABLES[content]}")


@pytest.mark.parametrize("name, reason", [("t.xlsx", "is a spreadsheet"), ("a.png", "is neither a folder nor a table")])
def test_other_files(scans, name, reason):
    assert reason in refusal(list_images, write(scans, b"PK\3\4", name))


@pytest.mark.parametrize("name", ["absent.csv", "absent", "a" * 5000])
def test_a_path_that_is_not_there(tmp_path, name):
    assert refusal(list_images, tmp_path / name) == f"{tmp_path / name}: there is no such file or folder"


def test_another_case_of_a_name_is_refused_with_the_name_that_may_be_meant(scans):
    if os.path.exists(scans / "A.PNG"):
        pytest.skip("this disk takes upper and lower case for equal")
    message = refusal(list_images, write(scans, "image,label\na.png,1\nDeep/D.PNG,1\n"))
    assert "row 3: there is no file 'Deep/D.PNG'" in message and "Do you mean 'deep/d.png'?" in message


def test_names_that_cannot_be_printed_are_refused(scans):
    put(scans, "new\nline.png")
    assert "'new\\nline.png'" in refusal(list_images, write(scans, 'image,label\n"new\nline.png",1\n'))


# a folder per class


@pytest.fixture
def folder(tmp_path) -> Path:
    return put(tmp_path / "set", "Malignant/m.png", "benign/left/b.jpg", "benign/b.png", "normal/n.tif")


def test_a_folder_per_class(folder):
    found = list_images(folder)
    assert columns(found, "image", "label", "class", "split") == [
        ("Malignant/m.png", 1, "malignant", ""),
        ("benign/b.png", 0, "benign", ""),
        ("benign/left/b.jpg", 0, "benign", ""),
        ("normal/n.tif", 0, "normal", ""),
    ]
    assert list(found.table.columns) == [*COLUMNS, "class"] and found.notes == [] and found.folder == folder


def test_what_is_left_out_is_counted(folder):
    put(folder, "benign/b_mask.png", "benign/._b.png", "__MACOSX/benign/._b.png", ".ipynb_checkpoints/b.png")
    (folder / "benign/notes.txt").touch()
    found = list_images(folder)
    assert len(found.table) == 4
    assert [note.split(" (")[0] for note in found.notes] == [
        "3 files left out: hidden",
        "1 file left out: masks",
        "1 file left out: no image suffix",
    ]


@pytest.mark.parametrize("names", ["train val test", "Train valid TEST", "train test", "train validation"])
def test_folders_of_splits(folder, names):
    for name in names.split():
        shutil.copytree(folder, folder.parent / "divided" / name)
    table = list_images(folder.parent / "divided").table
    expected = [{"valid": "val", "validation": "val"}.get(name.casefold(), name.casefold()) for name in names.split()]
    assert table["split"].value_counts().to_dict() == dict.fromkeys(expected, 4)
    assert table.groupby("split")["label"].sum().tolist() == [1] * len(expected)


@pytest.mark.parametrize("positive", ["benign", "BENIGN"])
def test_positive_names_the_folder(folder, positive):
    (folder / "normal").rename(folder / "cyst")
    table = list_images(folder, positive).table
    assert table.groupby("class")["label"].max().to_dict() == {"benign": 1, "cyst": 0, "malignant": 0}


def add_unknown(name):
    return lambda folder: put(folder, f"{name}/x.png")


BAD_FOLDERS: dict[str, Callable] = {
    "unknown class folder 'malignant_2'": add_unknown("malignant_2"),
    "unknown class folder 'masks'": add_unknown("masks"),
    "unknown class folder 'unknown'": add_unknown("unknown"),
    "say with --positive NAME which folder is positive. Its class folders are: benign, cancer, normal": (
        lambda folder: (folder / "Malignant").rename(folder / "cancer")
    ),
    "Or give a table, such as ": lambda folder: write(add_unknown("images")(folder), ""),
    "train are splits, but Malignant, benign, normal is none": add_unknown("train/benign"),
    "needs a folder of malignant": lambda folder: shutil.rmtree(folder / "Malignant"),
    "has no class folders": lambda folder: [path.rename(folder.parent / path.name) for path in folder.iterdir()],
    "loose.png lies in no class folder": lambda folder: put(folder, "loose.png"),
    "no image in normal": lambda folder: (folder / "normal/n.tif").rename(folder / "normal/n_mask.tif"),
    "rename the files with characters that cannot be printed": lambda folder: put(folder, "benign/new\nline.png"),
}


@pytest.mark.parametrize("reason", BAD_FOLDERS)
def test_bad_folders(folder, reason):
    BAD_FOLDERS[reason](folder)
    message = refusal(list_images, folder)
    assert message.startswith(f"{folder}: ") and reason in message, message


def test_a_positive_folder_that_is_not_there_and_an_empty_split(folder):
    assert "has no class folder 'cancer'" in refusal(list_images, folder, "cancer")
    shutil.copytree(folder, folder.parent / "divided/train")
    (folder.parent / "divided/test").mkdir()
    assert "no class folder in test" in refusal(list_images, folder.parent / "divided")


def test_positive_is_not_used_for_a_table(scans):
    table = write(scans, "image,label\na.png,malignant\n")
    assert list_images(table, "benign").notes == [f"--positive benign is not used: {table} has labels of its own"]
