"""Data sets as one table of images: what they are called, named together, read from image files, and found again."""

import argparse
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO, refusal
from PIL import Image

from common import data, imagefile, phantom
from common.tablefile import COLUMNS

SPLITS = data.SPLITS


def picture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A grey image of no other's kind."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def write_table(folder: Path, rows: list[str], header: str = "image,label") -> str:
    """A table in a folder, and a picture of its own for each row."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for row in rows:
        name = row.split(",")[0]
        if not (folder / name).exists():
            Image.fromarray(picture(zlib.crc32(f"{folder.name}/{name}".encode()))).save(folder / name)
    (folder / "images.csv").write_text("\n".join([header, *rows]) + "\n")
    return str(folder / "images.csv")


def write_patients(folder: Path) -> str:
    """A table of 48 images of 24 patients, half of them malignant."""
    rows = [f"images/{i}.png,{'malignant' if i % 4 < 2 else 'benign'},p{i // 2},GE" for i in range(48)]
    return write_table(folder, rows, "image,label,patient,device")


@pytest.fixture
def table(tmp_path) -> str:
    return write_patients(tmp_path / "set")


def read(*specs, splits=SPLITS, **how) -> data.Images:
    """The images of data sets at 28×28. how: of `data.find`."""
    return data.load(data.find(list(map(str, specs)), None, 28, **how), *splits)


def split_of(images: data.Images) -> dict[str, str]:
    """{image: split}."""
    return dict(zip(images.table["image"], images.table["split"]))


def flags(**given) -> argparse.Namespace:
    """The flags of a script that reads a run."""
    return argparse.Namespace(**dict.fromkeys(("data", "data_root", "size", "seed", "positive")) | given)


def test_phantoms_depend_on_seed_and_split_alone(monkeypatch):
    monkeypatch.setattr(data, "PHANTOM_COUNTS", dict.fromkeys(SPLITS, 12))
    first, again, other = (read("phantom", seed=seed) for seed in (0, 0, 1))
    assert len(first) == 36 and np.array_equal(first.pixels, again.pixels)
    starts = [images.pixels[i].tobytes() for images in (first, other) for i in (0, 12, 24)]
    assert len(set(starts)) == 6


def test_data_say_what_they_are(npz):
    phantoms, own = data.find(["phantom"], None, 64, 3), npz()
    assert phantoms.synthetic and phantoms.label.startswith("PHANTOM data 64×64") and phantoms.paths == []
    assert not own.synthetic and own.label == "own 28×28" and own.notice is None
    both = data.find(["phantom", own.paths[0]], None, 28)
    assert both.label.startswith("PHANTOM data 28×28") and both.name == "phantom + own"


# several data sets


def test_several_data_sets_are_one_table(npz, table, stored):
    found = npz()
    images = read(found.paths[0], table)
    assert len(images) == 48 + 48 and list(images.table.columns[: len(COLUMNS)]) == COLUMNS
    of_table, own = images[images.hospitals == "images"], images[images.hospitals == "own"]
    assert set(of_table.table["device"]) == {"GE"} and set(own.table["device"]) == {""}
    assert np.array_equal(own.of_split("train").pixels, stored["train_images"])
    assert {"images/p0", "images/p23"} < set(of_table.patients) and set(own.patients) == {""}
    assert own.table["x"].isna().all() and own.table["label"].dtype == int
    assert split_of(of_table) == split_of(read(table)) and of_table.table.index.tolist() == list(range(48))


def test_indexing_and_concatenation_keep_pixels_and_rows_together(phantoms):
    pixels, table = phantoms.pixels, phantoms.table
    for chosen in (phantoms.labels == 1, np.array([5, 3]), slice(2, 7)):
        part = phantoms[chosen]
        assert np.array_equal(part.pixels, pixels[chosen]) and list(part.table["image"]) == list(table["image"][chosen])
    joined = data.concatenate(phantoms[5:7], phantoms[1:2])
    assert np.array_equal(joined.pixels, pixels[[5, 6, 1]]) and joined.table.index.tolist() == [0, 1, 2]
    assert list(joined.table["image"]) == ["train/5", "train/6", "train/1"]


def test_a_table_may_hold_several_hospitals(tmp_path):
    rows = ["a.png,1,A,1", "b.png,0,B,1", "c.png,0,,1"]
    images = read(write_table(tmp_path / "set", rows, "image,label,hospital,patient"), undivided="all", splits=["all"])
    assert images.hospitals.tolist() == ["A", "B", "images"] and images.patients == ["A/1", "B/1", "images/1"]


def test_data_sets_are_named_after_their_files_and_the_folder_around_them_where_they_must(tmp_path):
    for name in ("busi", "a/scans", "b/scans", "c/all"):
        (tmp_path / name).mkdir(parents=True)
    specs = [str(tmp_path / name) for name in ("busi", "a/scans", "b/scans", "busi/images.csv", "own.npz")]
    assert data.hospital_names(specs) == ["busi", "a/scans", "b/scans", "images", "own"]
    assert data.hospital_names([str(tmp_path / "c/all")]) == ["c/all"]  # results call all hospitals together "all"
    message = refusal(data.hospital_names, ["x/scans/images.csv", "y/scans/images.csv"])
    assert "two data sets have the name scans/images" in message and "Rename" in message


def test_a_copy_of_a_data_set_is_refused(table, tmp_path):
    shutil.copytree(Path(table).parent, tmp_path / "copy")
    message = refusal(data.find, [table, str(tmp_path / "copy/images.csv")], None, 28)
    assert f"holds the same images as {table}" in message


COPIES = {
    "as it is.png": lambda image: image,
    "mirrored.png": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "smaller.jpg": lambda image: image.resize((60, 60), Image.Resampling.BILINEAR),
    "brighter.jpg": lambda image: image.point(lambda value: value * 0.8 + 40),
}


@pytest.mark.parametrize("name", COPIES)
def test_the_same_picture_in_two_data_sets_is_refused(tmp_path, name):
    scans = [Image.fromarray(image) for image in phantom.generate(4, 90, seed=0)[0]]
    for i, scan in enumerate(scans):
        folder = tmp_path / "ab"[i // 2] / ("malignant" if i % 2 else "benign")
        folder.mkdir(parents=True)
        scan.save(folder / f"{i}.png")
    specs = [str(tmp_path / hospital) for hospital in "ab"]
    data.require_apart(data.find(specs, None, 28, undivided="train"))
    COPIES[name](scans[1]).save(tmp_path / "b/malignant" / name)
    message = refusal(data.require_apart, data.find(specs, None, 28, undivided="train"))
    without = data.find(specs, None, 28, undivided="test")
    data.require_apart(without, without="test")  # as tune.py, which never reads test
    counted = f"--data {specs[1]}: 1 of its 3 images are also in another data set, such as malignant/{name}"
    assert message.startswith(counted)


def test_two_images_of_one_name_and_hospital_are_refused(tmp_path):
    """Predictions are stored by hospital and name."""
    for i, image in enumerate(phantom.generate(2, 90, seed=0)[0]):
        (folder := tmp_path / "ab"[i]).mkdir()
        Image.fromarray(image).save(folder / "0.png")
        (folder / f"{i}.csv").write_text("image,label,hospital\n0.png,benign,H\n", encoding="utf-8")
    found = data.find([str(tmp_path / "a/0.csv"), str(tmp_path / "b/1.csv")], None, 28, undivided="train")
    message = "--data: two data sets have an image 0.png of hospital H. Rename the hospital or the files."
    assert refusal(data.require_apart, found) == message


@pytest.mark.slow
def test_busi_as_downloaded_is_breastmnist(breastmnist_root):
    if not (busi := REPO.parent / "shared/external/busi").is_dir():
        pytest.skip(f"no {busi}")
    message = refusal(data.require_apart, data.find(["breastmnist", str(busi)], str(breastmnist_root), 28))
    assert f"--data {busi}: 780 of its 780 images are also in another data set" in message


def test_counts_are_said(tmp_path, capsys):
    rows = ["a.png,1,p,train", "b.png,0,p,train", "c.png,0,,train", "d.png,0,q,test"]
    table = write_table(tmp_path / "set", rows, "image,label,patient,split")
    read(table, splits=["train", "test"])
    train, test, unknown = capsys.readouterr().err.splitlines()[-3:]
    assert train.split() == "images train 3 1 2 1".split() and test.split() == "images test 1 0 1 1".split()
    assert unknown == "The patient of 1 image is unknown: of these, only near-duplicates are kept together."
    data.load(data.find(["phantom"], None, 28), "val")
    assert capsys.readouterr().err.endswith("No patients are known: only near-duplicates are kept together.\n")


# image files


def test_image_files_are_prepared_as_medmnist_prepared_its_images(table):
    images = read(table, undivided="all", splits=["all"], view="square")
    for pixels, name in zip(images.pixels[:5], images.table["image"]):
        (frame,) = imagefile.frames(Path(table).parent / name)
        np.testing.assert_array_equal(pixels, imagefile.prepare(frame, 28))
    assert images.pixels.shape == (48, 28, 28)


@pytest.mark.parametrize("view", ["frame", "lesion"])
def test_image_files_are_whole_frames_or_their_middle_squares_and_are_compared_by_these(table, view):
    whole, square = (read(table, undivided="all", splits=["all"], view=name) for name in (view, "square"))
    assert np.array_equal(whole.squares, square.squares) and np.array_equal(whole.squares, square.pixels)
    for i, name in enumerate(whole.table["image"][:5]):
        (frame,) = imagefile.frames(Path(table).parent / name)
        squashed = np.asarray(Image.fromarray(frame).resize((28, 28), Image.Resampling.BILINEAR))
        assert np.abs(whole.pixels[i].astype(int) - squashed).max() <= 1 and tuple(whole.sizes[i]) == frame.shape
    assert (whole.groups == square.groups).all() and not np.array_equal(whole.pixels, square.pixels)


def test_the_view_follows_the_data_unless_it_is_given(table, npz, tmp_path, capsys):
    boxed = write_table(tmp_path / "boxed", ["a.png,1,1,1,4,4", "b.png,0,,,,"], "image,label,x,y,width,height")
    own = npz().paths[0]
    for specs, view in (([table], "frame"), ([boxed], "lesion"), ([table, boxed], "lesion"), ([own], "square"),
                        ([boxed, own], "square"), (["phantom"], "square")):  # fmt: skip
        capsys.readouterr()
        found = data.find([str(spec) for spec in specs], None, 28, undivided="all")
        assert found.view == found.describe()["view"] == view
        assert (f"note: --view {view}: " in capsys.readouterr().err) == (view != "square")
        for given in ("square", "frame", "lesion"):
            assert data.find([str(spec) for spec in specs], None, 28, undivided="all", view=given).view == given
        again = data.find_again(found.describe(), None, flags())
        assert again.view == view and again.splits == found.splits  # no split is drawn where training drew none


def test_a_hospital_may_not_be_called_as_all_are(tmp_path):
    named = write_table(tmp_path / "set", ["a.png,1,all", "b.png,0,b"], "image,label,hospital")
    assert "a hospital has the name 'all'" in refusal(data.find, [str(named)], None, 28)


def test_where_no_box_means_no_lesion(phantoms):
    """In a hospital whose malignant images all have boxes; in another, an image without a box is not known."""
    images = phantoms[:12]
    images.table["label"] = [1, 1, 0, 0] * 3
    images.table["hospital"] = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    images.table["x"] = [1, 1, 1, np.nan, 1, np.nan, 1, np.nan] + [np.nan] * 4
    assert images.boxed.tolist() == [True, True, True, False, True, False, True, False] + [False] * 4
    assert images.annotated.tolist() == [True, True, True, True, True, False, True, False] + [False] * 4


def test_every_bad_file_is_named_and_nothing_is_read(table, capsys):
    folder = Path(table).parent / "images"
    (folder / "1.png").write_bytes(b"no image")
    Image.fromarray(picture(5, 4, 4)).save(folder / "2.png")
    pages = [Image.fromarray(picture(seed)) for seed in (1, 2)]
    pages[0].save(folder / "3.png", format="TIFF", save_all=True, append_images=pages[1:])
    message = refusal(lambda: read(table))
    assert f"{table}: 3 of 48 images cannot be used (see above)" in message
    said = capsys.readouterr().err
    assert "1.png is not a readable PNG" in said and "2.png is 4×4" in said and "3.png holds several pictures" in said


def test_a_data_set_is_known_by_names_contents_and_labels_wherever_it_lies(table, tmp_path):
    def md5(spec, seed: int = 0) -> str:
        return data.find([str(spec)], None, 28, seed).describe()["md5"]

    first, moved = md5(table), tmp_path / "moved"
    Path(table).parent.rename(moved)
    assert md5(moved / "images.csv") == first != md5(moved / "images.csv", seed=1)  # of splits that are drawn
    Image.fromarray(picture(700)).save(moved / "images/7.png")
    assert md5(moved / "images.csv") != first


def test_files_of_arrays_are_found_again_and_a_change_is_said(npz, capsys):
    own, phantoms = npz(), data.find(["phantom"], None, 28, 3)
    for found in (own, phantoms):
        assert data.find_again(found.describe(), None, flags()).describe() == found.describe()
    asked = data.find_again(phantoms.describe(), None, flags(size=64, seed=5))
    assert asked.describe() == data.find(["phantom"], None, 64, 5).describe()
    assert data.find_again(own.describe(), None, flags(data=["phantom"])).synthetic
    note = f"note: {own.paths[0]}: label 0 means malignant, as in MedMNIST\n"
    assert capsys.readouterr().err == 2 * note
    npz(val_labels=None)  # the same file, changed since the run
    data.find_again(own.describe(), None, flags())
    assert capsys.readouterr().err == f"{note}{note}note: the data have changed since the model was trained\n"


def test_images_that_a_run_did_not_read_are_known_whatever_the_columns_are_called(tmp_path):
    rows = [f"images/{i}.png,{i % 2},{'train' if i < 4 else 'test'},yes" for i in range(6)]
    found = data.find([write_table(tmp_path, rows, "image,label,split,read")], None, 28)
    unread = found.unread(data.load(found, "train"))
    assert unread["image"].tolist() == ["images/4.png", "images/5.png"] and unread["read"].tolist() == ["yes"] * 2


@pytest.mark.parametrize(
    "box, said",
    [
        ("0.1,0.2,0.3,0.4", "the box of images/0.png (0.1, 0.2, 0.3, 0.4) does not lie in its 300×240 pixels (11 more"),
        ("200,100,260,160", "(200, 100, 260, 160) does not lie in its 300×240 pixels"),
        ("25,30,20,25", "so they seem to be per cent"),
    ],
)
def test_boxes_that_are_not_in_pixels_are_refused(tmp_path, box, said):
    (tmp_path / "images").mkdir()
    for i in range(12):
        Image.fromarray(picture(i, 240, 300)).save(tmp_path / f"images/{i}.png")
    header = "image,label,split,x,y,width,height"
    table = write_table(tmp_path, [f"images/{i}.png,{i % 2},train,{box}" for i in range(12)], header)
    message = refusal(lambda: data.load(data.find([table], None, 28), "train"))
    assert said in message and message.endswith("width and height, all in pixels.")


def test_folders_of_the_images_of_a_table_are_read(tmp_path):
    table = write_table(
        tmp_path, [f"{'images/' * (i % 2)}{i}.png,{i % 2},train" for i in range(4)], "image,label,split"
    )
    assert data.find([table], None, 28).paths == [table, str(tmp_path / "images")]
