import shutil
import urllib.error
import zipfile
from pathlib import Path

import medmnist
import numpy as np
import pytest

from common import data
from common.errors import UserError


def one_line(caught) -> str:
    """The message of a caught UserError, held to the contract: one line."""
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def as_file(path: Path, size: int = 28) -> data.Source:
    return data.Source(str(path), size, path, "")


def test_labels_flip_exactly_once(npz, stored):
    train, val, test = data.load(npz(), "train", "val", "test")
    for split, name in ((train, "train"), (val, "val"), (test, "test")):
        assert np.array_equal(split.labels, stored[f"{name}_labels"][:, 0] == 0)
        assert np.array_equal(split.images, stored[f"{name}_images"])
        assert split.images.dtype == split.labels.dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_labels_of_either_shape_and_any_whole_type(npz, stored, shape, dtype):
    (train,) = data.load(npz(train_labels=stored["train_labels"].astype(dtype).reshape(shape)), "train")
    assert np.array_equal(train.labels, 1 - stored["train_labels"][:, 0]) and train.labels.dtype == np.uint8


@pytest.mark.parametrize("size", data.SIZES)
def test_own_files_of_every_size(npz, size):
    (val,) = data.load(npz(size, val_images=np.zeros((12, size, size), np.uint8)), "val")
    assert val.images.shape == (12, size, size)


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


def with_label(value):
    """Change a stored labels array so that one label is `value`."""
    return lambda stored: {"train_labels": np.r_[[[value]], stored["train_labels"][1:]]}


BAD_ARRAYS = {
    "missing keys": (lambda stored: {"val_images": None, "test_labels": None}, "val_images, test_labels"),
    "float images": (lambda stored: {"train_images": stored["train_images"] / 255}, "float64"),
    "colour": (lambda stored: {"train_images": np.stack([stored["train_images"]] * 3, -1)}, "size 28 are"),
    "another size": (lambda stored: {"train_images": np.zeros((24, 64, 64), np.uint8)}, "use --size 64"),
    "no known size": (lambda stored: {"train_images": np.zeros((24, 32, 32), np.uint8)}, r"\[n, 28, 28\]"),
    "not square": (lambda stored: {"train_images": np.zeros((24, 28, 27), np.uint8)}, r"\[n, 28, 28\]"),
    "flat": (lambda stored: {"train_images": np.zeros((24, 784), np.uint8)}, r"\[n, 28, 28\]"),
    "a number": (lambda stored: {"train_images": np.uint8(3)}, r"\[n, 28, 28\]"),
    "too few labels": (lambda stored: {"train_labels": stored["train_labels"][1:]}, r"need \[24, 1\]"),
    "two columns of labels": (lambda stored: {"train_labels": np.ones((24, 2), int)}, r"need \[24, 1\]"),
    "label 2": (with_label(2), "whole numbers 0"),
    "label -1": (with_label(-1), "whole numbers 0"),
    "float labels": (lambda stored: {"train_labels": stored["train_labels"].astype(float)}, "whole numbers 0"),
    "text labels": (lambda stored: {"train_labels": stored["train_labels"].astype(str)}, "whole numbers 0"),
    "benign only": (lambda stored: {"train_labels": np.ones((24, 1), int)}, "one class only"),
    "malignant only": (lambda stored: {"train_labels": np.zeros((24, 1), int)}, "one class only"),
    "no images": (lambda stored: {"train_images": np.zeros((0, 28, 28), np.uint8)}, "holds no images"),
    "pickled objects": (lambda stored: {"train_images": np.array([{}, None], object)}, "not a readable"),
}


@pytest.mark.parametrize("change, reason", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_are_one_line_that_names_the_file(npz, stored, change, reason):
    source = npz(**change(stored))
    with pytest.raises(UserError, match=reason) as caught:
        data.load(source, "train")
    assert str(source.path) in one_line(caught)


def test_test_may_hold_one_class(npz):
    (test,) = data.load(npz(test_labels=np.ones(12, int)), "test")
    assert test.labels.sum() == 0
    with pytest.raises(UserError, match="val holds one class only"):
        data.load(npz(val_labels=np.ones(12, int)), "val")


def encrypted(content: bytes) -> bytes:
    """An archive whose directory says that its first member is encrypted."""
    flags = content.index(b"PK\x01\x02") + 8
    return content[:flags] + b"\x01" + content[flags + 1 :]


DAMAGES = {
    "text": lambda content: b"not an archive",
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-40],
    "zeros": lambda content: content[:300] + bytes(300) + content[600:],
    "encrypted": encrypted,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_one_line_that_names_the_file(npz, damage):
    source = npz()
    source.path.write_bytes(damage(source.path.read_bytes()))
    with pytest.raises(UserError, match="not a readable .npz") as caught:
        data.load(source, "train", "val", "test")
    assert str(source.path) in one_line(caught)


def test_files_of_another_kind(tmp_path, stored):
    alone, archive = tmp_path / "alone.npz", tmp_path / "archive.npz"
    with open(alone, "wb") as file:
        np.save(file, stored["train_images"])
    with zipfile.ZipFile(archive, "w") as file:
        for name in stored:
            file.writestr(f"{name}.npy", "no array")
    for path in (alone, archive):
        with pytest.raises(UserError, match="not a readable .npz") as caught:
            data.load(as_file(path), "train")
        assert str(path) in one_line(caught)


@pytest.mark.slow
def test_no_changed_byte_gets_past_the_check(npz):
    source, rng = npz(), np.random.default_rng(0)
    content, refused = source.path.read_bytes(), 0
    for _ in range(300):
        changed = bytearray(content)
        for place in rng.integers(len(content) - 700, len(content), 3):  # small arrays and the archive's directory
            changed[place] = rng.integers(256)
        source.path.write_bytes(changed)
        try:
            data.load(source, "train", "val", "test")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 200


@pytest.mark.parametrize("name", ["absent.npz", "no/such/folder.npz"])
def test_files_that_cannot_be_read(tmp_path, name):
    with pytest.raises(UserError, match="cannot be read .*--data a readable .npz") as caught:
        data.find(str(tmp_path / name), None, 28)
    assert str(tmp_path) in one_line(caught)


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


@pytest.mark.parametrize("size", data.SIZES)
def test_no_network_names_both_ways_out(tmp_path, monkeypatch, size):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    with pytest.raises(UserError) as caught:
        data.find("breastmnist", str(tmp_path / "root"), size)
    message = one_line(caught)
    for part in (str(tmp_path / "root"), data.breastmnist_path("", size).name, "Name or service not known"):
        assert part in message
    assert "--data-root" in message and "--data phantom --weights none" in message


def test_data_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory|File exists") as caught:
        data.find("breastmnist", str(tmp_path / "file" / "root"), 28)
    assert "--data-root" in one_line(caught)


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
        assert data.find_again(source.describe(), None, None, None, None) == source
    assert capsys.readouterr().err == ""
    assert data.find_again(phantom.describe(), None, None, 64, 5) == data.find("phantom", None, 64, 5)
    assert data.find_again(own.describe(), "phantom", None, None, None).synthetic
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2 and all("not what the model was trained on" in line for line in warnings)
    assert str(own.path) in warnings[1]
    changed = npz(val_labels=None)  # the same file, changed since the run
    data.find_again(own.describe(), None, None, None, None)
    assert f"MD5 {changed.md5}, is not" in (err := capsys.readouterr().err) and f"MD5 {own.md5})" in err


def test_concatenate_and_index():
    one, two = (data.Split.of(f"s{n}", np.full((n, 28, 28), n, np.uint8), np.full(n, n % 2, np.uint8)) for n in (1, 2))
    joined = data.concatenate(one, two)
    assert len(joined) == 3 and joined.labels.tolist() == [1, 0, 0] and joined.images[:, 0, 0].tolist() == [1, 2, 2]
    assert [(row["split"], row["index"]) for row in joined.rows] == [("s1", 0), ("s2", 0), ("s2", 1)]
    assert joined[joined.labels == 0].images[:, 0, 0].tolist() == [2, 2]


@pytest.mark.parametrize("size", data.SIZES)
def test_official_checksums_are_medmnist_s(size):
    assert data.OFFICIAL_MD5[size] == medmnist.INFO["breastmnist"]["MD5" if size == 28 else f"MD5_{size}"]


@pytest.mark.parametrize("size", data.SIZES)
def test_real_files_are_official(breastmnist_root, size, capsys):
    if not data.breastmnist_path(str(breastmnist_root), size).exists():
        pytest.skip(f"no BreastMNIST of size {size} in {breastmnist_root}")
    assert data.find("breastmnist", str(breastmnist_root), size).md5 == data.OFFICIAL_MD5[size]
    assert capsys.readouterr().err == ""


def test_real_counts(breastmnist_root):
    source = data.find("breastmnist", str(breastmnist_root), 28)
    splits = data.load(source, "train", "val", "test")
    assert [(len(split), int(split.labels.sum())) for split in splits] == [(546, 147), (78, 21), (156, 42)]
    assert medmnist.INFO["breastmnist"]["label"]["0"] == "malignant"
    stored = np.load(source.path)["test_labels"][:, 0]
    assert np.array_equal(splits[2].labels == 1, stored == 0)
