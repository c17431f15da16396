"""Folders with one folder per class: labels, splits, what is left out and what is refused."""

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import refusal
from test_imagetable import columns, put, write

from common.imagetable import list_images
from common.tablefile import COLUMNS


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
        "3 files skipped: hidden",
        "1 file skipped: masks",
        "1 file skipped: no image suffix",
    ]


def test_folders_in_all_class_folders_may_be_patients(tmp_path):
    names = ["malignant/p1/1.png", "malignant/p2/1.png", "benign/p3/1.png"]
    (note,) = list_images(put(tmp_path / "set", *names)).notes
    folders = "the names of the folders benign/p3, malignant/p1, malignant/p2 are not used, only their images"
    assert note == f"{folders}. If they are patients, give a table with the column patient"
    assert list_images(put(tmp_path / "deep", "malignant/x/1.png", "benign/x/1.png")).notes == []  # one each


def test_a_class_of_masks_alone_says_what_was_skipped(tmp_path):
    folder = put(tmp_path / "set", "malignant/1.png", "benign/breast_segmentation_1.png")
    message = refusal(list_images, folder)
    assert "no image in benign" in message and message.endswith(" 1 file skipped: masks (breast_segmentation_1.png).")


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


@pytest.mark.parametrize("positive", [None, "malignant"])
def test_a_folder_of_masks_beside_the_class_folders_is_no_class(folder, positive):
    found = list_images(put(folder, "masks/b.png", "benign/Masken/b.png"), positive)
    assert len(found.table) == 4 and found.notes == ["2 files skipped: masks (b.png, b.png)"]


def test_positive_is_found_with_composed_and_decomposed_accents(folder):
    (folder / "Malignant").rename(folder / unicodedata.normalize("NFD", "Bösartig"))
    table = list_images(folder, "bösartig").table
    assert table.groupby("class")["label"].max().to_dict() == {"benign": 0, "bösartig": 1, "normal": 0}


def add_unknown(name):
    return lambda folder: put(folder, f"{name}/x.png")


BAD_FOLDERS: dict[str, Callable] = {
    "unknown class folder 'malignant_2'": add_unknown("malignant_2"),
    "unknown class folder 'unknown'": add_unknown("unknown"),
    "name the positive folder with --positive NAME. Class folders there: benign, cancer, normal": (
        lambda folder: (folder / "Malignant").rename(folder / "cancer")
    ),
    ", or give a table, such as ": lambda folder: write(add_unknown("images")(folder), ""),
    "train are splits, but not Malignant, benign, normal": add_unknown("train/benign"),
    "holds one class only": lambda folder: shutil.rmtree(folder / "Malignant"),
    "has no class folders": lambda folder: [path.rename(folder.parent / path.name) for path in folder.iterdir()],
    "loose.png lies in no class folder": lambda folder: put(folder, "loose.png"),
    "no image in normal": lambda folder: (folder / "normal/n.tif").rename(folder / "normal/n_mask.tif"),
    "names have characters that cannot be printed. Rename these files": lambda folder: put(
        folder, "benign/new\nline.png"
    ),
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
