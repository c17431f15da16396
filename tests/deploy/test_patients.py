"""Tables of images and patients for predict.py, and what it says of a patient."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import refusal
from PIL import Image

from common.deploy import patients
from common.deploy.patients import Known


@pytest.mark.parametrize(
    "text",
    [
        "image,patient\na.png,1\nb/c.png,\n",
        "\ufeffImage ; Patient \na.png;1\nb\\c.png;\n",
        "image\tpatient\na.png\t1\nb/c.png\t",
        "image,patient\na.png,1\nb/c.png,NA\n",
        "image,Patient ID\na.png,1\nb/c.png,unknown\n",
    ],
)
def test_a_table_names_images_beside_it(text, tmp_path):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert patients.read(tmp_path / "t.csv")[0] == {
        tmp_path / "a.png": Known("1"),
        tmp_path / "b" / "c.png": Known(""),
    }


def test_a_table_is_read_as_in_training(tmp_path):
    """Other encodings, decimal commas, hospitals and unknown boxes."""
    text = "image;hospital;patient;x;y;width;height\na.png;here;7;1,5;2,5;3;4\nb.png;there;7;NA;NA;NA;NA\n"
    (tmp_path / "t.csv").write_text(text, encoding="utf-16")
    assert patients.read(tmp_path / "t.csv")[0] == {
        tmp_path / "a.png": Known("7", (1.5, 2.5, 3, 4), "here"),
        tmp_path / "b.png": Known("7", None, "there"),
    }


def test_several_boxes_of_an_image_are_one_box_around_them(tmp_path):
    text = "image,x,y,width,height\na.png,10,20,30,40\na.png,5,50,10,20\na.png,,,,\n"
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert patients.read(tmp_path / "t.csv")[0] == {tmp_path / "a.png": Known("", (5, 20, 35, 50))}


def test_the_width_and_height_of_an_image_are_no_box(tmp_path):
    (tmp_path / "t.csv").write_text("image,width,height\na.png,800,600\n", encoding="utf-8")
    assert patients.read(tmp_path / "t.csv")[0] == {tmp_path / "a.png": Known()}


def test_columns_that_are_not_used_although_they_look_like_patients_or_boxes_are_named(tmp_path):
    text = "image,label,split,group,case,subject,xmin,site\na.png,1,test,3,7,8,5,Berlin\n"
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found, notes = patients.read(tmp_path / "t.csv")
    assert found == {tmp_path / "a.png": Known()}
    assert [note.split("'")[1] for note in notes] == ["case", "subject", "xmin", "site"]
    assert notes[2].endswith("A box needs the columns x, y, width and height, in pixels")


def test_what_is_no_table_is_refused(tmp_path):
    for content in (b"", b"file,patient\na.png,1\n", "image\ncafé.png".encode("cp1252")):
        (tmp_path / "t.csv").write_bytes(content)
        assert "t.csv" in refusal(patients.read, tmp_path / "t.csv")


@pytest.mark.parametrize(
    "text, number",
    [
        ("image,patient\na.png,1\n,2\n", 3),
        ('image,patient,note\n\na.png,1,"two\nlines"\n ,2,\n', 4),
    ],
    ids=["empty", "blank, after a blank line and a cell of two lines"],
)
def test_a_row_without_an_image_is_refused(text, number, tmp_path):
    (table := tmp_path / "t.csv").write_text(text, encoding="utf-8")
    message = f"{table}, row {number}: names no image. Name the image in the column 'image'."
    assert refusal(patients.read, table) == message


@pytest.mark.parametrize("other", ["2", ""])
def test_an_image_of_two_patients_is_refused(other, tmp_path):
    (table := tmp_path / "t.csv").write_text(f"image,patient\na.png,1\nb.png,1\na.png,{other}\n", encoding="utf-8")
    message = f"{table}, row 4: a.png has patient '1' in an earlier row, and '{other}' here. Remove the wrong row."
    assert refusal(patients.read, table) == message


def test_a_repeated_row_is_read_once(tmp_path):
    (table := tmp_path / "t.csv").write_text("image,patient\nb/a.png,1\nc.png,\nb\\a.png,1\nc.png,\n", encoding="utf-8")
    assert list(patients.read(table)[0].items()) == [
        (tmp_path / "b" / "a.png", Known("1")),
        (tmp_path / "c.png", Known("")),
    ]


def test_names_are_spelled_as_on_the_disk(tmp_path):
    """With decomposed accents, as on a Mac. A file that has moved is not searched for, as it could be another one."""
    (tmp_path / (name := unicodedata.normalize("NFD", "Müller.png"))).touch()
    (tmp_path / "b.png").touch()
    (tmp_path / "t.csv").write_text(f"image\n{name}\n/scans/b.png\nabsent.png\n", encoding="utf-8")
    named = [tmp_path / name, Path("/scans/b.png"), tmp_path / "absent.png"]
    assert list(patients.read(tmp_path / "t.csv")[0]) == named


def test_a_patient_gets_the_highest_probability_of_usual_images():
    rows = [("1", 0.2, False), ("1", 0.6, False), ("1", 0.9, True), ("2", 0.4, True)]
    answers = [
        {
            "patient": who,
            "hospital": "t.csv",
            "probability": p,
            "unlike_training": odd,
            "flagged": None if odd else p > 0.5,
            "call": f"{p}, {odd}",
            "image": "",
            "page": 1,
        }
        for who, p, odd in rows
    ]
    names = ("patient", "probability", "flagged", "images", "call")
    found = [tuple(one[name] for name in names) for one in patients.highest(answers)]
    assert found == [("1", 0.6, True, 3, "0.6, False"), ("2", 0.4, None, 1, "0.4, True")]


def test_patients_of_two_hospitals_are_two_patients():
    answers = [
        {"patient": "7", "hospital": name, "probability": p, "flagged": True, "call": "", "image": "", "page": 1}
        for name, p in (("here", 0.2), ("there", 0.6), ("here", 0.3))
    ]
    found = [(one["patient"], one["hospital"], one["images"], one["probability"]) for one in patients.highest(answers)]
    assert found == [("7", "here", 2, 0.3), ("7", "there", 1, 0.6)]


def test_predict_gives_a_row_for_each_patient(onnx_model, runs, tmp_path):
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "t.csv").write_text("image,patient\n0.png,A\n1.png,A\n2.png,B\n", encoding="utf-8")
    lines = [
        json.loads(line) for line in runs("predict.py", onnx_model.path, tmp_path / "t.csv", "--json")[0].splitlines()
    ]
    assert [(row["patient"], "images" in row) for row in lines] == [
        *[("A", False)] * 2,
        ("B", False),
        ("A", True),
        ("B", True),
    ]
    text = runs("predict.py", onnx_model.path, tmp_path / "t.csv")[0].splitlines()
    assert text[-3].split() == ["P(malignant)", "images", "patient"] and text[-2].endswith("2  A")
    (tmp_path / "bad.csv").write_text("file\n0.png\n", encoding="utf-8")
    error, _ = runs("predict.py", onnx_model.path, tmp_path / "bad.csv", status=2)[1].splitlines()
    assert "column 'image'" in error


@pytest.mark.parametrize("side, refused", [(300, True), (150, False)])
def test_boxes_in_per_cent_are_refused_as_in_training(tmp_path, side, refused):
    """Ten boxes in the first 100 pixels of large images are per cent; in small images they may be pixels."""
    lines = ["image,x,y,width,height", *(f"{i}.png,20,30,25,40" for i in range(10))]
    for i in range(10):
        Image.fromarray(np.full((side, side), i, np.uint8)).save(tmp_path / f"{i}.png")
    (table := tmp_path / "t.csv").write_text("\n".join(lines))
    if refused:
        assert "seem to be per cent" in refusal(patients.read, table)
    else:
        assert len(patients.read(table)[0]) == 10


def test_a_table_without_the_column_image_says_which_columns_it_has(tmp_path):
    (table := tmp_path / "t.csv").write_text("Bild,Diagnose\na.png,gutartig\n")
    assert "has no column 'image', which names the images. The table has: bild, diagnose" in refusal(
        patients.read, table
    )
