import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb

from common.model import BreastResNet, Predictor, predict
from common.show import figures, gradcam


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


def test_where_nothing_speaks_for_malignant_the_map_is_zero():
    model = random_model()
    model.trunk.fc.weight.data.abs_().neg_()
    np.testing.assert_array_equal(gradcam.grad_cam(Predictor([model], True), random_images(2)), 0)


def test_the_model_is_left_as_it_was():
    predictor, images = Predictor([random_model(), random_model(seed=1)], True), random_images(3)
    state, logits = copy.deepcopy(predictor.state_dict()), predict(predictor, images)
    first = gradcam.grad_cam(predictor, images)
    assert all(torch.equal(value, state[name]) for name, value in predictor.state_dict().items())
    assert not any(module.training for module in predictor.modules())
    np.testing.assert_array_equal(predict(predictor, images), logits)
    np.testing.assert_array_equal(gradcam.grad_cam(predictor, images), first)


def test_no_images_give_no_maps():
    assert gradcam.grad_cam(Predictor([random_model()], True), random_images(0)).shape == (0, 28, 28)


def test_most_confident_calls():
    labels = np.array([1, 1, 0, 0, 1, 0, 0])
    probabilities = np.array([0.99, 0.02, 0.9, 0.01, 0.5, 0.5, 0.4])
    errors, hits = gradcam.most_confident(labels, probabilities, 2)
    assert errors.tolist() == [1, 2] and hits.tolist() == [0, 3]
    errors, hits = gradcam.most_confident(labels, probabilities, 9)
    assert errors.tolist() == [1, 2, 5] and hits.tolist() == [0, 3, 6, 4]  # 0.5 is called malignant
    errors, hits = gradcam.most_confident([0, 1, 1], [0.1, 0.8, 0.9], 6)  # of a perfect model
    assert errors.tolist() == [] and sorted(hits.tolist()) == [0, 1, 2]


def test_the_sheet_says_truth_probability_and_whether_it_is_right():
    labels, probabilities = np.array([1, 0, 0]), np.array([0.03, 0.96, 0.5])
    figure = gradcam.sheet(Predictor([random_model()], True), random_images(3), labels, probabilities, "title")
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "image 0, malignant\nP(malignant) 0.03, wrong",
        "image 1, benign\nP(malignant) 0.96, wrong",
        "image 2, benign\nP(malignant) 0.50, wrong",
    ]
    assert {to_rgb(axes.spines["top"].get_edgecolor()) for axes in figure.axes} == {to_rgb(figures.CHOSEN)}
