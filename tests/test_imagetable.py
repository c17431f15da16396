"""Tables and folders of images: how forgiving they are in form, what they refuse, and what they say."""

import os
import unicodedata
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
    moved = [f"1 absolute paths no longer exist. The files were found in {scans} instead"]
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
    taken = f"column '{name.casefold()}' is used as the patient"
    assert found.notes == [taken, "the patient of 1 of 2 images is unknown"]


def test_two_possible_columns_of_patients_are_not_used(scans):
    found = listed(scans, "image,label,case,subject\na.png,malignant,7,8\n")
    assert columns(found, "patient", "case", "subject") == [("", "7", "8")]
    assert [note.split(".")[0] for note in found.notes] == [
        f"column '{name}' is not used" for name in ("case", "subject")
    ]


@pytest.mark.parametrize(
    "name, target",
    [("case", "patient"), ("exam_no", "patient"), ("StudyUID", "patient"), ("person", "patient"), ("PID", "patient")]
    + [(name, "hospital") for name in ("site", "Centre", "clinic_no", "hospital id", "institution")]
    + [(name, "split") for name in ("set", "Subset", "fold", "fold1", "partition", "group", "phase", "is_train")],
)
def test_columns_that_look_like_patients_or_splits_are_named(scans, name, target):
    found = listed(scans, f"image,label,patient,{name}\na.png,malignant,p1,1\n")
    note = found.notes[0]  # a second note says what "group" is renamed
    assert f"'{name.casefold()}' is not used" in note and note.endswith(f"rename it to '{target}'")
    assert found.table["own group" if name == "group" else name.casefold()].tolist() == ["1"]


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
    assert found.notes == ["columns width, height are not used, because a box needs the columns x, y, width and height"]


# rows that repeat an image


def test_a_repeated_row_counts_once_with_a_box_around_all(scans):
    text = (
        "image,label,patient,x,y,width,height\na.png,1,p,1,1,2,2\nb.png,0,q,,,,\na.png,1.0,p,5,0,2,2\n./b.png,0,q,,,,\n"
    )
    found = listed(scans, text)
    assert found.table["image"].tolist() == ["a.png", "b.png"]
    assert found.table.loc[0, ["x", "y", "width", "height"]].tolist() == [1, 0, 6, 3]
    assert found.table.loc[1, ["x", "y", "width", "height"]].isna().all()
    assert any(note.startswith("rows 4, 5 repeat an image. An image counts once") for note in found.notes)


# what is refused

BOXES = "image,label,x,y,width,height\n"
SPLITS = "image,label,patient,split\n"
BAD_ROWS = {
    "image,label\na.png,1\n\nb.png,maligne": "row 4: unknown label 'maligne'. Use malignant, benign or normal, or 1",
    "image,label\na.png,": "row 2: unknown label ''",
    "image,label\na.png,nan": "row 2: unknown label 'nan'",
    "image,label\na.png,2\nb.png,3\nc.png,4": (
        "row 2: unknown label '2'. Use malignant, benign or normal, or 1 and 0. (2 more rows"
    ),
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
    BOXES + "a.png,1,1,2,0,4": "row 2: the width or height of the box is not above 0",
}


@pytest.mark.parametrize("text", BAD_ROWS)
def test_bad_rows_are_named(scans, text):
    table = write(scans, text)
    message = refusal(list_images, table)
    assert message.startswith(f"{table}, {BAD_ROWS[text]}"), message


@pytest.mark.parametrize("name", ["absent.csv", "absent", "a" * 5000])
def test_a_path_that_is_not_there(tmp_path, name):
    assert (
        refusal(list_images, tmp_path / name) == f"{tmp_path / name}: there is no such file or folder. Check the path."
    )


def test_another_case_of_a_name_is_refused_with_the_name_that_may_be_meant(scans):
    if os.path.exists(scans / "A.PNG"):
        pytest.skip("this disk takes upper and lower case for equal")
    message = refusal(list_images, write(scans, "image,label\na.png,1\nDeep/D.PNG,1\n"))
    assert "row 3: there is no file 'Deep/D.PNG'" in message and "Write 'deep/d.png'" in message


def test_a_name_without_its_suffix_is_refused_with_the_name_that_may_be_meant(scans):
    message = refusal(list_images, write(scans, "image,label\na,1\n"))
    assert "there is no file 'a'" in message and message.endswith("Write 'a.png', with the suffix.")
    put(scans, "a.jpg")  # now two files may be meant
    assert refusal(list_images, write(scans, "image,label\na,1\n")).endswith("Correct the path.")


def test_a_patient_number_that_a_spreadsheet_has_shortened_is_refused(scans):
    for rows, cell in (("a.png,1,17\nb.png,0,2.02301E+11", "2.02301E+11"), ("a.png,1,17\nb.png,0,3E+08", "3E+08")):
        message = refusal(list_images, write(scans, f"image,label,Case\n{rows}\n"))
        assert f"row 3: patient '{cell}' is a shortened number. Format the column as text" in message


def test_names_that_cannot_be_printed_are_refused(scans):
    put(scans, "new\nline.png")
    assert "'new\\nline.png'" in refusal(list_images, write(scans, 'image,label\n"new\nline.png",1\n'))


def test_positive_is_not_used_for_a_table(scans):
    table = write(scans, "image,label\na.png,malignant\n")
    assert list_images(table, "benign").notes == ["--positive benign is not used, because this data set has labels"]


def test_columns_that_runs_use_are_renamed_and_said(scans):
    found = listed(scans, "image,label,group,_file,read\na.png,1,g,f,r\nb.png,0,g,f,r\n")
    assert found.table[["own group", "own _file", "read"]].to_numpy().tolist() == [["g", "f", "r"]] * 2
    assert not {"group", "_file"} & set(found.table) and sum("runs use this name" in note for note in found.notes) == 2


@pytest.mark.parametrize("name", ["x0", "x1", "XMax", "y_min", "x_center", "Centre Y", "bbox", "left", "w", "x [px]"])
def test_columns_that_look_like_boxes_are_named(scans, name):
    (note,) = listed(scans, f"image,label,patient,{name}\na.png,malignant,p1,1\n").notes
    assert note == f"column '{name.casefold()}' is not used. A box needs the columns x, y, width and height, in pixels"


@pytest.mark.parametrize("other", ["P010", "0p010"])
def test_patients_that_differ_in_case_or_leading_zeros_are_named(scans, other):
    (note,) = listed(scans, f"image,label,patient\na.png,malignant,p010\nb.png,benign,{other}\n").notes
    assert note.startswith(f"the patients {', '.join(sorted([other, 'p010']))} differ only in case or leading zeros")


def test_hospitals_that_differ_in_case_are_named(scans):
    (note,) = listed(scans, "image,label,hospital\na.png,malignant,Berlin\nb.png,benign,berlin\n").notes
    assert note == "the hospitals Berlin, berlin differ only in case or leading zeros, and count as different hospitals"
