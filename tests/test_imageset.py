"""Folders and tables of images: what is taken, how it is divided, and what is refused in one line."""

import shutil
from typing import Any

import numpy as np
import pytest
from common_fixtures import forget
from conftest import refusal
from PIL import Image

from common import data, files, imagefile, origin
from common.run.folders import IMAGES

SIZE = 28


def picture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A grey image of no other's kind."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def write(path, seed: int, **size) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, **size)).save(path)


def write_table(folder, rows: list[str], header: str = "image,label") -> str:
    folder.mkdir(exist_ok=True)
    (folder / "images.csv").write_text("\n".join([header, *rows]) + "\n")
    return str(folder / "images.csv")


@pytest.fixture(autouse=True)
def forget_all() -> None:
    forget()


@pytest.fixture
def folder(tmp_path):
    """Four malignant images and six others, at several depths, of several kinds and sizes."""
    for i in range(4):
        write(tmp_path / "set" / "malignant" / f"m{i}.png", i)
    for i in range(3):
        write(tmp_path / "set" / "benign" / "left" / f"b{i}.jpg", 10 + i, height=200, width=90)
        write(tmp_path / "set" / "normal" / f"n{i}.tif", 20 + i)
    return tmp_path / "set"


@pytest.fixture
def table(tmp_path):
    """A table of 48 images of 24 patients, half of them malignant, and its folder."""
    for i in range(48):
        write(tmp_path / "set" / "images" / f"{i}.png", i)
    rows = [f"images/{i}.png,{'malignant' if i % 4 < 2 else 'benign'},p{i // 2}" for i in range(48)]
    return write_table(tmp_path / "set", rows, "image,label,patient")


def everything(name, size: int = SIZE) -> data.Split:
    (split,) = data.load(data.find(str(name), None, size), "all")
    return split


def refused(name, *splits) -> str:
    return refusal(lambda: data.load(data.find(str(name), None, SIZE), *(splits or ["all"])))


def test_a_folder_s_images_are_prepared_as_medmnist_s(folder):
    split = everything(folder)
    assert split.images.shape == (10, SIZE, SIZE) and split.labels.tolist() == [0] * 3 + [1] * 4 + [0] * 3
    names = [row["image"] for row in split.rows]
    assert names == sorted(names) and names[0] == "benign/left/b0.jpg" and names[3] == "malignant/m0.png"
    for image, name in zip(split.images, names):
        (frame,) = imagefile.frames(folder / name)
        np.testing.assert_array_equal(image, imagefile.prepare(frame, SIZE))
    assert everything(folder, 64).images.shape == (10, 64, 64)


def test_malignant_may_lie_in_any_depth_and_case(tmp_path):
    places = {"another/malignant/old": 1, "one hospital/Malignant": 1, "one hospital/benign": 0}
    for place in places:
        write(tmp_path / place / "a.png", len(place))
    split = everything(tmp_path)
    found = {row["image"]: label for row, label in zip(split.rows, split.labels)}
    assert found == {f"{place}/a.png": label for place, label in places.items()}


def test_busi_as_it_is_downloaded(folder, capsys):
    for kind, name in (("malignant", "m0_mask.png"), ("benign", "b (1)_mask_1.png")):
        write(folder / kind / name, 99)
    assert len(everything(folder)) == 10
    assert "2 files named *_mask* are left out" in capsys.readouterr().err


def test_a_table_s_labels_patients_and_splits(tmp_path):
    words = ["malignant", "1", "Benign", " normal ", "0"]
    for i in range(5):
        write(tmp_path / f"{i}.png", i)
    splits = ["train", "train", "train", "train", "test"]
    rows = [f"{i}.png,{word},p{i},{split},more" for i, (word, split) in enumerate(zip(words, splits))]
    source = data.find(write_table(tmp_path, rows, "image,label,patient,split,device"), None, SIZE)
    train, test = data.load(source, "train", "test")
    assert train.labels.tolist() == [1, 1, 0, 0] and test.labels.tolist() == [0]
    assert train.patients == ["p0", "p1", "p2", "p3"]
    assert test.rows[0] == {"split": "test", "index": 0, "image": "4.png", "patient": "p4"}
    assert "val holds no images" in refused(source.name, "val")


def test_a_table_of_a_spreadsheet_and_a_repeated_row(tmp_path):
    write(tmp_path / "a.png", 0)
    (tmp_path / "images.csv").write_bytes("\ufeffimage,label\r\na.png,1\r\na.png,1\r\n".encode())
    assert everything(tmp_path / "images.csv").labels.tolist() == [1]


def test_drawn_splits_keep_patients_and_twins_together_and_are_the_seed_s(table, tmp_path):
    shutil.copy(tmp_path / "set/images/0.png", tmp_path / "set/images/9.png")  # patients 0 and 4 are one group now
    forget()

    def draw(seed: int) -> dict[str, str]:
        splits = data.load(data.find(table, None, SIZE, seed), *data.SPLITS)
        assert [len(split) for split in splits] == pytest.approx([34, 5, 9], abs=4)
        assert all(0 < split.labels.sum() < len(split) for split in splits)
        return {row["image"]: row["split"] for split in splits for row in split.rows}

    first, again, other = draw(0), draw(0), draw(1)
    assert first == again != other and len(first) == 48
    for i in range(24):
        assert first[f"images/{2 * i}.png"] == first[f"images/{2 * i + 1}.png"]
    assert first["images/0.png"] == first["images/9.png"]
    groups = data.find_groups(everything(table))
    assert groups[0] == groups[1] == groups[8] == groups[9] and len(set(groups)) == 23


def test_too_few_to_divide_but_not_to_evaluate(folder):
    assert "cannot be divided into train, val and test" in refused(folder, "train")
    assert len(everything(folder)) == 10


def test_the_fingerprint_is_of_names_contents_and_labels(table, tmp_path):
    first = data.find(table, None, SIZE).md5
    forget()
    assert data.find(table, None, SIZE).md5 == first
    write(tmp_path / "set/images/7.png", 700)
    forget()
    assert data.find(table, None, SIZE).md5 != first


def test_every_bad_file_is_named_and_nothing_is_read(folder, capsys):
    (folder / "malignant/m1.png").write_bytes(b"no image")
    write(folder / "benign/tiny.png", 5, height=4, width=4)
    pages = [Image.fromarray(picture(seed)) for seed in (1, 2)]
    pages[0].save(folder / "normal/n0.tif", save_all=True, append_images=pages[1:])
    message = refused(folder)
    err = capsys.readouterr().err
    assert "3 of 11 images cannot be used (named above)" in message
    assert "m1.png is no PNG" in err and "tiny.png is 4×4" in err and "n0.tif holds several pictures" in err


# bad folders and tables


def only_masks(folder):
    for path in folder.glob("malignant/*"):
        path.rename(path.with_name(f"{path.stem}_mask.png"))


FOLDERS: dict[str, Any] = {
    "needs a folder malignant/": lambda folder: (folder / "malignant").rename(folder / "cancer"),
    "needs a folder malignant/ and": lambda folder: [
        (folder / name).rename(folder / "malignant" / name) for name in ("benign", "normal")
    ],
    "no image in cyst": lambda folder: write_table(folder / "cyst", []),
    "loose.png: in no class": lambda folder: shutil.copy(folder / "malignant/m0.png", folder / "loose.png"),
    "no image in malignant": only_masks,
    "1 of 11 images cannot": lambda folder: (folder / "benign/x.png").symlink_to("nowhere"),
}


@pytest.mark.parametrize("reason", FOLDERS)
def test_bad_folders(folder, reason):
    FOLDERS[reason](folder)
    assert str(folder) in (message := refused(folder)) and reason in message


ROWS = {
    "a.png,": "row 2: label '' is none of",
    "a.png,2": "row 2: label '2' is none of",
    "a.png,1\nb.png,maligne": "row 3: label 'maligne'",
    "a.png": "row 2: has more or fewer cells",
    "a.png,1\nb.png,0,0,0": "row 3: has more or fewer cells",
    ",1": "row 2: image '' is not inside",
    "absent.png,1": "row 2: image 'absent.png' is no file",
    "deep/../../a.png,1": "is not inside",
    "/etc/hostname,1": "row 2: image '/etc/hostname' is not inside",
    "deep,1": "row 2: image 'deep' is no file",
    "a.png,malignant\nb.png,1\na.png,normal": "row 4: a.png is there before",
    "a.png,1\nempty.png,0": "1 of 2 images cannot be used",
    '"a.png,1': "has more or fewer cells",
}
SPLIT_ROWS = {
    "a.png,1,p,": "row 2: split '' is none of train, val, test",
    "a.png,1,p,Train": "row 2: split 'Train' is none of",
    "a.png,1,p,train\nb.png,0,q,val\nc.png,0,q,test": "images of patient q are in several splits",
    "a.png,1,p,train\na.png,1,p,val": "row 3: a.png is there before",
}


@pytest.fixture
def three(tmp_path):
    """A folder with a.png, b.png and c.png, an empty file, and a folder deep/."""
    for seed, name in enumerate("abc"):
        write(tmp_path / "set" / f"{name}.png", seed)
    (tmp_path / "set/deep").mkdir()
    (tmp_path / "set/empty.png").touch()
    write(tmp_path / "a.png", 9)
    return tmp_path / "set"


@pytest.mark.parametrize("header", ["", "image", "file,label", "image;label", "IMAGE,LABEL", "image,label"])
def test_tables_without_the_columns_or_without_rows(three, header):
    name = write_table(three, ["a.png,1"] if header != "image,label" else [], header)
    assert name in (message := refused(name)) and "it needs the columns image,label" in message


@pytest.mark.parametrize("rows", [*ROWS, *SPLIT_ROWS])
def test_bad_rows_are_named(three, rows):
    header = "image,label,patient,split" if rows in SPLIT_ROWS else "image,label"
    name, reason = write_table(three, [rows], header), (ROWS | SPLIT_ROWS)[rows]
    assert name in (message := refused(name)) and reason in message, message


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"image,label\n\0,1\n", b"[1, 2]"])
def test_what_is_no_table(three, content):
    (three / "images.csv").write_bytes(content)
    assert str(three / "images.csv") in refused(three / "images.csv")


@pytest.mark.parametrize("labels, split", [("1 1 1", "train"), ("0 0 0", "val"), ("1 0 1", "test")])
def test_one_class_is_enough_for_test_alone(three, labels, split):
    rows = [f"{name}.png,{label},{split}" for name, label in zip("abc", labels.split())]
    name = write_table(three, rows, "image,label,split")
    if split == "test":
        assert len(everything(name)) == 3
    else:
        assert f"{split} holds one class only" in refused(name, split)
    assert "holds no images" in refused(name, next(other for other in data.SPLITS if other != split))


# what a run keeps


def test_a_run_s_splits_are_found_again_and_changes_are_said(table, tmp_path, capsys):
    source = data.find(table, None, SIZE, 3)
    (tmp_path / "run").mkdir()
    files.write_csv(tmp_path / "run" / IMAGES, data.image_rows(source))
    before = {row["image"]: row["split"] for split in data.load(source, *data.SPLITS) for row in split.rows}
    described = source.describe()

    def again() -> tuple[dict, str]:
        forget()
        found = origin.find_again(described, None, None, None, None, kept=tmp_path / "run/images.csv")
        rows = [row for split in data.load(found, *data.SPLITS) for row in split.rows]
        return {row["image"]: row["split"] for row in rows}, capsys.readouterr().err

    assert again() == (before, "")
    write(tmp_path / "set/images/7.png", 700)
    splits, err = again()
    assert splits == before and "1 have changed since: images/7.png" in err
    lines = (tmp_path / "set/images.csv").read_text().splitlines()
    write(tmp_path / "set/images/new.png", 800)
    (tmp_path / "set/images.csv").write_text("\n".join([*lines[:-1], "images/new.png,benign,p99"]))
    splits, err = again()
    assert splits == {name: split for name, split in before.items() if name != "images/47.png"}
    assert "1 are gone: images/47.png" in err and "1 are new, and left out: images/new.png" in err
