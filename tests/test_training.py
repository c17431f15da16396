import copy
import dataclasses
import math
import random

import numpy as np
import pytest
import torch

from common import loss, training
from common.data import Split
from common.errors import UserError
from common.model import BreastResNet
from common.seed import set_seed
from common.weights import initial_model

CPU = torch.device("cpu")


def fit(train, val, settings, seed=0, **more):
    return training.fit(train, val, settings, seed, CPU, **more)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: dict, two: dict) -> bool:
    return all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.fixture
def tiny(phantoms) -> Split:
    return phantoms[:16]


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
    settings = dataclasses.replace(quick, epochs=6, augment=False, mixup=0, lr=1e-3, ema=0.0, patience=0, batch_size=8)
    result = fit(phantoms[:24], None, settings)
    losses = [entry["train_loss"] for entry in result.history]
    assert losses[-1] < 0.5 * losses[0] and losses[-1] < 0.3
    measured = training.validate(result.model, phantoms[:24], settings)
    assert measured["val_auc"] > 0.95 and measured["val_accuracy"] > 0.9


def test_history_has_an_entry_an_epoch(tiny, quick):
    history = fit(tiny, tiny, quick).history
    columns = ["epoch", "lr", "train_loss", "val_loss", "val_accuracy", "val_auc", "seconds"]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert all(list(entry) == columns for entry in history)
    assert "val_loss" not in fit(tiny, None, quick).history[0]


def test_the_best_epoch_s_weights_are_copied(tiny, quick, monkeypatch):
    shown = script_validation(monkeypatch, [0.9, 0.5, 0.6, 0.7])
    result = fit(tiny, tiny, dataclasses.replace(quick, epochs=4, patience=3))
    assert result.best_epoch == 2 and len(shown) == 4
    assert equal(weights(result.model), shown[1])
    assert not equal(shown[1], shown[2]) and not equal(shown[1], shown[3])  # training went on


@pytest.mark.parametrize(
    "patience, losses, best, epochs",
    [
        pytest.param(1, [5, 4, 4.1], 2, 3, id="first without a lower loss"),
        pytest.param(2, [5, 6, 4, 4.5, 4.2], 3, 5, id="a lower loss starts the count anew"),
        pytest.param(2, [5, 5, 5], 1, 3, id="an equal loss is not lower"),
        pytest.param(9, [5, 4, 6, 3, 7, 8], 4, 6, id="to the end"),
    ],
)
def test_patience(tiny, quick, monkeypatch, patience, losses, best, epochs):
    shown = script_validation(monkeypatch, losses)
    move = lambda state, *_: state.average.module.trunk.fc.bias.data.add_(1).item()  # noqa: E731
    monkeypatch.setattr(training, "train_epoch", move)
    result = fit(tiny, tiny, dataclasses.replace(quick, epochs=6, patience=patience))
    assert (result.best_epoch, len(result.history)) == (best, epochs)
    assert equal(weights(result.model), shown[best - 1])


@pytest.mark.parametrize("patience, has_val", [(0, True), (0, False), (5, False)])
def test_without_selection_the_last_epoch_is_kept_and_val_not_looked_at(tiny, quick, monkeypatch, patience, has_val):
    shown = script_validation(monkeypatch, [])
    last, original = {}, training.train_epoch

    def train_epoch(state, *rest):
        mean = original(state, *rest)
        last.update(weights(state.average.module))
        return mean

    monkeypatch.setattr(training, "train_epoch", train_epoch)
    settings = dataclasses.replace(quick, epochs=3, patience=patience)
    result = fit(tiny, tiny if has_val else None, settings)
    assert result.best_epoch == 3 and len(result.history) == 3 and shown == []
    assert equal(weights(result.model), last)


def test_the_seed_alone_decides(tiny, quick):
    torch.manual_seed(5)
    first = fit(tiny, None, quick, seed=3)
    torch.manual_seed(6)
    again, other = fit(tiny, None, quick, seed=3), fit(tiny, None, quick, seed=4)
    assert equal(weights(first.model), weights(again.model))
    assert [entry["train_loss"] for entry in first.history] == [entry["train_loss"] for entry in again.history]
    assert not equal(weights(first.model), weights(other.model))


def test_looking_at_val_does_not_change_the_training(tiny, quick):
    with_val, without = (fit(tiny, val, quick) for val in (tiny, None))
    assert [entry["train_loss"] for entry in with_val.history] == [entry["train_loss"] for entry in without.history]


def test_a_validation_loss_that_is_no_number_ends_the_training(tiny, quick, monkeypatch):
    script_validation(monkeypatch, [5, math.nan])
    with pytest.raises(training.Diverged):
        fit(tiny, tiny, quick)


@pytest.mark.filterwarnings("ignore:invalid value")  # of a loss that is no number
def test_a_learning_rate_that_diverges_says_so(tiny, quick):
    with pytest.raises(training.Diverged, match="lower --lr"):
        fit(tiny, tiny, dataclasses.replace(quick, lr=1e30))


@pytest.mark.parametrize("stages, learning", [(0, "conv1 bn1 layer1 layer2 fc"), (1, "layer2 fc"), (4, "fc")])
def test_frozen_stages_keep_their_weights_and_go_on_averaging_batches(tiny, quick, stages, learning):
    settings = dataclasses.replace(quick, frozen_stages=stages, ema=0.0)
    torch.manual_seed(0)
    before, after = initial_model(28, settings), fit(tiny, None, settings).model
    pairs = zip(before.named_parameters(), after.parameters())
    assert {name.split(".")[1] for (name, old), new in pairs if not torch.equal(old, new)} == set(learning.split())
    assert not torch.equal(before.trunk.bn1.running_mean, after.trunk.bn1.running_mean)


# checkpoints


def numbers(result) -> list[dict]:
    """The history without the time that it took."""
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in result.history]


@pytest.mark.parametrize("has_val", [True, False])
@pytest.mark.parametrize("batches", [0, 1, 3, 6, 8])
def test_an_interrupted_training_ends_with_the_same_bits(tiny, quick, tmp_path, monkeypatch, batches, has_val):
    """Interrupted before, within and between epochs of three batches, and in the last one."""
    settings = dataclasses.replace(quick, epochs=3, batch_size=6, patience=5 if has_val else 0)
    val = tiny if has_val else None
    whole = fit(tiny, val, settings)
    file, update, left = tmp_path / "checkpoint.pt", training.update, iter(range(batches))

    def interrupted_update(state, batch_loss):
        if next(left, None) is None:
            raise KeyboardInterrupt
        update(state, batch_loss)

    monkeypatch.setattr(training, "update", interrupted_update)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny, val, settings, checkpoint=file)
    assert file.exists() == (batches >= 3)
    monkeypatch.setattr(training, "update", update)
    torch.manual_seed(99)
    resumed = fit(tiny, val, settings, checkpoint=file)
    assert equal(weights(resumed.model), weights(whole.model)) and resumed.best_epoch == whole.best_epoch
    assert numbers(resumed) == numbers(whole)


def test_the_average_and_the_random_state_go_on(tiny, quick, tmp_path):
    settings = dataclasses.replace(quick, ema=0.9)
    state, _, _ = one_epoch(tiny, settings)
    training.save_checkpoint(tmp_path / "checkpoint.pt", training.Fit(state.model, 1), state)
    expected, drawn = state.state_dict(), torch.rand(3)
    fresh = training.start(28, 4, settings, 5, CPU)
    training.restore(tmp_path / "checkpoint.pt", training.Fit(copy.deepcopy(state.model), 0), fresh)
    assert torch.equal(torch.rand(3), drawn)
    for part in ("model", "average"):
        assert equal(expected[part], fresh.state_dict()[part])
    assert torch.equal(expected["generator"], fresh.generator.get_state())
    assert fresh.schedule.get_last_lr() == state.schedule.get_last_lr()


def test_a_finished_training_is_not_repeated(tiny, quick, tmp_path, monkeypatch):
    script_validation(monkeypatch, [5, 4, 4.5, 4.2])
    settings, file = dataclasses.replace(quick, epochs=9, patience=2), tmp_path / "checkpoint.pt"
    first = fit(tiny, tiny, settings, checkpoint=file)
    assert (first.best_epoch, len(first.history)) == (2, 4)  # ended by patience
    assert torch.load(file)["state"] is None
    monkeypatch.setattr(training, "train_epoch", lambda *_: pytest.fail("trained again"))
    again = fit(tiny, tiny, settings, checkpoint=file)
    assert equal(weights(again.model), weights(first.model)) and again.history == first.history
    assert again.best_epoch == 2


@pytest.mark.parametrize("change", [b"", b"PK cut off", {"best": {}}, {"state": {}}, {"state": 3}, {"history": None}])
def test_a_damaged_checkpoint_is_one_line(tiny, quick, tmp_path, change):
    file = tmp_path / "checkpoint.pt"
    fit(tiny, None, dataclasses.replace(quick, epochs=1), checkpoint=file)
    if isinstance(change, bytes):
        file.write_bytes(change)
    else:
        torch.save(torch.load(file) | change, file)
    with pytest.raises(UserError, match="begin anew without --resume") as caught:
        fit(tiny, None, quick, checkpoint=file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("warmup, steps", [(0.2, 100), (0.5, 60), (0.1, 7)])
def test_rate_climbs_peaks_and_falls_to_zero(warmup, steps):
    rates = [training.learning_rate(step, steps, warmup) for step in range(steps + 1)]
    peak = math.ceil(warmup * steps)
    assert rates[0] == pytest.approx(1 / (warmup * steps + 1)) and rates[steps] == pytest.approx(0, abs=1e-12)
    assert max(rates) == rates[peak] <= 1 and rates[peak] > 0.9
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 0).all()
    assert training.learning_rate((steps + peak) // 2, steps, warmup) == pytest.approx(0.5, abs=0.2)


def test_rate_at_the_limits_of_warmup():
    assert training.learning_rate(0, 10, 0.0) == 1 and training.learning_rate(5, 10, 0.0) == pytest.approx(0.5)
    assert all(0 < training.learning_rate(step, 10, 1.0) < 1 for step in range(10))
    assert training.learning_rate(0, 1, 0.2) == pytest.approx(1 / 1.2)


def test_the_schedule_scales_the_peak(tiny, quick):
    settings = dataclasses.replace(quick, lr=0.01, epochs=4, warmup=0.5, batch_size=8)
    rates = [entry["lr"] for entry in fit(tiny, None, settings).history]  # at the first of two steps an epoch
    assert rates == pytest.approx([0.01 * training.learning_rate(step, 8, 0.5) for step in (0, 2, 4, 6)])


def test_weight_decay_is_for_matrices_and_filters(quick):
    model = BreastResNet(28, 2)
    optimiser = training.make_optimiser(model, dataclasses.replace(quick, lr=0.1, wd=0.5))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert decay.keys() == set(names.values()) and all(group["lr"] == 0.1 for group in optimiser.param_groups)
    for name, value in decay.items():
        assert value == (0 if ".bn" in name or name.endswith("bias") or "downsample.1" in name else 0.5), name


def one_epoch(train: Split, settings):
    """The state after an epoch over a split, its mean loss, and the weights after each step."""
    state = training.start(28, 2 * math.ceil(len(train) / settings.batch_size), settings, 0, CPU)
    steps, update = [], training.update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "update", lambda *both: (update(*both), steps.append(weights(both[0].model))))
        images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
        mean = training.train_epoch(state, images, labels, loss.class_weights(labels, settings.class_weights), settings)
    return state, mean, steps


def test_average_without_decay_is_the_last_weights(tiny, quick):
    state, _, _ = one_epoch(tiny, dataclasses.replace(quick, ema=0.0, batch_size=4))
    assert equal(weights(state.average.module), weights(state.model))


def test_average_is_the_exponential_moving_one_buffers_included(tiny, quick):
    state, _, steps = one_epoch(tiny, dataclasses.replace(quick, ema=0.9, batch_size=4))
    assert len(steps) == 4
    for name, averaged in state.average.module.state_dict().items():
        if averaged.is_floating_point():
            expected = steps[0][name]
            for step in steps[1:]:
                expected = 0.9 * expected + 0.1 * step[name]
            torch.testing.assert_close(averaged, expected, rtol=1e-4, atol=1e-6)


def test_an_epoch_shows_every_image_once(tiny, quick, monkeypatch):
    batches = []
    monkeypatch.setattr(training.augment, "augment", lambda images, *_: batches.append(images) or images)
    one_epoch(tiny, dataclasses.replace(quick, batch_size=6))
    assert [len(batch) for batch in batches] == [6, 6, 4]
    shown = (torch.cat(batches) * 255).round().byte().numpy()
    assert sorted(image.tobytes() for image in shown) == sorted(image.tobytes() for image in tiny.images)
    assert not np.array_equal(shown, tiny.images)  # shuffled


def test_settings_reach_the_loss(phantoms, quick, monkeypatch):
    calls, original = [], loss.weighted_loss
    monkeypatch.setattr(loss, "weighted_loss", lambda *given: calls.append(given) or original(*given))
    chosen = {"loss": "focal", "label_smoothing": 0.1, "class_weights": "balanced"}
    fit(phantoms, None, dataclasses.replace(quick, epochs=1, mixup=0, **chosen))
    _, targets, name, smoothing, class_weights = calls[0]
    malignant = int(phantoms.labels.sum())
    assert (name, smoothing) == ("focal", 0.1) and set(targets.tolist()) <= {0.0, 1.0}
    assert class_weights.tolist() == pytest.approx([48 / (2 * (48 - malignant)), 48 / (2 * malignant)])


def test_every_setting_changes_the_model(tiny, quick):
    changes = {"augment": False, "mixup": 0.0, "class_weights": "balanced", "loss": "focal", "label_smoothing": 0.2,
               "wd": 5.0, "lr": 1e-3, "ema": 0.5, "warmup": 0.9, "batch_size": 4}  # fmt: skip
    settings = [quick, *(dataclasses.replace(quick, **{name: value}) for name, value in changes.items())]
    models = [fit(tiny[:8], None, each).model for each in settings]
    assert len({model.trunk.fc.weight.detach().numpy().tobytes() for model in models}) == len(settings)


def test_starts_from_the_weights_of_a_file(imagenet_trunk, quick):
    state = training.start(28, 10, dataclasses.replace(quick, weights=str(imagenet_trunk)), 0, CPU)
    stored = torch.load(imagenet_trunk)["layer1.0.conv1.weight"]
    assert torch.equal(state.model.trunk.layer1[0].conv1.weight, stored)
    assert torch.equal(state.average.module.trunk.layer1[0].conv1.weight, stored)


def test_validation_is_plain_cross_entropy_of_the_model_as_used(phantoms, quick):
    model = BreastResNet(28, 2).train()
    before = copy.deepcopy(model.state_dict())
    as_used = {mirror: dataclasses.replace(quick, mirror=mirror) for mirror in ("on", "off")}
    measured = {mirror: training.validate(model, phantoms, settings) for mirror, settings in as_used.items()}
    model.eval()
    with torch.inference_mode():
        images = torch.from_numpy(phantoms.images).float() / 255
        logits = {"off": model(images), "on": (model(images) + model(images.flip(-1))) / 2}
    targets = torch.from_numpy(phantoms.labels).float()
    for mirror, values in measured.items():
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[mirror], targets)
        assert values["val_loss"] == pytest.approx(float(expected), abs=1e-6)
        assert values["val_accuracy"] == ((logits[mirror] > 0) == (targets > 0)).double().mean().item()
    assert equal(before, model.state_dict())


@pytest.mark.parametrize("native", [True, False])
def test_autocast_follows_the_processor(monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with training.autocast(CPU):
        assert torch.is_autocast_enabled("cpu") == native


def test_set_seed_fixes_every_source_of_chance():
    def draw() -> tuple:
        return random.random(), np.random.rand(), torch.rand(1).item()

    states = random.getstate(), np.random.get_state(), torch.are_deterministic_algorithms_enabled()
    try:
        with torch.random.fork_rng():
            set_seed(7, threads=1)
            first = draw()
            assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
            set_seed(8, threads=1)
            assert not set(draw()) & set(first)
            set_seed(7, threads=1)
            assert draw() == first
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.use_deterministic_algorithms(states[2])
