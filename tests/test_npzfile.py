"""Files with MedMNIST's keys: read as they are, or refused in one line; the real BreastMNIST where there is one."""

import re
import shutil
import zipfile
from pathlib import Path

import medmnist
import numpy as np
import pytest
from conftest import refusal

from common import data, npzfile
from common.errors import UserError


def test_labels_flip_exactly_once(npz, stored):
    found = npz()
    for name in npzfile.SPLITS:
        images = data.load(found, name)
        assert np.array_equal(images.labels, stored[f"{name}_labels"][:, 0] == 0)
        assert np.array_equal(images.pixels, stored[f"{name}_images"])
        assert images.pixels.dtype == images.labels.dtype == np.uint8
        assert images.table["image"][3] == f"{name}/3" and set(images.hospitals) == {"own"}


@pytest.mark.parametrize("shape, dtype", [((-1,), np.int64), ((-1, 1), np.int64), ((-1,), bool)])
def test_labels_of_either_shape_and_any_whole_type(npz, stored, shape, dtype):
    train = data.load(npz(train_labels=stored["train_labels"].astype(dtype).reshape(shape)), "train")
    assert np.array_equal(train.labels, 1 - stored["train_labels"][:, 0])


def test_test_is_not_read_unless_asked_for(npz):
    found = npz(test_images=np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8))
    path = Path(found.paths[0])
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("test_images.npy")
    damaged = bytearray(path.read_bytes())
    middle = member.header_offset + member.compress_size // 2
    damaged[middle : middle + 64] = bytes(64)
    path.write_bytes(damaged)
    assert len(data.load(found, "val", "train")) == 36
    with pytest.raises(UserError, match="own.npz"):
        data.load(found, "test")


WRONG = {  # what is stored in the place of a good file's arrays, and what the error says
    "missing keys": ({"train_images": None, "test_labels": None}, "train_images, test_labels"),
    "half of val": ({"val_labels": None}, "has no val_labels"),
    "no val": ({"val_images": None, "val_labels": None}, "no image is in val[.] .* crossval.py, which needs no val"),
    "float images": ({"train_images": np.zeros((24, 28, 28))}, "float64"),
    "colour": ({"train_images": np.zeros((24, 28, 28, 3), np.uint8)}, "size 28 are"),
    "another size": ({"train_images": np.zeros((24, 64, 64), np.uint8)}, "Give --size 64"),
    "not square": ({"train_images": np.zeros((24, 28, 27), np.uint8)}, r"\[n, 28, 28\]"),
    "a number": ({"train_images": np.uint8(3)}, r"\[n, 28, 28\]"),
    "no images": ({"train_images": np.zeros((0, 28, 28), np.uint8)}, "train holds no images"),
    "pickled objects": ({"train_images": np.array([{}, None], object)}, "not a readable"),
    "too few labels": ({"train_labels": np.ones((23, 1), int)}, r"use \[24, 1\]"),
    "two columns of labels": ({"train_labels": np.ones((24, 2), int)}, r"use \[24, 1\]"),
    "label 2": ({"train_labels": np.arange(24) % 3}, "hold other values than 0 and 1"),
    "label -1": ({"train_labels": np.arange(24) % 3 - 1}, "hold other values than 0 and 1"),
    "float labels": ({"train_labels": np.arange(24) % 2.0}, "hold other values than 0 and 1"),
    "text labels": ({"train_labels": np.array(["0", "1"] * 12)}, "hold other values than 0 and 1"),
    "benign only": ({"train_labels": np.ones(24, int)}, "own: train holds one class only"),
    "malignant only": ({"val_labels": np.zeros(12, int)}, "own: val holds one class only"),
}


@pytest.mark.parametrize("changed, reason", WRONG.values(), ids=WRONG)
def test_bad_arrays_are_one_line_that_names_the_file(npz, changed, reason):
    message = refusal(data.load, npz(**changed), "train", "val")
    assert re.search(reason, message) and "own" in message


def test_val_may_be_absent_where_it_is_not_needed_and_test_may_hold_one_class(npz):
    found = npz(val_images=None, val_labels=None, test_labels=np.ones(12, int))
    assert len(data.load(found, "train", "val", optional=["val"])) == 24
    assert data.load(found, "test").labels.tolist() == [0] * 12


def write_stand_in(folder: Path, found: data.Found) -> Path:
    """A folder of MedMNIST's files with own data in the place of BreastMNIST."""
    folder.mkdir()
    shutil.copy(found.paths[0], folder / "breastmnist.npz")
    return folder


def test_other_md5_is_warned_about_and_used(tmp_path, npz, capsys):
    root = write_stand_in(tmp_path / "root", npz())
    capsys.readouterr()
    found = data.find(["breastmnist"], str(root), 28)
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and warning.count("\n") == 1
    assert str(root) in warning and found.sets[0].md5 in warning and "not the official file" in warning
    assert len(data.load(found, "train")) == 24 and found.label == "BreastMNIST 28×28"


def test_data_root_comes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path / "a"))
    assert npzfile.breastmnist_path(None, 28) == tmp_path / "a/breastmnist.npz"
    assert npzfile.breastmnist_path("root", 64) == Path("root/breastmnist_64.npz")
    monkeypatch.delenv("MEDMNIST_ROOT")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert npzfile.breastmnist_path(None, 28) == tmp_path / ".medmnist/breastmnist.npz"


def test_official_checksums_are_medmnist_s():
    for size, md5 in npzfile.OFFICIAL_MD5.items():
        assert md5 == medmnist.INFO["breastmnist"]["MD5" if size == 28 else f"MD5_{size}"]


@pytest.mark.parametrize("size", npzfile.SIZES)
def test_real_files_are_official(breastmnist, size, capsys):
    assert breastmnist(size).sets[0].md5 == npzfile.OFFICIAL_MD5[size]
    assert capsys.readouterr().err == ""


def test_real_counts(breastmnist, breastmnist_root):
    images = data.load(breastmnist(28), *npzfile.SPLITS)
    parts = [images.of_split(split) for split in npzfile.SPLITS]
    assert [(len(part), int(part.labels.sum())) for part in parts] == [(546, 147), (78, 21), (156, 42)]
    assert medmnist.INFO["breastmnist"]["label"]["0"] == "malignant"
    stored = np.load(breastmnist_root / "breastmnist.npz")["test_labels"][:, 0]
    assert np.array_equal(parts[2].labels == 1, stored == 0)
