import pickle
import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from common import model, weights
from common.calibration import sigmoid
from common.errors import UserError
from common.model import BreastResNet, Predictor

COLOUR_MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)  # torchvision's ImageNet preset
COLOUR_STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)


@pytest.fixture(autouse=True)
def forget_weights():
    weights.initial_state.cache_clear()


@pytest.fixture(scope="module")
def uint8_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 28, 28), np.uint8)


def responses(means: torch.Tensor, padding: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The stem's response to random grey images: of colour filters to three equal channels, normalised with `means`;
    of the grey filters; and the colour filters."""
    torch.manual_seed(0)
    images, filters = torch.rand(3, 1, 20, 20).double(), torch.randn(64, 3, 7, 7).double()
    colour = (images - means[:, None, None]) / COLOUR_STD[:, None, None]
    grey = (images - model.GREY_MEAN) / model.GREY_STD
    by_colour = nn.functional.conv2d(colour, filters, padding=padding)
    return by_colour, nn.functional.conv2d(grey, weights.grey_stem(filters), padding=padding), filters


def test_grey_stem_answers_as_the_colour_stem_up_to_a_constant_of_each_filter():
    colour, grey, filters = responses(COLOUR_MEAN, padding=0)
    offset = torch.einsum("ochw,c->o", filters, (model.GREY_MEAN - COLOUR_MEAN) / COLOUR_STD)
    torch.testing.assert_close(colour, grey + offset[:, None, None], rtol=0, atol=1e-10)


def test_grey_stem_answers_exactly_as_the_colour_stem_when_the_channel_means_are_equal():
    colour, grey, _ = responses(torch.full((3,), model.GREY_MEAN, dtype=torch.float64), padding=3)
    torch.testing.assert_close(colour, grey, rtol=0, atol=1e-10)
    assert model.GREY_MEAN == pytest.approx(float(COLOUR_MEAN.mean()), abs=1e-3)
    assert model.GREY_STD == pytest.approx(float(COLOUR_STD.mean()), abs=1e-3)


@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("size, stride", [(28, 1), (64, 2), (128, 2), (224, 2)])
def test_one_logit_an_image_at_every_size_and_depth(size, stride, stages):
    network = BreastResNet(size, stages).eval()
    assert network.trunk.conv1.stride == (stride, stride) and network.trunk.conv1.in_channels == 1
    assert network.trunk.fc.in_features == 64 * 2 ** (stages - 1)
    assert all(isinstance(getattr(network.trunk, f"layer{s}"), nn.Identity) == (s > stages) for s in (2, 3, 4))
    with torch.inference_mode():
        assert network(torch.rand(2, size, size)).shape == (2,)


@pytest.mark.parametrize(
    "size, upsample, stages, stride", [(28, 0, 3, 1), (28, 56, 3, 1), (28, 112, 4, 2), (64, 0, 4, 2)]
)
def test_depth_and_stem_follow_what_the_trunk_sees(size, upsample, stages, stride):
    network = BreastResNet(size, upsample=upsample).eval()
    assert network.stages == stages and network.trunk.conv1.stride == (stride, stride)


def test_upsampled_images_are_enlarged_bilinearly_before_the_stem():
    network, seen, image = BreastResNet(28, 2, upsample=56).eval(), [], torch.rand(1, 28, 28)
    network.trunk.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(image)
    pillow = Image.fromarray((image[0].numpy() - model.GREY_MEAN) / model.GREY_STD)
    expected = np.asarray(pillow.resize((56, 56), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(seen[0][0, 0].numpy(), expected, atol=1e-5)


def test_upsampling_never_shrinks():
    with pytest.raises(UserError, match="--upsample 32: images of 64×64 would shrink"):
        BreastResNet(64, upsample=32)


def test_images_are_normalised_before_the_trunk():
    network, seen = BreastResNet(28, 2).eval(), []
    network.trunk.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(torch.tensor([model.GREY_MEAN, model.GREY_MEAN + model.GREY_STD])[:, None, None].expand(2, 28, 28))
    torch.testing.assert_close(seen[0][:, 0, 0, 0], torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("stages, lacking", [(2, "fc"), (3, "fc"), (4, "fc, layer4")])
def test_trunk_file_fills_what_it_holds_and_names_what_it_lacks(imagenet_trunk, capsys, stages, lacking):
    network = BreastResNet(28, stages)
    before = {name: tensor.clone() for name, tensor in network.trunk.state_dict().items()}
    weights.load_weights(network, str(imagenet_trunk))
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.endswith(f"start at random: {lacking}\n") and str(imagenet_trunk) in printed.err
    stored = torch.load(imagenet_trunk)
    for name, tensor in network.trunk.state_dict().items():
        if name.startswith(("layer4", "fc")):
            expected = before[name]
        else:
            expected = weights.grey_stem(stored[name]) if name == "conv1.weight" else stored[name]
        assert torch.equal(tensor, expected), name


def test_complete_file_lacks_only_the_classifier(tmp_path, capsys):
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "complete.pth")
    network = BreastResNet(28, 4)
    fc = network.trunk.fc.weight.clone()
    weights.load_weights(network, str(tmp_path / "complete.pth"))
    assert capsys.readouterr().err.endswith("start at random: fc\n")
    assert torch.equal(network.trunk.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert torch.equal(network.trunk.fc.weight, fc)


def test_none_leaves_the_model_as_it_is(capsys):
    network = BreastResNet(28, 2)
    before = network.trunk.conv1.weight.clone()
    weights.load_weights(network, "none")
    assert torch.equal(network.trunk.conv1.weight, before) and capsys.readouterr().err == ""


def test_training_one_model_does_not_change_the_next_one_s_start(imagenet_trunk):
    first, second = BreastResNet(28, 2), BreastResNet(28, 2)
    weights.load_weights(first, str(imagenet_trunk))
    start = {name: tensor.clone() for name, tensor in first.trunk.state_dict().items() if not name.startswith("fc")}
    with torch.no_grad():
        for tensor in first.state_dict().values():
            tensor.fill_(7)
    weights.load_weights(second, str(imagenet_trunk))
    after = second.trunk.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in start.items())


class Bomb:
    """Pickled, it would make a file on loading."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


BAD_STATES = {
    "another network's name": (lambda: {"features.0.weight": torch.zeros(1)}, "'features.0.weight' is no layer"),
    "another shape": (lambda: {"conv1.weight": torch.zeros(64, 1, 7, 7)}, r"conv1.weight has shape \[64, 1, 7, 7\]"),
    "no layer": (dict, "holds no layer"),
    "classifier only": (lambda: {"fc.weight": torch.zeros(1000, 512)}, "holds no layer"),
    "layers left off only": (lambda: {"layer4.0.bn1.bias": torch.zeros(512)}, "holds no layer"),
    "tensor": (lambda: torch.zeros(3), "not a state dict"),
    "values": (lambda: {"conv1.weight": 3}, "not a state dict"),
    "numbered": (lambda: {1: torch.zeros(3)}, "not a state dict"),
    "network": (lambda: nn.Linear(1, 1), "not a file of plain tensors"),
}


@pytest.mark.parametrize("state, reason", BAD_STATES.values(), ids=BAD_STATES)
def test_bad_states_are_one_line_that_names_the_file(tmp_path, state, reason):
    path = tmp_path / "weights.pth"
    torch.save(state(), path)
    with pytest.raises(UserError, match=reason) as caught:
        weights.initial_state(str(path), 28, 3)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and "--weights none" in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_never_run_code(tmp_path, zipped):
    path, made = tmp_path / "weights.pth", tmp_path / "made by the pickle"
    torch.save({"conv1.weight": Bomb(made)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="not a file of plain tensors"):
        weights.initial_state(str(path), 28, 3)
    assert not made.exists()
    pickle.loads(pickle.dumps(Bomb(made))).close()
    assert made.exists()  # the bomb is real


@pytest.mark.parametrize("content", [b"", b"plain text", b"PK\x03\x04 cut off", b"\x80\x02"])
def test_files_that_are_not_torch_s(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a file of plain tensors") as caught:
        weights.initial_state(str(path), 28, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.pth", "."])
def test_files_that_cannot_be_read(tmp_path, name):
    with pytest.raises(UserError, match="cannot be read .*--weights FILE.*--weights none") as caught:
        weights.initial_state(str(tmp_path / name), 28, 3)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_imagenet_without_a_network_names_both_ways_out(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(UserError, match="cannot be downloaded .*Name or service not known") as caught:
        weights.load_weights(BreastResNet(28, 2), "imagenet")
    message = str(caught.value)
    assert "--weights FILE" in message and "--weights none" in message and "\n" not in message


class Brightness(nn.Module):
    """A stand-in for a member: the weighted mean of each image, weights growing to the right."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, images):
        return self.slope * (images * torch.linspace(0, 1, images.shape[-1])).mean((1, 2))


def test_predictor_is_the_mean_of_members_and_mirrors_over_the_temperature(uint8_images):
    scaled, ramp = uint8_images.astype(float) / 255, np.linspace(0, 1, 28)
    upright, mirrored = (scaled * ramp).mean((1, 2)), (scaled * ramp[::-1]).mean((1, 2))
    for slopes, mirror, temperature in [([1.0], False, 1.0), ([1.0, -4.0, 2.5], False, 2.0), ([3.0, 1.0], True, 0.5)]:
        predictor = Predictor([Brightness(slope) for slope in slopes], mirror, temperature)
        expected = np.mean(slopes) * ((upright + mirrored) / 2 if mirror else upright) / temperature
        np.testing.assert_allclose(model.predict(predictor, uint8_images), expected, atol=1e-6)


def test_an_ensemble_is_the_mean_of_its_members_logits(uint8_images):
    torch.manual_seed(0)
    members = [BreastResNet(28, 2) for _ in range(3)]
    alone = np.stack([model.predict(Predictor([member], True), uint8_images) for member in members])
    together = model.predict(Predictor(members, True, 2.0), uint8_images)
    np.testing.assert_allclose(together, alone.mean(0) / 2, atol=1e-6)
    assert np.ptp(alone, axis=0).min() > 0.01  # the members differ


def test_mirrored_views_make_mirror_images_equal(uint8_images):
    predictor = Predictor([BreastResNet(28, 2)], mirror=True)
    flipped = np.ascontiguousarray(uint8_images[:, :, ::-1])
    np.testing.assert_allclose(model.predict(predictor, uint8_images), model.predict(predictor, flipped), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 11, 256])
def test_predictions_do_not_depend_on_the_batch(uint8_images, batch):
    torch.manual_seed(0)
    predictor = Predictor([BreastResNet(28, 3)], mirror=False).train()  # predict itself must turn batch norm to eval
    logits = model.predict(predictor, uint8_images, batch)
    assert logits.dtype == np.float64 and logits.shape == (11,)
    one_by_one = [model.predict(predictor, image[None])[0] for image in uint8_images]
    np.testing.assert_allclose(sigmoid(logits), sigmoid(one_by_one), rtol=0, atol=1e-6)


def test_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert model.device_of("auto").type == model.device_of("cpu").type == "cpu"
    with pytest.raises(UserError, match="--device cuda"):
        model.device_of("cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [model.device_of(name).type for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
