import numpy as np
import pytest
import torch
from torch import nn

from common import model
from common.calibration import sigmoid
from common.errors import UserError
from common.model import BreastResNet, Predictor, TwoLooks


@pytest.fixture(scope="module")
def uint8_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 28, 28), np.uint8)


@pytest.mark.parametrize(
    "size, finds, own, stride", [(28, False, 3, 1), (64, False, 4, 2), (224, False, 4, 2), (64, True, 3, 2)]
)
@pytest.mark.parametrize("given", ["auto", 2, 3, 4])
def test_depth_and_stem_follow_the_size_and_the_finder(size, finds, own, stride, given):
    network = BreastResNet(size, given, finds).eval()
    trunk, stages = network.trunk, own if given == "auto" else given
    assert network.stages == stages and trunk.fc.in_features == 64 * 2 ** (stages - 1)
    assert trunk.conv1.stride == (stride, stride) and trunk.conv1.in_channels == 1
    assert all(isinstance(getattr(trunk, f"layer{s}"), nn.Identity) == (s > stages) for s in (2, 3, 4))
    with torch.inference_mode():
        assert network(torch.rand(2, size, size)).shape == (2,)


def test_images_are_normalised_before_the_stem():
    network, seen, image = BreastResNet(28, 2).eval(), [], torch.rand(1, 28, 28)
    network.trunk.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(image)
    torch.testing.assert_close(seen[0][0], (image - model.GREY_MEAN) / model.GREY_STD)


@pytest.mark.parametrize("stages", [1, 5, "3", None])
def test_other_numbers_of_stages_are_refused(stages):
    with pytest.raises(ValueError, match="no ResNet-18 has"):
        BreastResNet(28, stages)


@pytest.mark.parametrize("members, mirror, stages", [(1, False, 2), (1, True, 4), (3, True, 3)])
@torch.no_grad()
def test_evidence_is_the_map_whose_mean_is_the_logit(uint8_images, members, mirror, stages):
    """By hand: the last layer, at every position of the last stage; what is seen mirrored, mirrored back."""
    torch.manual_seed(0)
    predictor = Predictor([BreastResNet(28, stages).eval() for _ in range(members)], mirror)
    maps = []
    for member in predictor.members:
        seen = []
        hook = member.trunk.avgpool.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        for images in (uint8_images, uint8_images[:, :, ::-1].copy())[: 1 + mirror]:
            model.predict(Predictor([member], False), images)
        hook.remove()
        both = [(last.movedim(1, -1) @ member.trunk.fc.weight[0] + member.trunk.fc.bias) for last in seen]
        maps.append(np.mean([both[0], both[1].flip(-1)] if mirror else both, 0))
    evidence, textures, heat = model.explain(predictor, uint8_images, batch=4)
    (found,) = (of_look.numpy() for of_look in evidence)
    assert heat is None
    assert found.dtype == np.float32 and found.shape == maps[0].shape
    np.testing.assert_allclose(found, np.mean(maps, 0), atol=2e-5)
    np.testing.assert_allclose(found.mean((1, 2)), model.predict(predictor, uint8_images), atol=1e-5)
    first = torch.from_numpy(uint8_images).float() / 255
    with torch.inference_mode():
        expected = predictor.members[0].texture(first, predictor.members[0].first_stage(first), None)
    np.testing.assert_allclose(textures, expected, atol=1e-5)


def test_the_logit_of_two_looks_has_two_thirds_of_the_window_and_half_of_the_box():
    window, frame = BreastResNet(32, 2).eval(), BreastResNet(32, 2, finds=True).eval()
    box, chance = torch.nn.Linear(2, 1), torch.Generator().manual_seed(0)
    images, extents = torch.rand(5, 2, 32, 32, generator=chance), torch.randn(5, 2, generator=chance)
    with torch.no_grad():
        expected = 2 / 3 * window(images[:, 0]) + 1 / 3 * frame(images[:, 1]) + 1 / 2 * box(extents)[:, 0]
        found = TwoLooks.of_trained(window, frame, box)
        torch.testing.assert_close(found(images, extents), expected)
        torch.testing.assert_close(found.explain(images, extents).logits, expected)


@pytest.mark.parametrize("size, factor", [(28, 1), (64, 2), (128, 4)])
def test_texture_is_of_the_picture_at_about_32_pixels(size, factor):
    images = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    member = BreastResNet(size).eval()
    with torch.inference_mode():
        found = member.texture(images, member.first_stage(images), None).numpy()
        coarse = images.reshape(3, size // factor, factor, size // factor, factor).mean((2, 4))
        first, picture = member.first_stage(coarse).numpy(), coarse.numpy()[:, None] / 0.226
    maps = [first, picture, np.diff(picture, axis=2), np.diff(picture, axis=3)]
    expected = [f(m, axis=(2, 3)) for m in maps for f in (lambda x, axis: np.abs(x).mean(axis), np.std)]
    np.testing.assert_allclose(found, np.log(np.concatenate(expected, 1) + 0.05), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [3, 11, 256])
def test_predictions_do_not_depend_on_the_batch(uint8_images, batch):
    torch.manual_seed(0)
    predictor = Predictor([BreastResNet(28, 3)], mirror=False).train()  # predict itself must turn batch norm to eval
    logits = model.predict(predictor, uint8_images, batch=batch)
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
