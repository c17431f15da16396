import re
import shutil
import zipfile
from pathlib import Path

import medmnist
import numpy as np
import pytest
from conftest import refusal

from common import data, npzfile, origin
from common.errors import UserError


def test_labels_flip_exactly_once(npz, stored):
    train, val, test = data.load(npz(), "train", "val", "test")
    for split, name in ((train, "train"), (val, "val"), (test, "test")):
        assert np.array_equal(split.labels, stored[f"{name}_labels"][:, 0] == 0)
        assert np.array_equal(split.images, stored[f"{name}_images"])
        assert split.images.dtype == split.labels.dtype == np.uint8


@pytest.mark.parametrize("shape, dtype", [((-1,), np.int64), ((-1, 1), np.int64), ((-1,), bool)])
def test_labels_of_either_shape_and_any_whole_type(npz, stored, shape, dtype):
    (train,) = data.load(npz(train_labels=stored["train_labels"].astype(dtype).reshape(shape)), "train")
    assert np.array_equal(train.labels, 1 - stored["train_labels"][:, 0]) and train.labels.dtype == np.uint8


def test_test_is_not_read_unless_asked_for(npz):
    source = npz(test_images=np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8))
    with zipfile.ZipFile(source.path) as archive:
        member = archive.getinfo("test_images.npy")
    damaged = bytearray(source.path.read_bytes())
    middle = member.header_offset + member.compress_size // 2
    damaged[middle : middle + 64] = bytes(64)
    source.path.write_bytes(damaged)
    assert [len(split) for split in data.load(source, "val", "train")] == [12, 24]
    with pytest.raises(UserError, match="own.npz"):
        data.load(source, "test")


WRONG = {  # what is stored in the place of a good file's arrays, and what the error says
    "missing keys": ({"val_images": None, "test_labels": None}, "val_images, test_labels"),
    "float images": ({"train_images": np.zeros((24, 28, 28))}, "float64"),
    "colour": ({"train_images": np.zeros((24, 28, 28, 3), np.uint8)}, "size 28 are"),
    "another size": ({"train_images": np.zeros((24, 64, 64), np.uint8)}, "use --size 64"),
    "not square": ({"train_images": np.zeros((24, 28, 27), np.uint8)}, r"\[n, 28, 28\]"),
    "a number": ({"train_images": np.uint8(3)}, r"\[n, 28, 28\]"),
    "no images": ({"train_images": np.zeros((0, 28, 28), np.uint8)}, "train holds no images"),
    "pickled objects": ({"train_images": np.array([{}, None], object)}, "not a readable"),
    "too few labels": ({"train_labels": np.ones((23, 1), int)}, r"need \[24, 1\]"),
    "two columns of labels": ({"train_labels": np.ones((24, 2), int)}, r"need \[24, 1\]"),
    "label 2": ({"train_labels": np.arange(24) % 3}, "whole numbers 0"),
    "label -1": ({"train_labels": np.arange(24) % 3 - 1}, "whole numbers 0"),
    "float labels": ({"train_labels": np.arange(24) % 2.0}, "whole numbers 0"),
    "text labels": ({"train_labels": np.array(["0", "1"] * 12)}, "whole numbers 0"),
    "benign only": ({"train_labels": np.ones(24, int)}, "train holds one class only"),
    "malignant only": ({"val_labels": np.zeros(12, int)}, "val holds one class only"),
}


@pytest.mark.parametrize("changed, reason", WRONG.values(), ids=WRONG)
def test_bad_arrays_are_one_line_that_names_the_file(npz, changed, reason):
    source = npz(**changed)
    message = refusal(data.load, source, "train", "val")
    assert re.search(reason, message) and str(source.path) in message


def test_test_may_hold_one_class(npz):
    (test,) = data.load(npz(test_labels=np.ones(12, int)), "test")
    assert test.labels.sum() == 0


def write_stand_in(folder: Path, source: data.Source) -> Path:
    """A folder of MedMNIST's files with own data in the place of BreastMNIST."""
    folder.mkdir()
    shutil.copy(str(source.path), folder / "breastmnist.npz")
    return folder


def test_other_md5_is_warned_about_and_used(tmp_path, npz, capsys):
    root = write_stand_in(tmp_path / "root", npz())
    source = data.find("breastmnist", str(root), 28)
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and warning.count("\n") == 1
    assert str(root) in warning and source.md5 in warning and "not the official file" in warning
    assert len(data.load(source, "train")[0]) == 24


def test_data_root_comes_before_the_environment(tmp_path, npz, monkeypatch):
    roots = [write_stand_in(tmp_path / name, npz()) for name in "ab"]
    monkeypatch.setenv("MEDMNIST_ROOT", str(roots[0]))
    assert data.find("breastmnist", None, 28).path.parent == roots[0]
    assert data.find("breastmnist", str(roots[1]), 28).path.parent == roots[1]
    monkeypatch.delenv("MEDMNIST_ROOT")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    shutil.copytree(roots[0], tmp_path / ".medmnist")
    assert data.find("breastmnist", None, 28).path.parent == tmp_path / ".medmnist"


def test_phantoms_depend_on_seed_and_split_alone(monkeypatch):
    monkeypatch.setattr(data, "PHANTOM_COUNTS", dict.fromkeys(data.SPLITS, 12))

    def images(seed: int) -> list[np.ndarray]:
        return [split.images for split in data.load(data.find("phantom", None, 28, seed), *data.SPLITS)]

    first, again, other = images(0), images(0), images(1)
    assert [len(part) for part in first] == [12, 12, 12]
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    distinct = {part[0].tobytes() for part in first + other}
    assert len(distinct) == 6


def test_phantoms_say_what_they_are(tmp_path, npz):
    phantom, own = data.find("phantom", None, 64, 3), npz()
    assert phantom.synthetic and phantom.label.startswith("PHANTOM data 64×64")
    assert not own.synthetic and own.label == "own.npz 28×28"
    official = data.Source("breastmnist", 28, tmp_path, "")
    assert official.label == "BreastMNIST 28×28"


def test_find_again_takes_the_run_s_data_and_warns_of_others(npz, capsys):
    own, phantom = npz(), data.find("phantom", None, 28, 3)
    for source in (own, phantom):
        assert origin.find_again(source.describe(), None, None, None, None) == source
    assert capsys.readouterr().err == ""
    for seed in (5, 0):
        assert origin.find_again(phantom.describe(), None, None, 64, seed) == data.find("phantom", None, 64, seed)
    assert origin.find_again(own.describe(), "phantom", None, None, None).synthetic
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 3 and all("not what the model was trained on" in line for line in warnings)
    assert str(own.path) in warnings[2]
    changed = npz(val_labels=None)  # the same file, changed since the run
    origin.find_again(own.describe(), None, None, None, None)
    assert f"MD5 {changed.md5}, is not" in (err := capsys.readouterr().err) and f"MD5 {own.md5})" in err


def test_concatenate_and_index():
    one, two = (data.Split.of(f"s{n}", np.full((n, 28, 28), n, np.uint8), np.full(n, n % 2, np.uint8)) for n in (1, 2))
    joined = data.concatenate(one, two)
    assert len(joined) == 3 and joined.labels.tolist() == [1, 0, 0] and joined.images[:, 0, 0].tolist() == [1, 2, 2]
    assert [(row["split"], row["index"]) for row in joined.rows] == [("s1", 0), ("s2", 0), ("s2", 1)]
    assert joined[joined.labels == 0].images[:, 0, 0].tolist() == [2, 2]


def test_official_checksums_and_names_are_medmnist_s():
    assert npzfile.breastmnist_path("root", 64) == Path("root/breastmnist_64.npz")
    for size, md5 in data.OFFICIAL_MD5.items():
        assert md5 == medmnist.INFO["breastmnist"]["MD5" if size == 28 else f"MD5_{size}"]


@pytest.mark.parametrize("size", npzfile.SIZES)
def test_real_files_are_official(breastmnist, size, capsys):
    assert breastmnist(size).md5 == data.OFFICIAL_MD5[size]
    assert capsys.readouterr().err == ""


def test_real_counts(breastmnist):
    splits = data.load(source := breastmnist(28), "train", "val", "test")
    assert [(len(split), int(split.labels.sum())) for split in splits] == [(546, 147), (78, 21), (156, 42)]
    assert medmnist.INFO["breastmnist"]["label"]["0"] == "malignant"
    stored = np.load(source.path)["test_labels"][:, 0]
    assert np.array_equal(splits[2].labels == 1, stored == 0)
