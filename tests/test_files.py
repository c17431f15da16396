import math

import numpy as np
import pytest
from conftest import read_csv, read_json

from common import data, files
from common.errors import UserError


def test_replacing_leaves_old_or_new(tmp_path):
    path = tmp_path / "file"
    with files.replacing(path) as beside:
        beside.write_text("old")
        assert not path.exists() and beside.parent == tmp_path
    assert path.read_text() == "old"
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), files.replacing(path) as beside:
            beside.write_text("half")
            raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with files.replacing(path) as beside:
        beside.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_name_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    for path in (tmp_path, tmp_path / "absent" / "file"):
        with pytest.raises(UserError, match="cannot be written"), files.replacing(path):
            pytest.fail("the work began")


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr("os.replace", full)
    for write in (lambda path: files.write_json(path, {"a": 1}), lambda path: files.write_csv(path, [{"a": 1}])):
        with pytest.raises(UserError, match="file: cannot be written .No space left on device"):
            write(tmp_path / "file")
        assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_json_is_strict_and_nan_is_null(tmp_path):
    value = {"a": math.nan, "b": [np.float64(0.1), np.inf, -math.inf], "c": np.arange(2)}
    value |= {"d": (np.bool_(True), None, "nan"), "e": {"f": np.float32(0.5), "g": np.int64(3)}}
    files.write_json(tmp_path / "file.json", value)
    read = read_json(tmp_path / "file.json")
    assert read == {"a": None, "b": [0.1, None, None], "c": [0, 1], "d": [True, None, "nan"], "e": {"f": 0.5, "g": 3}}
    assert math.isnan(value["a"])  # a copy


def test_results_on_phantoms_say_so(tmp_path):
    rows, notice = [{"a": 0.1, "b": "x"}, {"a": 1 / 3, "b": "y"}], data.find(["phantom"], None, 28).notice
    for said in (None, notice):
        files.write_csv(tmp_path / "file.csv", rows, said)
        files.write_json(tmp_path / "file.json", {"a": 1}, said)
        label = {"synthetic": "phantom"} if said else {}
        assert read_csv(tmp_path / "file.csv") == [{"a": str(row["a"]), "b": row["b"]} | label for row in rows]
        assert files.read_json(tmp_path / "file.json") == ({"synthetic": said} if said else {}) | {"a": 1}
    assert "PHANTOM" in (tmp_path / "file.json").read_text().splitlines()[1]
