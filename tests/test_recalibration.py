"""What a hospital's own images make of a file, and whether calibrate.py's promises are kept."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import REPO, one_line, read_csv, read_json, refusal
from PIL import Image

from common import calibration, data, phantom, recalibration
from common.calibration import sigmoid
from common.deploy import onnxfile, recalibrate
from common.recalibration import Unit
from common.thresholds import Rule

RULE = Rule("sensitivity", 0.95)


def drawn(seed: int, n: int, shift: float = 1.0, spread: float = 1.5) -> Unit:
    """Cases whose logits are `spread` times too large and too low by `shift`; each its own group."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.uint8)
    true = rng.normal(np.where(labels, 1.1, -1.1), 1.4)
    return Unit(labels, spread * (true - shift), np.arange(n))


@pytest.mark.parametrize("kind", ["sensitivity", "specificity", "flag-rate"])
def test_the_promised_intervals_hold_the_rates_on_new_cases(kind):
    rule, new = Rule(kind, 0.4 if kind == "flag-rate" else 0.9), drawn(99, 20_000)
    held, widths = {"recall": 0, "specificity": 0}, []
    for seed in range(200):
        part = drawn(seed, 120)
        threshold = rule.threshold(part.labels, sigmoid(part.logits))
        promised = recalibration.rates(part, sigmoid(part.logits), threshold, rule)
        flagged = sigmoid(new.logits) >= threshold
        for name, label in (("recall", 1), ("specificity", 0)):
            low, high = promised[f"{name}_ci95"]
            widths.append(high - low)
            held[name] += low <= np.mean(flagged[new.labels == label] == bool(label)) <= high
    assert all(0.92 <= count / 200 for count in held.values()), held
    assert np.mean(widths) < 0.3  # of about 40 malignant images; an interval of [0, 1] would hold every rate


def test_the_fit_mends_what_was_off_and_says_so_by_cross_validation():
    cases = drawn(0, 400, shift=2.0)
    fitted = recalibration.fit(cases, cases, 0.5, RULE)
    assert abs(fitted.before["calibration_in_the_large"]) > 0.1 > abs(fitted.after["calibration_in_the_large"])
    assert fitted.after["brier"] < fitted.before["brier"]
    new = drawn(1, 20_000, shift=2.0)
    found = calibration.calibrated(new.logits, fitted.temperature, fitted.offset)
    assert calibration.brier(new.labels, found) == pytest.approx(fitted.after["brier"], abs=0.02)


def test_cases_in_groups_widen_the_intervals_and_too_few_are_refused():
    cases = drawn(2, 200)
    pairs = Unit(np.repeat(cases.labels, 2), np.repeat(cases.logits, 2), np.repeat(cases.groups, 2))
    found = [recalibration.rates(unit, sigmoid(unit.logits), 0.5, None) for unit in (cases, pairs)]
    widths = [np.ptp(one["recall_ci95"]) for one in found]
    assert widths[0] == pytest.approx(widths[1], rel=0.01)  # the same images twice tell nothing new
    few = Unit(cases.labels[:20], cases.logits[:20], np.zeros(20, int))
    assert "at least 10 of each" in refusal(recalibration.require_enough, few, "image", "Seen.")


def test_prevalence_moves_the_offset_as_bayes_does():
    offset = recalibration.prevalence_offset(0.1, 0.3)
    assert sigmoid(0.4 + offset) == pytest.approx(
        sigmoid(0.4) * 0.1 / 0.3 / (sigmoid(0.4) * 0.1 / 0.3 + (1 - sigmoid(0.4)) * 0.9 / 0.7)
    )


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """120 phantoms of 60 patients as image files, in a table."""
    folder = tmp_path_factory.mktemp("scans")
    pixels, labels = phantom.generate(120, 60, seed=5, malignant_share=0.4)
    rows = ["image,label,patient"]
    for i, (image, label) in enumerate(zip(pixels, labels)):
        Image.fromarray(image).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{'malignant' if label else 'benign'},{i // 2}")
    (folder / "images.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder / "images.csv"


def answers(path, scans) -> dict[str, np.ndarray]:
    """What a file says of the scans, without this project's code."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    images = [np.asarray(Image.open(scans.parent / f"{i}.png"))[None] for i in range(120)]
    found = zip(*(session.run(None, {"image": image}) for image in images))
    return {name: np.concatenate(values) for name, values in zip(names, found)}


@pytest.mark.parametrize("rule", [["--sensitivity", "0.9"], ["--specificity", "0.8"], ["--flag-rate", "0.3"]])
def test_calibrate_writes_the_same_network_with_another_calibration(rule, onnx_model, scans, runs, tmp_path):
    out, _ = runs(
        "calibrate.py", onnx_model.path, "--data", scans, *rule, "--out", tmp_path / "mine.onnx", "--threads", "1"
    )
    before, after = answers(onnx_model.path, scans), answers(tmp_path / "mine.onnx", scans)
    mine, stored = onnxfile.load(tmp_path / "mine.onnx", 1), read_json(tmp_path / "mine.calibration.json")
    kept = stored["calibration"]
    temperature = kept["temperature"] / 1.5
    offset = kept["offset"] - 0.1 / temperature
    np.testing.assert_allclose(after["logit"], before["logit"] / temperature + offset, atol=1e-4)
    np.testing.assert_allclose(after["probability"], sigmoid(after["logit"].astype(float)), atol=1e-6)
    np.testing.assert_allclose(after["evidence"].mean((1, 2)), after["logit"], atol=1e-4)
    assert after["typicality"].min() >= 1 / 121 - 1e-6 and np.median(after["typicality"]) == pytest.approx(
        0.5, abs=0.02
    )
    labels = data.load(data.find([str(scans)], None, 28, undivided="all"), "all").labels.astype(bool)
    flagged = after["probability"] >= mine.calibration.threshold
    reached = {"sensitivity": flagged[labels], "specificity": ~flagged[~labels], "flag-rate": flagged}
    kind, value = rule[0][2:], float(rule[1])
    assert reached[kind].mean() <= value if kind == "flag-rate" else reached[kind].mean() >= value
    assert f"{value} on 120 images of images" in mine.calibration.threshold_rule
    assert mine.calibration.achieved_together["recall"] == pytest.approx(stored["after"]["recall"])
    assert kept["found_threshold"] == onnx_model.calibration.found_threshold
    assert (after["typicality"] >= mine.typicality_threshold).all() and "gives no call" not in out
    about = mine.session.get_modelmeta().custom_metadata_map
    for said in (about["typicality_rule"], about["outputs"]):
        assert "images that fitted the file" in said and "training images" not in said
    assert len(mine.chosen_on) == len(onnx_model.chosen_on) + 120 and "expected on new images" in out
    assert (tmp_path / "mine.calibration.png").exists() and mine.data == onnx_model.data


def test_evaluate_says_that_these_images_chose_the_threshold(onnx_model, scans, runs, tmp_path):
    runs("calibrate.py", onnx_model.path, "--data", scans, "--out", tmp_path / "mine.onnx", "--threads", "1")
    runs("evaluate.py", tmp_path / "mine.onnx", "--data", scans, "--bootstrap", "100", "--threads", "1")
    results = read_json(tmp_path / "mine" / "evaluation_all.json")["results"]
    assert not any(entry["held_out"] for entry in results if entry["subset"] == "all")
    assert {row["seen"] for row in read_csv(tmp_path / "mine" / "predictions_all.csv")} == {"chose"}


def test_patients_and_prevalence_and_what_is_refused(onnx_model, scans, runs, tmp_path):
    calibrate = ["calibrate.py", onnx_model.path, "--threads", "1", "--out", tmp_path / "mine.onnx"]
    out, _ = runs(*calibrate, "--data", scans, "--unit", "patient")
    chosen_on = onnxfile.load(tmp_path / "mine.onnx", 1).calibration.chosen_on
    share = data.load(data.find([str(scans)], None, 28, undivided="all"), "all").labels.mean()
    assert "computed for new patients of this kind" in runs("predict.py", tmp_path / "mine.onnx", scans.parent)[0]
    assert "60 patients" in out and chosen_on["n"] == 60 and chosen_on["prevalence"] == share  # of images
    out, _ = runs(*calibrate, "--prevalence", "0.1")
    moved, own = onnxfile.load(tmp_path / "mine.onnx", 1), onnx_model.calibration
    assert moved.calibration.offset - own.offset == pytest.approx(recalibration.prevalence_offset(0.1, 4 / 12))
    np.testing.assert_array_equal(
        answers(moved.path, scans)["probability"] >= moved.calibration.threshold,
        answers(onnx_model.path, scans)["probability"] >= own.threshold,
    )
    assert not any(key.startswith("precision") for rates in moved.calibration.achieved for key in rates)
    assert not list(tmp_path.glob("mine.calibration.*"))  # of the earlier calibration on images
    again = tmp_path / "again.onnx"
    out, _ = runs("calibrate.py", moved.path, "--threads", "1", "--out", again, "--prevalence", "0.1")
    assert "offset +0.000: the share of malignant images is 0.100 instead of 0.100" in out
    assert onnxfile.load(again, 1).calibration.offset == pytest.approx(moved.calibration.offset)
    lines = scans.read_text(encoding="utf-8").splitlines()
    (scans.parent / "few.csv").write_text("\n".join(lines[:20]), encoding="utf-8")
    (table := tmp_path / "elsewhere.csv").write_text(
        "\n".join([lines[0], *(f"{scans.parent}/{line}" for line in lines[1:])])
    )
    for words, cause in (
        (["--data", scans.parent / "few.csv"], "too few"),
        ([], "give --data"),
        (["--data", table, "--out", scans.parent / "mine.onnx"], "where images are read"),
        (["--data", scans, "--prevalence", "0.1"], "give --data"),
        (["--prevalence", "0.1", "--specificity", "0.9"], "--specificity, --flag-rate and --unit need --data"),
        (["--prevalence", "0.1", "--unit", "patient"], "--specificity, --flag-rate and --unit need --data"),
        (["--data", scans, scans.parent / "few.csv"], "are also in another data set"),
        (["--data", scans, "--sensitivity", "0.9", "--flag-rate", "0.1"], "give only one of"),
    ):
        _, err = runs(*calibrate, *words, status=2)
        assert cause in one_line(err)


def test_calibrate_says_what_the_new_file_assumes(lesion_model, scans, runs, tmp_path):
    first, *rows = scans.read_text(encoding="utf-8").splitlines()
    columns = "split,hospital,x,y,width,height"
    placed = [f"{row},{'test' if i > 50 else 'val'},{'ab'[i % 2]},10,10,30,30" for i, row in enumerate(rows[:90])]
    (table := scans.parent / "boxed.csv").write_text("\n".join([f"{first},{columns}", *placed]), encoding="utf-8")
    words = "calibrate.py", lesion_model.path, "--data", table, "--out", tmp_path / "mine.onnx", "--threads", "1"
    out, err = runs(*words)
    assert f"{tmp_path / 'mine.onnx'} --prevalence SHARE" in out and "is replaced" not in err
    assert "The boxes are not used" in out and "The 2 hospitals share one threshold" in out
    assert "All splits are used, also test" in out
    images = [np.asarray(Image.open(scans.parent / f"{i}.png"))[None] for i in range(90)]
    typicality, found = (
        np.concatenate(values) for values in zip(*(lesion_model.run(["typicality", "found"], i) for i in images))
    )
    own = lesion_model.calibration
    without = (typicality < lesion_model.typicality_threshold) | (found < own.found_threshold)
    assert (f"predict.py gives no call for {without.sum()} of 90 images" in out) == without.any()
    assert f"note: {tmp_path / 'mine.onnx'} is replaced" in runs(*words)[1]


def test_a_file_that_is_calibrated_on_phantoms_says_so(onnx_model, runs, tmp_path):
    out, _ = runs("calibrate.py", onnx_model.path, "--data", "phantom", "--threads", "1", "--out", tmp_path / "p.onnx")
    assert "PHANTOM data" in out.splitlines()[0]
    assert read_json(tmp_path / "p.calibration.json")["synthetic"].startswith("PHANTOM data")


def test_a_rate_that_is_undefined_is_null_in_the_file_as_json_has_no_nan(onnx_model):
    model = onnx.load(onnx_model.path)
    chosen_on = {"hospitals": ["own"], "n": 12}
    undefined = calibration.Calibration(chosen_on=chosen_on, achieved=[{"recall": float("nan")}])
    recalibrate.describe(model, undefined, None)
    (achieved,) = (entry.value for entry in model.metadata_props if entry.key == "achieved")
    assert achieved == '[{"recall": null}]'


def test_calibrate_needs_no_torch(lesion_model, scans, tmp_path):
    words = ["calibrate.py", str(lesion_model.path), "--data", str(scans), "--out", str(tmp_path / "mine.onnx")]
    code = "import sys; sys.path.insert(0, '.'); sys.modules['torch'] = None\n"
    code += f"sys.argv = {words}; import calibrate; calibrate.flags.run(calibrate.main)"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)
    assert (tmp_path / "mine.onnx").is_file()
