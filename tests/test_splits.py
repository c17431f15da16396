"""Splits: drawn by group, or as an earlier run had them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import refusal
from PIL import Image
from test_data import SPLITS, flags, picture, read, split_of, write_patients, write_table

from common import data
from common.run import folders


@pytest.fixture
def table(tmp_path) -> str:
    return write_patients(tmp_path / "set")


def test_drawn_splits_are_whole_groups_in_shares_of_70_10_and_20_in_each_class(table):
    folder = Path(table).parent / "images"
    for one, copy in ((0, 9), (2, 11)):  # patients 0 and 4 are one group now, and so are 1 and 5
        Image.open(folder / f"{one}.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / f"{copy}.png")
    drawn = [read(table, seed=seed) for seed in (0, 0, 1)]
    first, again, other = map(split_of, drawn)
    assert first == again != other and len(first) == len(other) == 48
    for images in drawn:
        splits, groups = images.table["split"].to_numpy(), images.groups
        assert len(set(groups)) == 22 and all(len(set(splits[groups == group])) == 1 for group in groups)
        for c in (0, 1):
            shares = [np.mean(splits[images.labels == c] == split) for split in SPLITS]
            assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.09)
    assert first["images/0.png"] == first["images/1.png"] == first["images/8.png"] == first["images/9.png"]


def test_too_few_to_divide_are_enough_where_nothing_is_divided(tmp_path, capsys):
    table = write_table(tmp_path / "set", [f"{i}.png,{i % 2}" for i in range(8)])
    message = refusal(data.find, [table], None, 28)
    assert f"{table}: cannot be divided into train, val and test" in message and "the column split" in message
    found = data.find([table], None, 28, undivided="train")
    assert found.splits == ["train"] and len(data.load(found, "train", "test", optional=["test"])) == 8


@pytest.mark.parametrize("labels, split", [("1 1 1", "train"), ("0 0 0", "val"), ("1 0 1", "test")])
def test_one_class_is_enough_for_test_alone(tmp_path, labels, split):
    rows = [f"{name}.png,{label},{split}" for name, label in zip("abc", labels.split())]
    table = write_table(tmp_path / "set", rows, "image,label,split")
    if split == "test":
        assert len(read(table, splits=["test"])) == 3
    else:
        assert f"images: {split} holds one class only" in refusal(lambda: read(table, splits=[split]))
    other = next(other for other in SPLITS if other != split)
    assert f"no image is in {other}" in refusal(lambda: read(table, splits=[other]))


# the data of a run, found again


@pytest.fixture
def kept(table, tmp_path):
    """A function that keeps the table of a run, and gives what `data.find_again` takes of the run."""

    def keep(**how):
        found = data.find([table], None, 28, **how)
        (tmp_path / "run").mkdir()
        folders.save_table(tmp_path / "run", images := data.load(found, *found.splits))
        return found.describe(), folders.read_table(tmp_path / "run/split.csv"), images

    return keep


def test_a_moved_folder_is_found_again_with_its_splits_whatever_the_seed(table, kept, tmp_path, capsys):
    described, rows, images = kept(seed=3)
    counts = [len(images.of_split(name)) for name in SPLITS]
    Path(table).parent.rename(tmp_path / "moved")
    given = flags(data=[str(tmp_path / "moved/images.csv")], seed=9)
    again = data.load(data.find_again(described, rows, given), *SPLITS)
    assert split_of(again) == split_of(images) and set(again.hospitals) == {"images"} and min(counts) > 3
    assert "note:" not in capsys.readouterr().err.split("70 % of the groups")[1]  # which the first reading said


def test_what_is_changed_gone_or_new_since_the_run_is_named(table, kept, capsys):
    described, rows, images = kept(seed=3)
    folder, lines = Path(table).parent, Path(table).read_text(encoding="utf-8").splitlines()
    Image.fromarray(picture(700)).save(folder / "images/7.png")
    Image.fromarray(picture(800)).save(folder / "images/new.png")
    lines[1 + 12] = "images/12.png,malignant,somebody else,GE"
    lines[-1] = "images/new.png,benign,p99,GE"
    Path(table).write_text("\n".join(lines), encoding="utf-8")
    capsys.readouterr()
    again = data.load(data.find_again(described, rows, flags()), *SPLITS)
    assert split_of(again) == {name: split for name, split in split_of(images).items() if name != "images/47.png"}
    err = capsys.readouterr().err
    assert "changed since the run: 2 (images/7.png, images/12.png)" in err
    assert "gone since the run: 1 (images/47.png)" in err
    assert "new since the run, and not used: 1 (images/new.png)" in err
    assert "the data have changed since the model was trained" in err


def test_one_of_several_data_sets_is_found_with_its_name_and_its_splits(tmp_path, capsys):
    """The other has images of the same names."""
    specs = [write_patients(tmp_path / name) for name in "ab"]
    folders.save_table(tmp_path, images := read(*specs))
    described, rows = data.find(specs, None, 28).describe(), folders.read_table(tmp_path / "split.csv")
    capsys.readouterr()
    again = data.load(data.find_again(described, rows, flags(data=specs[1:], seed=5)), *SPLITS)
    assert set(again.hospitals) == {"b/images"} and "since the run" not in capsys.readouterr().err
    assert split_of(again) == split_of(images[images.hospitals == "b/images"]) != split_of(read(specs[1], seed=5))


def test_a_hospital_that_was_not_divided_stays_whole(kept):
    described, rows, _ = kept(undivided="train")
    assert len(data.load(data.find_again(described, rows, flags()), "train")) == 48


def test_other_images_do_not_take_the_splits_of_a_run(kept, tmp_path):
    described, rows, _ = kept()
    other = write_table(tmp_path / "other", [f"images/{i}.png,{i % 2}" for i in range(40)])
    found = data.find_again(described, rows, flags(data=[other]), undivided="all")
    assert found.splits == ["all"] and len(data.load(found, "all")) == 40


def test_one_shared_image_does_not_make_others_images_of_the_run(table, kept, tmp_path):
    described, rows, _ = kept()
    new = Path(write_table(tmp_path / "new", [f"images/{i}.png,{i % 2}" for i in range(100, 120)]))
    shutil.copy(Path(table).parent / "images/0.png", new.parent / "images/0.png")
    new.write_text(new.read_text(encoding="utf-8") + "images/0.png,0\n", encoding="utf-8")
    again = data.find_again(described, rows, flags(data=[str(new)]), undivided="all")
    assert again.splits == ["all"] and len(data.load(again, "all")) == 21
