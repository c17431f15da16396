import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.model import BreastResNet, Predictor, predict
from common.show import gradcam


def random_model(stages: int = 3, seed: int = 0) -> BreastResNet:
    torch.manual_seed(seed)
    return BreastResNet(28, stages).eval()


def random_images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28), np.uint8)


@torch.no_grad()
def by_hand(model: BreastResNet, images: np.ndarray) -> np.ndarray:
    """Grad-CAM without gradients: behind the last stage come only a mean over places and the layer fc, so the gradient
    at every place is that of fc divided by the number of places."""
    trunk = model.trunk
    features = ((torch.from_numpy(images).float() / 255 - 0.449) / 0.226)[:, None]
    for layer in "conv1 bn1 relu maxpool layer1 layer2 layer3 layer4".split():
        features = getattr(trunk, layer)(features)
    gradient = trunk.fc.weight[0] / features[0, 0].numel()
    coarse = torch.einsum("k,nkhw->nhw", gradient, features).clamp_min(0)
    return F.interpolate(coarse[:, None], (28, 28), mode="bilinear")[:, 0].numpy()


def scaled(maps: np.ndarray) -> np.ndarray:
    return maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-12)


def brightness_model() -> BreastResNet:
    """A model whose logit is the mean brightness above grey: one channel passes through, all others are 0."""
    model = BreastResNet(28, 2).eval()
    for name, parameter in model.trunk.named_parameters():
        if name.endswith("bn2.weight") or "conv1" in name or "downsample.0" in name or "fc" in name:
            torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        model.trunk.conv1.weight[0, 0, 3, 3] = 1
        model.trunk.layer2[0].downsample[0].weight[0, 0] = 1
        model.trunk.fc.weight[0, 0] = 1
    return model


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_grad_cam_is_the_computation_by_hand(stages):
    model, images = random_model(stages), random_images(5)
    heat = gradcam.grad_cam(Predictor([model], mirror=False), images)
    assert heat.shape == images.shape and heat.dtype == np.float32
    assert heat.min() >= 0 and heat.max() == 1
    np.testing.assert_allclose(heat, scaled(by_hand(model, images)), atol=1e-4)


def test_members_and_mirrored_images_are_averaged_before_scaling():
    members, images = [random_model(seed=1), random_model(seed=2)], random_images(4)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    maps = [by_hand(m, images) for m in members] + [by_hand(m, mirrored)[:, :, ::-1] for m in members]
    heat = gradcam.grad_cam(Predictor(members, mirror=True, temperature=0.3), images)
    np.testing.assert_allclose(heat, scaled(np.mean(maps, 0)), atol=1e-4)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_map_is_hottest_where_the_evidence_is(mirror):
    images = np.zeros((3, 28, 28), np.uint8)
    places = [(4, 20), (20, 4), (14, 14)]
    for image, (y, x) in zip(images, places):
        image[y : y + 4, x : x + 4] = 255
    heat = gradcam.grad_cam(Predictor([brightness_model()], mirror), images)
    for one, (y, x) in zip(heat, places):
        hottest = np.unravel_index(one.argmax(), one.shape)
        assert abs(hottest[0] - (y + 1.5)) <= 4 and abs(hottest[1] - (x + 1.5)) <= 4  # a feature sees 4x4 pixels
        assert one[(y + 14) % 28, (x + 14) % 28] == 0


def test_where_nothing_speaks_for_malignant_the_map_is_zero():
    model = brightness_model()
    model.trunk.fc.weight.data.neg_()
    heat = gradcam.grad_cam(Predictor([model], True), random_images(2))
    np.testing.assert_array_equal(heat, 0)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_model_is_left_as_it_was(frozen):
    predictor, images = Predictor([random_model(), random_model(seed=1)], True), random_images(3)
    predictor.requires_grad_(not frozen)
    state, logits = copy.deepcopy(predictor.state_dict()), predict(predictor, images)
    first = gradcam.grad_cam(predictor, images)
    assert all(torch.equal(value, state[name]) for name, value in predictor.state_dict().items())
    assert all(p.grad is None and p.requires_grad != frozen for p in predictor.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in predictor.modules())
    assert not any(module.training for module in predictor.modules())
    np.testing.assert_array_equal(predict(predictor, images), logits)
    np.testing.assert_array_equal(gradcam.grad_cam(predictor, images), first)


def test_a_failing_model_keeps_no_hook():
    predictor = Predictor([random_model()], False)
    predictor.members[0].trunk.fc = torch.nn.Linear(7, 1)
    with pytest.raises(RuntimeError):
        gradcam.grad_cam(predictor, random_images(1))
    assert not any(module._forward_hooks for module in predictor.modules())


def test_batches_do_not_matter(monkeypatch):
    predictor, images = Predictor([random_model()], True), random_images(5)
    whole = gradcam.grad_cam(predictor, images)
    monkeypatch.setattr(gradcam, "BATCH", 2)
    np.testing.assert_allclose(gradcam.grad_cam(predictor, images), whole, atol=1e-5)


def test_no_images_give_no_maps():
    assert gradcam.grad_cam(Predictor([random_model()], True), random_images(0)).shape == (0, 28, 28)


def test_most_confident_calls():
    labels = np.array([1, 1, 0, 0, 1, 0, 0])
    probabilities = np.array([0.99, 0.02, 0.9, 0.01, 0.5, 0.5, 0.4])
    errors, hits = gradcam.most_confident(labels, probabilities, 2)
    assert errors.tolist() == [1, 2] and hits.tolist() == [0, 3]
    errors, hits = gradcam.most_confident(labels, probabilities, 9)
    assert errors.tolist() == [1, 2, 5] and hits.tolist() == [0, 3, 6, 4]  # 0.5 is called malignant


def test_most_confident_of_a_perfect_model_has_no_errors():
    errors, hits = gradcam.most_confident([0, 1, 1], [0.1, 0.8, 0.9], 6)
    assert errors.tolist() == [] and sorted(hits.tolist()) == [0, 1, 2]
