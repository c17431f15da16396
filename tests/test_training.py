import copy
import dataclasses
import math
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import refusal
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from common import augment, lesion, looks, loss, phantom, training
from common.boxes import holds_centre, overlap
from common.calibration import sigmoid
from common.data import Images, of_arrays
from common.delimited import BOX
from common.model import BreastResNet, Predictor, explain, predict
from common.seed import set_seed
from common.settings import Settings

CPU = torch.device("cpu")


def fit(train, val, settings, seed=0, checkpoint=None, **changed):
    """changed: settings, in the place of the given ones."""
    return training.fit(train, val, dataclasses.replace(settings, **changed), seed, CPU, checkpoint=checkpoint)


def examples(images: Images) -> training.Examples:
    return training.Examples(images.pixels, images.labels)


def weights(model) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def outcome(result) -> tuple:
    """All of a fit but the time that it took."""
    history = [{name: value for name, value in entry.items() if name != "seconds"} for entry in result.history]
    return weights(result.model), result.best_epoch, history


@pytest.fixture
def tiny(phantoms) -> Images:
    return phantoms[:16]


@pytest.fixture
def seen(monkeypatch) -> list:
    """What the network is shown: a batch of float images for each step."""
    batches, original = [], augment.mixup

    def mixup(parts, *rest):
        batches.append(parts[0][:, 0])
        return original(parts, *rest)

    monkeypatch.setattr(augment, "mixup", mixup)
    return batches


def script_validation(monkeypatch, losses) -> list[dict]:
    """Let `validate` answer with the given losses in turn; returns the weights that it was shown, filled as it is
    called."""
    shown, answers = [], iter(losses)

    def validate(model, val, settings):
        shown.append(weights(model))
        return {"val_loss": next(answers), "val_accuracy": 0.5, "val_auc": 0.5}

    monkeypatch.setattr(training, "validate", validate)
    return shown


def test_training_lowers_the_loss_and_finds_what_it_trains_on(phantoms, quick):
    result = fit(phantoms[:24], None, quick, epochs=6, augment=False, mixup=0, lr=1e-3, ema=0.0, batch_size=8)
    losses = [entry["train_loss"] for entry in result.history]
    assert losses[-1] < 0.5 * losses[0] and losses[-1] < 0.3
    measured = training.validate(result.model, examples(phantoms[:24]), quick)
    assert measured["val_auc"] > 0.95 and measured["val_accuracy"] > 0.9


def test_history_has_an_entry_an_epoch_and_looking_at_val_does_not_change_it(tiny, quick):
    changed = {"epochs": 4, "lr": 0.01, "warmup": 0.5, "batch_size": 8}
    with_val, without = (fit(tiny, val, quick, **changed).history for val in (tiny, None))
    columns = ["epoch", "lr", "train_loss", "val_loss", "val_accuracy", "val_auc", "seconds"]
    assert [entry["epoch"] for entry in with_val] == [1, 2, 3, 4]
    rates = [0.01 * training.learning_rate(step, 8, 0.5) for step in (0, 2, 4, 6)]  # two steps an epoch
    assert [entry["lr"] for entry in with_val] == pytest.approx(rates)
    assert all(list(entry) == columns for entry in with_val) and "val_loss" not in without[0]
    assert [entry["train_loss"] for entry in with_val] == [entry["train_loss"] for entry in without]


@pytest.mark.parametrize(
    "patience, losses, best, epochs",
    [
        pytest.param(1, [5, 4, 4.1], 2, 3, id="first without a lower loss"),
        pytest.param(2, [5, 6, 4, 4.5, 4.2], 3, 5, id="a lower loss starts the count anew"),
        pytest.param(2, [5, 5, 5], 1, 3, id="an equal loss is not lower"),
        pytest.param(9, [5, 4, 6, 3, 7, 8], 4, 6, id="to the end"),
    ],
)
def test_patience_keeps_a_copy_of_the_best_epoch_s_weights(tiny, quick, monkeypatch, patience, losses, best, epochs):
    shown = script_validation(monkeypatch, losses)
    result = fit(tiny, tiny, quick, epochs=6, patience=patience, batch_size=8)
    assert (result.best_epoch, len(result.history)) == (best, epochs)
    assert [i + 1 for i, one in enumerate(shown) if one == weights(result.model)] == [best]  # training went on


@pytest.mark.parametrize("patience, has_val", [(0, True), (0, False), (5, False)])
def test_without_selection_the_last_epoch_is_kept_and_val_not_looked_at(tiny, quick, monkeypatch, patience, has_val):
    shown = script_validation(monkeypatch, [3, 2, 1])
    last = fit(tiny, tiny, quick, epochs=3, patience=5)
    result = fit(tiny, tiny if has_val else None, quick, epochs=3, patience=patience)
    assert result.best_epoch == len(result.history) == len(shown) == 3
    assert weights(result.model) == weights(last.model)


@pytest.mark.filterwarnings("ignore:invalid value")  # of a loss that is no number
def test_a_loss_that_is_no_number_ends_the_training(tiny, quick, monkeypatch):
    with pytest.raises(training.Diverged, match="Lower --lr"):
        fit(tiny, tiny, quick, lr=1e30)
    script_validation(monkeypatch, [5, math.nan])
    with pytest.raises(training.Diverged):
        fit(tiny, tiny, quick)


def test_an_epoch_shows_every_image_once(tiny, quick, seen):
    fit(tiny, None, quick, epochs=1, batch_size=6, augment=False)
    assert [len(batch) for batch in seen] == [6, 6, 4]
    shown = (torch.cat(seen) * 255).round().byte().numpy()
    assert sorted(image.tobytes() for image in shown) == sorted(image.tobytes() for image in tiny.pixels)
    assert not np.array_equal(shown, tiny.pixels)  # shuffled


def test_the_seed_and_every_setting_change_the_model(tiny, quick, imagenet_trunk):
    changes = {"augment": False, "mixup": 0.0, "class_weights": "balanced", "loss": "focal", "label_smoothing": 0.2,
               "wd": 5.0, "lr": 1e-3, "ema": 0.5, "warmup": 0.9, "batch_size": 4, "weights": str(imagenet_trunk),
               "zoom": 0.5, "scanners": "on", "seed": 1}  # fmt: skip
    results = [fit(tiny[:8], None, quick), *(fit(tiny[:8], None, quick, **{name: v}) for name, v in changes.items())]
    assert len({weights(result.model)["trunk.fc.weight"] for result in results}) == len(results)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_kept_weights_are_the_exponential_moving_average_buffers_included(tiny, quick, monkeypatch, ema):
    steps, update = [], training.AveragedModel.update_parameters

    def recorded(average, model):
        steps.append(copy.deepcopy(model.state_dict()))
        update(average, model)

    monkeypatch.setattr(training.AveragedModel, "update_parameters", recorded)
    kept = fit(tiny, None, quick, epochs=1, ema=ema, batch_size=4).model.state_dict()
    assert len(steps) == 4
    for name, averaged in kept.items():
        if averaged.is_floating_point():
            expected = steps[0][name]
            for step in steps[1:]:
                expected = ema * expected + (1 - ema) * step[name]
            torch.testing.assert_close(averaged, expected, rtol=1e-4, atol=1e-6)


# checkpoints


@contextmanager
def interrupted(monkeypatch, batches: int):
    """Ctrl-C comes after so many batches of a training."""
    original, left = loss.training_loss, iter(range(batches))

    def counted(*given):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loss, "training_loss", counted)
        yield


SLOW = [pytest.param(batches, has_val, marks=pytest.mark.slow) for batches in (0, 1, 6, 8) for has_val in (True, False)]


@pytest.mark.parametrize("batches, has_val", [(3, True), (7, False), *SLOW])
def test_an_interrupted_training_ends_with_the_same_bits(tiny, quick, tmp_path, monkeypatch, batches, has_val):
    """Interrupted before, within and between epochs of three batches, and in the last one; whatever chance was before,
    the seed decides."""
    changed = {"epochs": 3, "batch_size": 6, "patience": 5 if has_val else 0}
    val, file = tiny if has_val else None, tmp_path / "checkpoint.pt"
    whole = fit(tiny, val, quick, **changed)
    with interrupted(monkeypatch, batches):
        fit(tiny, val, quick, checkpoint=file, **changed)
    assert file.exists() == (batches >= 3)
    torch.manual_seed(99)
    assert outcome(fit(tiny, val, quick, checkpoint=file, **changed)) == outcome(whole)


def test_a_finished_training_is_not_repeated(tiny, quick, tmp_path, monkeypatch, seen):
    script_validation(monkeypatch, [5, 4, 4.5, 4.2])
    first, again = (fit(tiny, tiny, quick, checkpoint=tmp_path / "file", epochs=9, patience=2) for _ in range(2))
    assert (first.best_epoch, len(first.history), len(seen)) == (2, 4, 4)  # ended by patience
    assert torch.load(tmp_path / "file")["state"] is None
    assert outcome(again) == outcome(first) and again.history == first.history


@pytest.mark.parametrize("change", [b"PK cut off", {"best": {}}, {"state": {}}, {"state": 3}, {"history": None}])
def test_a_damaged_checkpoint_is_one_line(tiny, quick, tmp_path, change):
    file = tmp_path / "checkpoint.pt"
    fit(tiny[:4], None, quick, checkpoint=file, epochs=1)
    if isinstance(change, bytes):
        file.write_bytes(change)
    else:
        torch.save(torch.load(file) | change, file)
    message = refusal(lambda: fit(tiny, None, quick, checkpoint=file))
    assert str(file) in message and "Remove --resume to start again." in message


# the view lesion


@pytest.fixture
def boxed() -> Images:
    """24 phantoms, of which three quarters have a box; those of the second hospital are all malignant."""
    pixels, labels, boxes = phantom.generate_with_boxes(24, 28, seed=4, malignant_share=0.5)
    images = of_arrays(pixels, labels, "train", "a", **dict(zip(BOX, boxes.T)))
    images.table.loc[images.labels == 1, "hospital"] = np.repeat(["a", "b"], 6)
    images.table.loc[images.hospitals == "b", BOX] = np.where(np.arange(6)[:, None] % 2, np.nan, [8.0, 9, 10, 6])
    return images


@pytest.fixture
def looking(quick) -> Settings:
    return dataclasses.replace(quick, view="lesion")


def test_the_network_of_frames_is_trained_first_and_that_of_windows_where_it_finds_lesions(boxed, looking, monkeypatch):
    trained, fit_network = [], training.fit_network

    def recorded(train, val, *given):
        trained.append((train, val, fit_network(train, val, *given)))
        return trained[-1][2]

    monkeypatch.setattr(training, "fit_network", recorded)
    result = fit(boxed, boxed, looking)
    (frames, chooser, first), (windows, found, second) = trained
    assert np.array_equal(frames.pixels, boxed.pixels) and np.array_equal(frames.labels, boxed.labels)
    assert frames.lesions.annotated.tolist() == boxed.annotated.tolist() and 0 < sum(~boxed.annotated) < 6
    np.testing.assert_allclose(frames.lesions.boxes, boxed.boxes / 28, rtol=1e-6)
    finder = Predictor([first.model], looking.mirror)
    given, sought = (looks.look(finder, boxed, given).images.windows for given in (True, False))
    assert np.array_equal(windows.pixels, given) and np.array_equal(found.pixels, sought)
    assert windows.lesions is found.lesions is None and not np.array_equal(given, sought)
    assert weights(result.model.frame) == weights(first.model) and weights(result.model.window) == weights(second.model)
    expected = lesion.fit_box(looks.look(finder, boxed, True).extents[boxed.boxed], boxed.labels[boxed.boxed])
    assert weights(expected) == weights(result.model.box)
    assert result.best_epoch == second.best_epoch
    assert [entry["network"] for entry in result.history] == ["frame"] * 2 + ["window"] * 2
    assert result.history[2:] == [{"network": "window"} | entry for entry in second.history]


def test_a_map_is_of_its_box_and_of_nothing_that_is_not_known(boxed):
    frames = training.frames_of(boxed)
    heat = frames.lesions.heat(torch.arange(24), 28)
    for one, known, box in zip(heat, boxed.annotated, frames.lesions.boxes):
        assert torch.equal(one.isnan(), torch.full((28, 28), not known))
        assert not known or one.mean() == pytest.approx(float(np.pi / 4 * box[2:].prod().nan_to_num(0)), abs=0.02)
    assert torch.equal(frames.lesions.heat(torch.tensor([3]), 28), heat[3:4])


def test_a_network_of_frames_learns_to_find(quick):
    pixels, labels, boxes = phantom.generate_with_boxes(48, 28, seed=4, malignant_share=1)
    images = of_arrays(pixels, labels, "train", "a", **dict(zip(BOX, boxes.T)))
    settings = dataclasses.replace(quick, lr=3e-3, ema=0.0, epochs=12, batch_size=8, augment=False, mirror=False)
    fitted = training.fit_network(training.frames_of(images), None, settings, 0, CPU, "test")
    found, _ = looks.find_lesions(Predictor([fitted.model], False), images)
    assert np.mean(holds_centre(found, boxes)) > 0.8 and np.median(overlap(found, boxes)) > 0.4
    measured = training.validate(fitted.model, training.frames_of(images), settings)
    logits = predict(Predictor([fitted.model], False), images.pixels)
    plain = -np.log(sigmoid(logits)).mean()
    heat = explain(Predictor([fitted.model], False), images.pixels).heat
    truth = training.frames_of(images).lesions.heat(torch.arange(48), 28)
    assert measured["val_loss"] == pytest.approx(
        plain + float(lesion.heat_loss(heat.clamp(1e-6, 1 - 1e-6).logit(), truth)), rel=1e-3
    )


def test_an_interrupted_training_of_two_networks_ends_with_the_same_bits(boxed, looking, tmp_path, monkeypatch):
    whole = fit(boxed, boxed, looking)
    with interrupted(monkeypatch, batches=6):
        fit(boxed, boxed, looking, checkpoint=tmp_path / "model.pt")
    assert {path.name for path in tmp_path.iterdir()} == {"model_frame.pt", "model_window.pt"}
    assert outcome(fit(boxed, boxed, looking, checkpoint=tmp_path / "model.pt")) == outcome(whole)


def test_what_teaches_the_finder_is_said_and_without_a_box_nothing_is_trained(boxed, tiny, looking, capsys):
    fit(boxed, None, looking, epochs=1)
    given, unknown = sum(boxed.boxed), sum(~boxed.annotated)
    said = f"train: {given} windows around given boxes, {24 - given} around found ones; {unknown} images do not teach"
    assert said in capsys.readouterr().err
    assert "--view lesion: no training image has a box" in refusal(fit, tiny, None, looking)


# schedule, optimiser, validation


@pytest.mark.parametrize("warmup, steps", [(0.2, 100), (0.5, 60), (0.1, 7), (0, 10), (1, 10)])
def test_rate_climbs_peaks_and_falls_to_zero(warmup, steps):
    rates = [training.learning_rate(step, steps, warmup) for step in range(steps + 1)]
    peak = math.ceil(warmup * steps)
    assert rates[0] == pytest.approx(1 / (warmup * steps + 1)) and max(rates) == rates[peak] <= 1 and rates[peak] > 0.9
    assert rates[steps] == pytest.approx(0, abs=1e-12) or warmup == 1
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 0).all()
    assert rates[(steps + peak) // 2] == pytest.approx(0.5, abs=0.2) or warmup == 1


def test_weight_decay_is_for_matrices_and_filters(quick):
    model = BreastResNet(28, 2)
    optimiser = training.make_optimiser(model, dataclasses.replace(quick, lr=0.1, wd=0.5))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert decay.keys() == set(names.values()) and all(group["lr"] == 0.1 for group in optimiser.param_groups)
    for name, value in decay.items():
        assert value == (0 if ".bn" in name or name.endswith("bias") or "downsample.1" in name else 0.5), name


@pytest.mark.parametrize("mirror", [True, False])
def test_validation_is_plain_cross_entropy_of_the_model_as_used(phantoms, quick, mirror):
    model = BreastResNet(28, 2).train()
    before = weights(model)
    measured = training.validate(model, examples(phantoms), dataclasses.replace(quick, mirror=mirror))
    assert weights(model) == before
    logits = predict(Predictor([model], mirror), phantoms.pixels)
    assert measured["val_loss"] == pytest.approx(log_loss(phantoms.labels, sigmoid(logits)), abs=1e-6)
    assert measured["val_accuracy"] == accuracy_score(phantoms.labels, logits > 0)
    assert measured["val_auc"] == pytest.approx(roc_auc_score(phantoms.labels, logits))


@pytest.mark.parametrize("able", [{"avx512_bf16": True}, {"amx_tile": True}, {"avx512_bf16": False}, {}])
def test_autocast_follows_the_setting_and_of_auto_the_processor(monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    for wanted, expected in {"auto": any(able.values()), "fp32": False, "bf16": True}.items():
        with training.autocast(CPU, wanted):
            assert torch.is_autocast_enabled("cpu") == expected
        assert training.precision(CPU, wanted) == ("bf16" if expected else "fp32")
    assert training.precision(torch.device("cuda"), "auto") == "bf16"


def test_set_seed_fixes_every_source_of_chance():
    def draw(seed: int) -> tuple:
        set_seed(seed, threads=1)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first, other, again = draw(7), draw(8), draw(7)
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)  # as other tests have it
    assert deterministic and torch.get_num_threads() == 1
    assert first == again and not set(other) & set(first)
