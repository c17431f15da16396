"""Compute the typicality of an image: about the share of held-out training images that are at least as unusual.

Typicality is close to a conformal p-value (Laxhammar & Falkman, 2010). Among images like the training images, about a
share t has a typicality below t. The p-value is not exact: a held-out image is compared with a fit without its fold, a
new image with the fit to all training images. Unusualness is the squared Mahalanobis distance of
`BreastResNet.texture` from the nearest hospital of the training images. results/README.md compares other measures.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from common.data import Images
from common.deploy import onnxfile

FOLDS = 5
THRESHOLD = 0.01
LEAST_IMAGES = round(1 / THRESHOLD)  # with fewer images to compare with, no image can be below the threshold
RULE = "an image below this typicality is unlike the training images; about 1 % of held-out training images are below"
LEAST_VARIANCE = 1e-6  # of a direction; with a lower variance, rounding would decide
BATCH = 64

GRAPH = """
unusual (float[batch, d] frame_features, float[hospitals, one_image, d] usual, float[hospitals, d, d] whitening,
    float[images] held_out) => (float[batch] typicality)
<int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, float itself = {{1.0}}, float all = {{{all!r}}}>
{{
    apart = Sub (frame_features, usual)
    whitened = MatMul (apart, whitening)
    distances = ReduceSumSquare <keepdims = 1> (whitened, two)
    distance = ReduceMin <keepdims = 0> (distances, zero)
    as_unusual = GreaterOrEqual (held_out, distance)
    ones = Cast <to = 1> (as_unusual)
    count = ReduceSum <keepdims = 0> (ones, one)
    with_itself = Add (count, itself)
    typicality = Div (with_itself, all)
}}
"""


def ledoit_wolf(centred: np.ndarray) -> np.ndarray:
    """Return the covariance [d, d] of centred samples [n, d], shrunk towards c * I (Ledoit & Wolf, 2004, sec. 3.2)."""
    n, d = centred.shape
    sample = centred.T @ centred / n
    target = np.trace(sample) / d * np.eye(d)
    error = (np.sum((centred**2).T @ centred**2) / n - np.sum(sample**2)) / n
    away = np.sum((sample - target) ** 2)
    shrinkage = min(error / away, 1.0) if away > 0 else 0.0
    return shrinkage * target + (1 - shrinkage) * sample


@dataclass(frozen=True)
class Typicality:
    """Typicality as a file stores it, all in float32.

    usual: mean of the features of the training images of each hospital, [hospitals, 1, d]; whitening: [hospitals, d,
    d]; held_out: unusualness of each training image, [n], by a fit without the fold of the image.
    """

    usual: np.ndarray
    whitening: np.ndarray
    held_out: np.ndarray

    def p_values(self, features: np.ndarray) -> np.ndarray:
        """Return the typicality, float64 [batch] above 0 and up to 1, of features [batch, d]."""
        return compared(squared_distance(features, self.usual, self.whitening), self.held_out)

    @property
    def marks_nothing(self) -> bool:
        """Whether no image can have a p-value below THRESHOLD, because there are too few training images."""
        return len(self.held_out) < LEAST_IMAGES

    def graph(self, versions: str) -> onnx.ModelProto:
        """Return a model: `frame_features`, float32 [batch, d], to `typicality`, [batch]. versions: as text of ONNX."""
        model = onnx.parser.parse_model(versions + GRAPH.format(all=float(len(self.held_out) + 1)))
        for name in ("usual", "whitening", "held_out"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(getattr(self, name), name))
        del model.graph.input[1:]  # the constants replace these inputs
        return model


def compared(distance: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return the typicality [batch] of images with these squared distances [batch]. held_out: other distances, [n]."""
    return (1 + np.sum(held_out >= distance[:, None], 1)) / (len(held_out) + 1)


def squared_distance(features: np.ndarray, usual: np.ndarray, whitening: np.ndarray) -> np.ndarray:
    """Return the squared Mahalanobis distance of features [n, d] from the nearest hospital, [n]."""
    return np.sum(((features - usual) @ whitening) ** 2, 2).min(0)


def whiten(features: np.ndarray, hospitals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of features [n, d] at each hospital, [hospitals, 1, d], and the whitening, [hospitals, d, d].

    The squared length of the whitened difference from the mean is the squared Mahalanobis distance. Both are float32.
    Args: hospitals: [n], the hospital of each image.
    """
    usual, whitening = [], []
    for own in (features[hospitals == hospital] for hospital in np.unique(hospitals)):
        usual.append(own.mean(0, dtype=float, keepdims=True))
        variances, directions = np.linalg.eigh(ledoit_wolf(own - usual[-1]))
        whitening.append(directions / np.sqrt(np.maximum(variances, LEAST_VARIANCE)))
    return np.stack(usual).astype(np.float32), np.stack(whitening).astype(np.float32)


def fit(features: np.ndarray, groups: np.ndarray, hospitals: np.ndarray) -> Typicality:
    """Fit typicality to features [n, d] of training images.

    Args: groups: [n]; images of a group share a fold; hospitals: [n], the hospital of each image.
    """
    names, member_of = np.unique(groups, return_inverse=True)
    folds = (np.random.default_rng(0).permutation(len(names)) % min(FOLDS, len(names)))[member_of]
    held_out = np.zeros(len(features), np.float32)  # no unusualness if all images are one group
    for fold in np.unique(folds) if len(names) > 1 else []:
        out = folds == fold
        held_out[out] = squared_distance(features[out], *whiten(features[~out], hospitals[~out]))
    return Typicality(*whiten(features, hospitals), held_out)


def fit_network(frame: onnx.ModelProto, known: Images, threads: int) -> Typicality:
    """Fit typicality to the features that the exported network "frame", fp32 or int8, computes of training images.

    The groups of the images `known` stay together.
    """
    session = onnxfile.open_session(frame.SerializeToString(), threads)
    parts = np.split(known.pixels, range(BATCH, len(known), BATCH))
    features = [session.run(["frame_features"], {"frame_prepared": part})[0] for part in parts]
    return fit(np.concatenate(features), known.groups, known.hospitals)
