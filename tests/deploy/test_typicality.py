import numpy as np
import pytest
from sklearn import covariance

from common import data, phantom
from common.deploy import graph, onnxfile, typicality


@pytest.mark.parametrize("n, d", [(40, 5), (30, 60), (500, 20)])
def test_covariance_and_distance_are_scikit_learns(n, d):
    generator = np.random.default_rng(n)
    samples = generator.normal(size=(n, d)) @ generator.normal(size=(d, d))
    expected = covariance.LedoitWolf().fit(samples)
    assert 0 < expected.shrinkage_ < 1
    found = typicality.ledoit_wolf(samples - samples.mean(0))
    np.testing.assert_allclose(found, expected.covariance_, rtol=1e-10, atol=1e-12)
    distance = typicality.squared_distance(samples, *typicality.whiten(samples, np.zeros(n)))
    np.testing.assert_allclose(distance, expected.mahalanobis(samples), rtol=1e-4)


def test_of_images_like_those_of_training_a_share_t_lies_below_t():
    """Of 100 training sets of twelve features, whose tails are heavier than a Gaussian's."""
    generator = np.random.default_rng(0)
    shares = {0.01: [], 0.1: [], 0.5: []}
    for _ in range(100):
        drawn = generator.standard_t(5, size=(900, 12)) @ generator.normal(size=(12, 12))
        found = typicality.fit(drawn[:600], np.arange(600), np.zeros(600)).p_values(drawn[600:])
        for t, below in shares.items():
            below.append(np.mean(found < t))
    for t, below in shares.items():
        assert 0.7 * t < np.mean(below) < 1.02 * t


@pytest.mark.parametrize("n, nothing", [(48, True), (99, True), (100, False)])
def test_few_images_mark_nothing(n, nothing, onnx_model):
    fitted = typicality.fit(np.random.default_rng(0).normal(size=(n, 4)), np.arange(n), np.zeros(n))
    assert fitted.marks_nothing == nothing
    p_value = fitted.p_values(np.full((1, 4), 99.0)).astype(np.float32)
    assert (p_value < onnx_model.typicality_threshold)[0] == (not nothing)


def test_copies_do_not_vouch_for_each_other():
    """Six identical outliers: unusual to a fit without their group, ordinary to one with some of them."""
    features = np.random.default_rng(0).normal(size=(60, 4))
    features[:6] = 4
    apart, together = (
        typicality.fit(features, np.r_[first, np.arange(6, 60)], np.zeros(60)) for first in (np.arange(6), [0] * 6)
    )
    assert together.held_out[:6].min() > 2 * apart.held_out[:6].max()


def test_a_group_that_is_all_and_features_that_never_vary_are_no_error():
    for features, groups in ((np.ones((5, 3)), np.zeros(5)), (np.ones((5, 3)), np.arange(5))):
        found = typicality.fit(features, groups, np.zeros(5)).p_values(np.array([[1, 1, 1], [1, 1, 2]]))
        assert found == pytest.approx([1, 1 / 6])


def test_an_image_is_compared_with_the_nearest_hospital_and_between_two_hospitals_it_is_unlike_both():
    generator, hospitals = np.random.default_rng(0), np.repeat(["a", "b"], 300)
    features = generator.normal(size=(600, 3)) + 20 * (hospitals == "b")[:, np.newaxis]
    together, apart = (typicality.fit(features, np.arange(600), of) for of in (np.zeros(600), hospitals))
    assert apart.usual.shape == (2, 1, 3) and apart.whitening.shape == (2, 3, 3)
    middle, at_b = np.full((1, 3), 10.0), np.full((1, 3), 20.0)
    assert apart.p_values(middle)[0] == pytest.approx(1 / 601) and apart.p_values(at_b)[0] > 0.9
    assert together.p_values(middle)[0] > 0.9  # one fit for both takes the middle for the most usual image
    model = onnxfile.open_session(apart.graph(graph.VERSIONS).SerializeToString(), 1)
    shown = np.concatenate([middle, at_b, features[::40]]).astype(np.float32)
    (found,) = model.run(None, {"frame_features": shown})
    np.testing.assert_allclose(found, apart.p_values(shown), atol=1 / 600)


def test_a_hospital_with_few_images_is_no_error_and_does_not_take_the_images_of_others():
    features, hospitals = np.random.default_rng(0).normal(size=(200, 5)), np.repeat(["a", "b", "c"], [197, 2, 1])
    with_few = typicality.fit(features, np.arange(200), hospitals).held_out[:197]
    alone = typicality.fit(features[:197], np.arange(197), hospitals[:197]).held_out
    assert np.isfinite(with_few).all() and np.corrcoef(with_few, alone)[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_phantoms_are_like_phantoms_and_other_pictures_are_not(kind, network, quantized, phantoms):
    chosen = {"fp32": network, "int8": quantized}[kind]
    fitted = typicality.fit_network(chosen, data.of_arrays(*phantom.generate(300, 28, seed=1), "train", "phantom"), 1)
    session = onnxfile.open_session(graph.assemble({"frame": chosen}, 28, "square", fitted).SerializeToString(), 1)
    others = np.random.default_rng(0).integers(0, 256, (20, 90, 60), dtype=np.uint8)
    black, white = np.zeros((1, 50, 50), np.uint8), np.full((1, 50, 50), 255, np.uint8)
    alike, *unlike = (session.run(["typicality"], {"image": i})[0] for i in (phantoms.pixels, others, black, white))
    assert alike.dtype == np.float32 and 0.3 < np.median(alike) < 0.7 and np.mean(alike < 0.01) < 0.1
    assert max(found.max() for found in unlike) == pytest.approx(1 / 301)
