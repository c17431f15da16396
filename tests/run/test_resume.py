import argparse
import dataclasses
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

from common import data, files
from common.errors import UserError
from common.model import BreastResNet
from common.run import folders, provenance, resume
from common.weights import weights_md5

SOURCE = data.find("phantom", None, 28)


def arguments(out, **changed) -> argparse.Namespace:
    """What train.py's parser gives."""
    given = {"out": str(out), "resume": False, "seed": 0, "threads": 1, "device": "cpu", "data_root": None}
    return argparse.Namespace(**(given | changed))


def begin(out, settings, source=SOURCE, **changed):
    return resume.begin(arguments(out, **changed), settings, source, "fold_*.pt")


def refused(*given, **more) -> str:
    with pytest.raises(UserError) as caught, begin(*given, **more):
        pytest.fail("the run began")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_run(folder: Path, text: str) -> None:
    for name in ("model.pt", "calibration.json", "history.csv", "metrics.json"):
        (folder / name).write_text(text)


def content(folder: Path) -> dict:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def complete(out, settings, **changed) -> None:
    """A run from beginning to end."""
    with begin(out, settings, **changed) as partial, resume.finish(partial) as staged:
        write_run(staged, "new")
        files.write_json(
            staged / "metrics.json", provenance.describe(arguments(out, **changed), settings, SOURCE.notice), SOURCE
        )


@pytest.fixture
def interrupted(tmp_path, quick, capsys) -> Path:
    """A folder with an unfinished run that came to its first checkpoint."""
    with pytest.raises(KeyboardInterrupt), begin(tmp_path, quick) as partial:
        (partial / "model.pt").write_text("so far")
        (partial / ".model.pt.123.part").write_text("half")
        raise KeyboardInterrupt
    assert "the same command with --resume goes on" in capsys.readouterr().err
    return tmp_path


def test_a_run_leaves_its_files_and_nothing_else(tmp_path, quick):
    complete(tmp_path, quick)
    assert set(content(tmp_path)) == {path.name for path in tmp_path.iterdir()}
    assert set(content(tmp_path)) == {"model.pt", "calibration.json", "history.csv", "metrics.json"}


def test_resume_keeps_the_checkpoints(interrupted, quick, capsys):
    with begin(interrupted, quick, resume=True) as partial:
        assert content(partial).keys() == {"model.pt", "run.json"} and (partial / "model.pt").read_text() == "so far"
    assert capsys.readouterr().err == ""


def test_without_resume_the_unfinished_run_is_discarded_with_a_note(interrupted, quick, capsys):
    with begin(interrupted, quick) as partial:
        assert content(partial).keys() == {"run.json"}
    assert f"the unfinished run in {interrupted} is discarded" in capsys.readouterr().err


def test_checkpoints_of_no_known_run_are_not_resumed(interrupted, quick, capsys):
    (interrupted / resume.PARTIAL / "run.json").unlink()  # as when a kill cut off the discarding
    with begin(interrupted, quick, resume=True) as partial:
        assert content(partial).keys() == {"run.json"}
    assert "nothing to resume" in capsys.readouterr().err


def test_nothing_to_resume_starts_from_the_beginning_and_says_so(tmp_path, quick, capsys):
    with begin(tmp_path / "run", quick, resume=True) as partial:
        assert content(partial).keys() == {"run.json"}
    assert f"nothing to resume in {tmp_path / 'run'}; starting from the beginning" in capsys.readouterr().err


def test_a_complete_run_ends_at_once(tmp_path, quick, capsys):
    complete(tmp_path, quick)
    before = content(tmp_path)
    with pytest.raises(SystemExit) as ended, begin(tmp_path, quick, resume=True):
        pytest.fail("the run began")
    assert ended.value.code == 0 and f"{tmp_path}: the run is complete" in capsys.readouterr().out
    assert content(tmp_path) == before


def test_another_run_is_not_resumed(interrupted, quick):
    other = dataclasses.replace(quick, lr=0.5, batch_size=7)
    message = refused(interrupted, other, resume=True)
    assert "--lr 0.0003, not 0.5" in message and "--batch-size 16, not 7" in message
    assert "--seed 0, not 4" in refused(interrupted, quick, resume=True, seed=4)
    assert "--threads 1, not 2" in refused(interrupted, quick, resume=True, threads=2)
    assert "--folds None, not 3" in refused(interrupted, quick, resume=True, folds=3)
    source = data.find("phantom", None, 28, seed=1)
    assert f"data MD5 {SOURCE.md5}, not {source.md5}" in refused(interrupted, quick, source, resume=True)
    assert (interrupted / resume.PARTIAL / "model.pt").read_text() == "so far"
    complete(interrupted, quick)
    assert "--seed 0, not 4" in refused(interrupted, quick, resume=True, seed=4)  # of a complete run neither


def test_other_weights_in_the_same_file_are_another_run(tmp_path, quick):
    settings = dataclasses.replace(quick, weights=str(tmp_path / "weights.pth"))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, settings.weights)
    with pytest.raises(KeyboardInterrupt), begin(tmp_path / "run", settings) as partial:
        (partial / "model.pt").write_text("so far")
        raise KeyboardInterrupt
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, settings.weights)
    weights_md5.cache_clear()  # as in another process
    assert "weights MD5 " in refused(tmp_path / "run", settings, resume=True)


def test_a_moved_folder_is_resumed(interrupted, quick, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "run"
    shutil.copytree(interrupted, moved)
    with begin(moved, quick, resume=True, data_root="elsewhere") as partial:
        assert (partial / "model.pt").read_text() == "so far"


def test_other_code_or_machine_is_a_warning(interrupted, quick, monkeypatch, capsys):
    monkeypatch.setattr(provenance, "cpu_name", lambda: "another processor")
    monkeypatch.setattr(provenance, "command", lambda *words: "another commit")
    with begin(interrupted, quick, resume=True):
        assert "begun with other commit" in (err := capsys.readouterr().err) and "cpu" in err


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": 3, "provenance": {}}', '{"config": {}}'])
def test_a_damaged_description_is_refused(interrupted, quick, text):
    (interrupted / resume.PARTIAL / "run.json").write_text(text)
    assert "run.json" in refused(interrupted, quick, resume=True)


def test_two_runs_at_once(tmp_path, quick):
    with begin(tmp_path, quick) as partial:
        (partial / "model.pt").write_text("so far")
        for flag in (False, True):
            assert "another run is at work" in refused(tmp_path, quick, resume=flag)
        assert (partial / "model.pt").read_text() == "so far"


# the step from an earlier run to a new one

STALE = ["model.onnx", "model.int8.onnx", "parity.json", "roc_test.png", "report.html", "evaluation_val.json"]
STALE += ["fold_9.pt", "breastmnist_test_[AUC]0.9_[ACC]0.8@run.csv"]
OWN = ["notes.txt", "photo_test.png", "other.onnx"]


def killed_at(step: int, out: Path, partial: Path) -> bool:
    """Finish a run in a process that dies at once before its n-th change of the file system; whether it did."""
    left = iter(range(step))

    def mortal(original):
        def change(*given, **more):
            if next(left, None) is None:
                os._exit(9)
            return original(*given, **more)

        return change

    if (pid := os.fork()) == 0:
        for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):  # what pathlib and shutil call too
            setattr(os, name, mortal(getattr(os, name)))
        try:
            with resume.finish(partial) as staged:
                write_run(staged, "new")
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_killed_at_any_step_no_reader_gets_files_of_two_runs(tmp_path, quick):
    states, step, alive = [], 0, False
    while not alive:
        out, step = tmp_path / str(step), step + 1
        with begin(out, quick) as partial:
            write_run(out, "old")
            for name in STALE + OWN:
                (out / name).write_text("old" if name in STALE else "own")
            alive = not killed_at(step - 1, out, partial)
        before = content(out)
        try:
            folders.load(out)
        except UserError as error:
            refused_to_read = "cut off while it replaced" in str(error)
        if not refused_to_read:  # one run or the other, whole
            assert {before.pop(name) for name in OWN} == {"own"}
            assert set(before) == ({*STALE, *content_names()} if "old" in before.values() else content_names())
            assert len(set(before.values())) == 1
        resume.settle(out)
        after = content(out)
        whole = {name: after[name] for name in content_names()}
        assert set(whole.values()) == ({"new"} if refused_to_read else set(before.values()))
        assert {after[name] for name in OWN} == {"own"}
        states.append("between" if refused_to_read else after["model.pt"])
        if states[-1] != "old":
            assert not set(STALE) & set(after) and not list(out.glob(".*"))
    assert step > 15 and states == sorted(states, key=["old", "between", "new"].index)
    assert {"old", "between", "new"} == set(states)


def content_names() -> set[str]:
    return {"model.pt", "calibration.json", "history.csv", "metrics.json"}


def test_a_full_disk_leaves_the_earlier_run_and_the_checkpoints(interrupted, quick):
    """A limit on the size of files stands for the full disk; the kernel refuses to write in both cases."""
    write_run(interrupted, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with begin(interrupted, quick, resume=True) as partial:
        with pytest.raises(UserError, match="model.pt: cannot be written") as caught:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
            try:
                with resume.finish(partial) as staged:
                    folders.save_model(staged / "model.pt", BreastResNet(28, 2), quick, 0, SOURCE, ["train"])
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "\n" not in str(caught.value)
    assert set(content(interrupted).values()) == {"old"}
    with begin(interrupted, quick, resume=True) as partial:
        assert (partial / "model.pt").read_text() == "so far"
        with resume.finish(partial) as staged:
            write_run(staged, "new")
    assert set(content(interrupted).values()) == {"new"}
