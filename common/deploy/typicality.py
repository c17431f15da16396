"""Compute the typicality of an image: about the share of held-out training images that are at least as unusual.

Typicality is close to a conformal p-value (Laxhammar & Falkman, 2010). Among images like the training images, about a
share t has a typicality below t. The p-value is not exact: a held-out image is compared with a fit without its fold, a
new image with the fit to all training images. Unusualness is the squared Mahalanobis distance of
`BreastResNet.texture`. results/README.md compares other measures.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from common.data import Images
from common.deploy import onnxfile

FOLDS = 5
THRESHOLD = 0.01
RULE = "an image below this typicality is unlike the training images; about 1 % of held-out training images are below"
LEAST_VARIANCE = 1e-6  # of a direction; with a lower variance, rounding would decide
BATCH = 64

GRAPH = """
unusual (float[batch, some] features, float[some] usual, float[some, some] whitening,
    float[images] held_out) => (float[batch] typicality)
<int64[1] one = {{1}}, float itself = {{1.0}}, float all = {{{all!r}}}>
{{
    apart = Sub (features, usual)
    whitened = MatMul (apart, whitening)
    distance = ReduceSumSquare <keepdims = 1> (whitened, one)
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

    usual: mean of the features of the training images, [d]; whitening: [d, d]; held_out: unusualness of each training
    image, [n], by a fit without the fold of the image.
    """

    usual: np.ndarray
    whitening: np.ndarray
    held_out: np.ndarray

    def p_values(self, features: np.ndarray) -> np.ndarray:
        """Return the typicality, float64 [batch] above 0 and up to 1, of features [batch, d]."""
        distance = squared_distance(features, self.usual, self.whitening)
        return (1 + np.sum(self.held_out >= distance[:, None], 1)) / (len(self.held_out) + 1)

    @property
    def marks_nothing(self) -> bool:
        """Whether no image can have a p-value below THRESHOLD, because there are too few training images."""
        return len(self.held_out) + 1 <= 1 / THRESHOLD

    def graph(self, versions: str) -> onnx.ModelProto:
        """Return a model: `features`, float32 [batch, d], to `typicality`, [batch]. versions: as text of ONNX."""
        model = onnx.parser.parse_model(versions + GRAPH.format(all=float(len(self.held_out) + 1)))
        for name in ("usual", "whitening", "held_out"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(getattr(self, name), name))
        del model.graph.input[1:]  # the constants replace these inputs
        return model


def squared_distance(features: np.ndarray, usual: np.ndarray, whitening: np.ndarray) -> np.ndarray:
    return np.sum(((features - usual) @ whitening) ** 2, 1)


def whiten(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean [d] of features [n, d] and the whitening [d, d], both float32.

    The squared length of the whitened difference from the mean is the squared Mahalanobis distance.
    """
    usual = features.mean(0, dtype=float)
    variances, directions = np.linalg.eigh(ledoit_wolf(features - usual))
    whitening = directions / np.sqrt(np.maximum(variances, LEAST_VARIANCE))
    return usual.astype(np.float32), whitening.astype(np.float32)


def fit(features: np.ndarray, groups: np.ndarray) -> Typicality:
    """Fit typicality to features [n, d] of training images. Images with the same value in groups [n] share a fold."""
    names, member_of = np.unique(groups, return_inverse=True)
    folds = (np.random.default_rng(0).permutation(len(names)) % min(FOLDS, len(names)))[member_of]
    held_out = np.zeros(len(features), np.float32)  # no unusualness if all images are one group
    for fold in np.unique(folds) if len(names) > 1 else []:
        out = folds == fold
        held_out[out] = squared_distance(features[out], *whiten(features[~out]))
    return Typicality(*whiten(features), held_out)


def fit_networks(networks: dict[str, onnx.ModelProto], known: Images, threads: int) -> Typicality:
    """Fit typicality to the features that exported networks, fp32 or int8, compute of training images.

    The groups of the images stay together. known: the images, with windows if a network is "window".
    """
    features = []
    for look in sorted(networks, reverse=True):  # window before frame, as in the head of the graph
        session = onnxfile.open_session(networks[look].SerializeToString(), threads)
        parts = np.split(known.network_input(look), range(BATCH, len(known), BATCH))
        made = [session.run([f"{look}_features"], {f"{look}_prepared": part})[0] for part in parts]
        features.append(np.concatenate(made))
    return fit(np.concatenate(features, 1), known.groups)
