import argparse
import dataclasses
import os
import platform
from pathlib import Path

import pytest
import torch
from conftest import read_json, refusal

from common import data, files
from common.errors import UserError
from common.run import folders, outputs, provenance, resume
from common.weights import weights_md5

FOUND, HOST = data.find(["phantom"], None, 28), platform.node()
RUN = {"model.pt", "calibration.json", "history.csv", "metrics.json"}
# of an earlier run of another kind, of export.py and evaluate.py; and what a user has there
STALE = {"fold_9.pt", "folds.csv", "model.onnx", "report.html", "breastmnist_test_[AUC]0.9_[ACC]0.8@run.csv"}
OWN = {"notes.txt", "photo_test.png", "other.onnx", "xfold_1.pt", "images.csv"}


def arguments(out, **changed) -> argparse.Namespace:
    """What train.py's parser gives."""
    given = {"out": str(out), "resume": False, "seed": 0, "threads": 1, "device": "cpu", "data_root": None}
    return argparse.Namespace(**(given | {"params": None} | changed))


def begin(out, settings, found=FOUND, **changed):
    args = arguments(out, **changed)
    return resume.begin(args, settings, found, provenance.describe(args, settings, found), RUN)


def refused(context) -> str:
    """The one line with which a lock or a run is refused."""
    return refusal(context.__enter__)


def write(folder: Path, names, text: str) -> None:
    for name in names:
        (folder / name).write_text(text)


def content(folder: Path) -> dict:
    visible = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    return {path.name: path.read_text() for path in visible if path.name != outputs.LIST}


def earlier_run(out: Path) -> None:
    write(out, RUN | STALE, "old")
    write(out, OWN, "own")
    files.write_json(out / outputs.LIST, {"format": outputs.FORMAT, "files": dict.fromkeys(RUN | STALE, "crossval.py")})


def complete(out, settings) -> None:
    """A run from beginning to end."""
    with begin(out, settings) as partial, resume.finish(partial) as staged:
        write(staged, RUN, "new")
        files.write_json(staged / "metrics.json", provenance.describe(arguments(out), settings, FOUND))


@pytest.fixture
def interrupted(tmp_path, quick, capsys) -> Path:
    """A folder with an unfinished run that came to its first checkpoint."""
    with pytest.raises(KeyboardInterrupt), begin(tmp_path, quick) as partial:
        (partial / "model.pt").write_text("so far")
        raise KeyboardInterrupt
    assert "to continue from here, repeat the command with --resume" in capsys.readouterr().err
    return tmp_path


def test_resume_keeps_the_checkpoints_also_in_a_moved_folder(interrupted, quick, capsys):
    moved = interrupted.rename(interrupted.with_name("moved"))
    with begin(moved, quick, resume=True, data_root="elsewhere") as partial:
        assert content(partial).keys() == {"model.pt", "described.json"}
        assert (partial / "model.pt").read_text() == "so far"
    assert capsys.readouterr().err == ""


def test_a_run_that_begins_anew_says_why(interrupted, quick, capsys):
    def begun(out, again: bool) -> str:
        with begin(out, quick, resume=again) as partial:
            assert content(partial).keys() == {"described.json"}
        return capsys.readouterr().err

    assert f"the interrupted run in {interrupted} is discarded" in begun(interrupted, False)
    (interrupted / ".breastmnist/partial/described.json").unlink()  # as when a kill cut off the discarding
    for out in (interrupted, interrupted / "new"):
        assert f"{out} holds no interrupted run. The run starts from the beginning" in begun(out, True)


def test_a_complete_run_ends_at_once(tmp_path, quick, capsys):
    complete(tmp_path, quick)
    before = content(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == RUN | {outputs.LIST}  # nothing of the work is left
    assert "--seed 0, not 4" in refused(begin(tmp_path, quick, resume=True, seed=4))
    with pytest.raises(SystemExit) as ended, begin(tmp_path, quick, resume=True):
        pytest.fail("the run began")
    assert ended.value.code == 0 and f"{tmp_path}: the run is complete" in capsys.readouterr().out
    assert content(tmp_path) == before


def test_another_run_is_not_resumed(interrupted, quick, monkeypatch):
    found = data.find(["phantom"], None, 28, seed=1)
    other = dataclasses.replace(quick, lr=0.5, batch_size=7)
    md5s = [one.describe()["md5"] for one in (FOUND, found)]
    for run, different in (
        (begin(interrupted, other, resume=True), "--lr 0.0003, not 0.5; --batch-size 16, not 7"),
        (begin(interrupted, quick, resume=True, seed=4), "--seed 0, not 4"),
        (begin(interrupted, quick, resume=True, folds=3), "--folds None, not 3"),
        (begin(interrupted, quick, found, resume=True), f"data MD5 {md5s[0]}, not {md5s[1]}"),
    ):
        assert f"the interrupted run had {different}. Give" in refused(run)
    was = read_json(interrupted / ".breastmnist/partial/described.json")["provenance"]["precision"]
    monkeypatch.setattr(provenance, "precision", lambda *_: "another")  # what "auto" stands for on another machine
    assert f"the interrupted run had precision {was}, not another. Give" in refused(
        begin(interrupted, quick, resume=True)
    )
    moved = dataclasses.replace(FOUND, sets=(dataclasses.replace(FOUND.sets[0], hospital="renamed"),))
    assert f"hospitals {FOUND.sets[0].hospital}, not renamed" in refused(begin(interrupted, quick, moved, resume=True))
    assert (interrupted / ".breastmnist/partial/model.pt").read_text() == "so far"


@pytest.mark.parametrize("which", ["weights", "data"])
def test_what_files_hold_decides_and_not_where_they_lie(which, tmp_path, quick):
    def begun(seed: int, where: str, again: bool):
        args = arguments(tmp_path / "run", resume=again, data=[where])
        weights_md5.cache_clear()  # as in another process
        torch.save({"conv1.weight": torch.full((64, 3, 7, 7), seed)}, tmp_path / "weights.pth")
        settings = dataclasses.replace(quick, weights=str(tmp_path / "weights.pth")) if which == "weights" else quick
        found = data.find(["phantom"], None, 28, seed=seed) if which == "data" else FOUND
        return resume.begin(args, settings, found, provenance.describe(args, settings, found), RUN)

    with pytest.raises(KeyboardInterrupt), begun(1, "here", False):
        raise KeyboardInterrupt
    assert f"{which} MD5 " in refused(begun(2, "here", True))
    with begun(1, "there", True):
        pass


def test_other_code_or_machine_is_a_warning(interrupted, quick, monkeypatch, capsys):
    monkeypatch.setattr(provenance, "cpu_name", lambda: "another processor")
    monkeypatch.setattr(provenance, "command", lambda *words: "another commit")
    with begin(interrupted, quick, resume=True):
        assert "the run began with other commit" in (err := capsys.readouterr().err) and "cpu" in err


@pytest.mark.parametrize("text", ["{", "{}", '{"config": 3, "provenance": {}}'])
def test_a_damaged_description_is_refused(interrupted, quick, text):
    (interrupted / ".breastmnist/partial/described.json").write_text(text)
    assert "described.json" in refused(begin(interrupted, quick, resume=True))


def test_a_run_replaces_what_is_listed_of_an_earlier_one_and_nothing_else(tmp_path, quick):
    earlier_run(tmp_path)
    complete(tmp_path, quick)
    assert content(tmp_path).keys() == RUN | OWN
    assert outputs.listed(tmp_path).keys() == RUN


def killed_at(step: int, partial: Path) -> bool:
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
                write(staged, RUN, "new")
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.slow
def test_killed_at_any_step_no_reader_gets_files_of_two_runs_and_the_next_begin_mends_it(tmp_path, quick):
    states, alive = [], False
    while not alive:
        out = tmp_path / str(len(states))
        with pytest.raises(KeyboardInterrupt), begin(out, quick) as partial:
            write(partial, ["model.pt", "more.pt"], "so far")
            earlier_run(out)
            alive = not killed_at(len(states), partial)
            raise KeyboardInterrupt
        before = content(out)
        with pytest.raises(UserError) as caught:  # each file of the test's runs is damaged
            folders.load(out)
        between = "interrupted while it replaced" in str(caught.value)
        if not between:  # one run or the other, whole
            assert {text for name, text in before.items() if name not in OWN} == {before["model.pt"]}
        resume.settle(out)
        after = content(out)
        assert {after[name] for name in RUN} == {"new" if between else before["model.pt"]}
        assert {after[name] for name in OWN} == {"own"}
        states.append("between" if between else after["model.pt"])
        old = states[-1] == "old"
        assert after.keys() == (RUN | OWN | STALE if old else RUN | OWN)
        assert outputs.listed(out).keys() == (RUN | STALE if old else RUN)
        with begin(out, quick, resume=old) as partial:  # what is left of the work is no hindrance
            assert content(partial).keys() == {"described.json"} | ({"model.pt", "more.pt"} if old else set())
    assert len(states) > 15 and list(dict.fromkeys(states)) == ["old", "between", "new"]


def test_a_step_cut_off_is_completed_by_the_next_begin(tmp_path, quick):
    with begin(tmp_path, quick) as partial:
        earlier_run(tmp_path)
        assert killed_at(8, partial) and (tmp_path / ".breastmnist/finished").exists()
    with begin(tmp_path, quick) as partial:
        assert content(tmp_path).keys() == RUN | OWN and outputs.listed(tmp_path).keys() == RUN
        assert content(partial).keys() == {"described.json"}


@pytest.mark.parametrize("step", ["mkdir", "rename"])
def test_a_full_disk_is_one_line_and_leaves_the_earlier_run_and_the_checkpoints(interrupted, quick, monkeypatch, step):
    def fail(*given, **more):
        raise OSError(28, "No space left on device")

    def resumed(change) -> None:
        with begin(interrupted, quick, resume=True) as partial:
            assert (partial / "model.pt").read_text() == "so far"
            monkeypatch.setattr(os, step, change)
            with resume.finish(partial) as staged:
                write(staged, RUN, "new")

    earlier_run(interrupted)
    original = getattr(os, step)
    assert "cannot be written (No space left on device)" in refusal(resumed, fail)
    assert {text for name, text in content(interrupted).items() if name not in OWN} == {"old"}
    resumed(original)
    assert {text for name, text in content(interrupted).items() if name not in OWN} == {"new"}


def test_a_file_that_the_user_puts_there_meanwhile_is_kept_and_so_are_the_checkpoints(interrupted, quick):
    def resumed() -> None:
        with begin(interrupted, quick, resume=True) as partial, resume.finish(partial) as staged:
            write(staged, RUN, "new")
            write(interrupted, ["metrics.json"], "mine")

    assert "metrics.json: would be overwritten" in refusal(resumed)
    assert content(interrupted) == {"metrics.json": "mine"} and not outputs.listed(interrupted)
    (interrupted / "metrics.json").rename(interrupted / "mine.json")
    with begin(interrupted, quick, resume=True) as partial:
        assert (partial / "model.pt").read_text() == "so far"


# one run at a time


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path):
    with pytest.raises(KeyboardInterrupt), resume.locked(tmp_path):
        message = refused(resume.locked(tmp_path))
        assert f"--out {tmp_path}: another run" in message and f"(pid {os.getpid()} on {HOST}). Wait" in message
        assert refused(resume.locked(tmp_path)) == message  # being refused takes nothing away
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []  # given back


@pytest.mark.parametrize("left", [[], ["lock"], ["lock", "holder"]])
def test_what_a_killed_holder_left_is_taken_over(tmp_path, left):
    """Also that of one who was killed before it wrote its name."""
    (work := tmp_path / ".breastmnist").mkdir()
    write(work, left, f"pid 12 on {HOST}\n")
    with resume.locked(tmp_path):
        assert (work / "holder").read_text(encoding="utf-8") == f"pid {os.getpid()} on {HOST}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_work_that_is_the_users_is_refused_and_kept(tmp_path):
    (work := tmp_path / ".breastmnist").mkdir()
    write(work, ["breastmnist.npz"], "mine")
    assert f"{work}: was not made by this program. Choose another folder" in refused(resume.locked(tmp_path))
    assert content(work) == {"breastmnist.npz": "mine"}


def test_a_folder_that_cannot_be_locked(tmp_path, monkeypatch):
    def unsupported(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    assert "cannot be written (Operation not supported)" in refused(resume.locked(tmp_path))


@pytest.mark.parametrize("run_before", [True, False])
def test_a_new_run_replaces_the_exports_of_an_earlier_run_and_no_others(tmp_path, run_before):
    """A folder of exports alone holds no run: its files are of runs elsewhere."""
    finished, partial = (tmp_path / ".breastmnist" / name for name in ("finished", "partial"))
    for folder in (finished, partial):
        folder.mkdir(parents=True)
    (finished / "metrics.json").write_text("new")
    scripts = {"a.onnx": "export.py"} | ({"model.pt": "train.py"} if run_before else {})
    for name in scripts:
        (tmp_path / name).write_text("old")
    files.write_json(tmp_path / outputs.LIST, {"format": outputs.FORMAT, "files": scripts})
    resume.settle(tmp_path)
    assert (tmp_path / "a.onnx").exists() is not run_before and not (tmp_path / "model.pt").exists()
    assert (tmp_path / "metrics.json").read_text() == "new"
