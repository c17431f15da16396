"""Is an image like those of training? About a conformal p-value, in the file: the share of held-out training images
that are at least as unusual (Laxhammar & Falkman, 2010), so that of images like those of training about a share t lies
below t. It is not exactly a p-value: a held-out image is compared with a fit without its fold, a new one with the fit
of all.

Unusualness is the squared Mahalanobis distance of `BreastResNet.texture`; results/README.md compares others.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from common.data import Images
from common.deploy import onnxfile

FOLDS = 5
THRESHOLD = 0.01
RULE = "an image below this typicality is unlike the training images; about 1 % of held-out training images are below"
LEAST_VARIANCE = 1e-6  # of a direction; with less, rounding would decide
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
    """The covariance [d, d] of centred samples [n, d], shrunk towards a multiple of the identity (Ledoit & Wolf, 2004,
    section 3.2)."""
    n, d = centred.shape
    sample = centred.T @ centred / n
    target = np.trace(sample) / d * np.eye(d)
    error = (np.sum((centred**2).T @ centred**2) / n - np.sum(sample**2)) / n
    away = np.sum((sample - target) ** 2)
    shrinkage = min(error / away, 1.0) if away > 0 else 0.0
    return shrinkage * target + (1 - shrinkage) * sample


@dataclass(frozen=True)
class Typicality:
    """What a file keeps: of the training images' features the mean [d] and a whitening [d, d], and the unusualness of
    each image [n] to a fit without its fold. All float32, as the file computes."""

    usual: np.ndarray
    whitening: np.ndarray
    held_out: np.ndarray

    def p_values(self, features: np.ndarray) -> np.ndarray:
        """Typicality [batch] of features [batch, d]."""
        distance = squared_distance(features, self.usual, self.whitening)
        return (1 + np.sum(self.held_out >= distance[:, None], 1)) / (len(self.held_out) + 1)

    @property
    def marks_nothing(self) -> bool:
        """Whether no image can have a p-value below THRESHOLD: there are too few to be more unusual than."""
        return len(self.held_out) + 1 <= 1 / THRESHOLD

    def graph(self, versions: str) -> onnx.ModelProto:
        """`features`, float32 [batch, d], to `typicality`, float32 [batch]. versions: of the file and ONNX."""
        model = onnx.parser.parse_model(versions + GRAPH.format(all=float(len(self.held_out) + 1)))
        for name in ("usual", "whitening", "held_out"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(getattr(self, name), name))
        del model.graph.input[1:]  # now constants
        return model


def squared_distance(features: np.ndarray, usual: np.ndarray, whitening: np.ndarray) -> np.ndarray:
    return np.sum(((features - usual) @ whitening) ** 2, 1)


def whiten(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [d] of features [n, d], and the whitening [d, d] whose squared length is Mahalanobis's distance."""
    usual = features.mean(0, dtype=float)
    variances, directions = np.linalg.eigh(ledoit_wolf(features - usual))
    whitening = directions / np.sqrt(np.maximum(variances, LEAST_VARIANCE))
    return usual.astype(np.float32), whitening.astype(np.float32)


def fit(features: np.ndarray, groups: np.ndarray) -> Typicality:
    """Args: features: [n, d] of training images; groups: [n], the same for images that must share a fold."""
    names, member_of = np.unique(groups, return_inverse=True)
    folds = (np.random.default_rng(0).permutation(len(names)) % min(FOLDS, len(names)))[member_of]
    held_out = np.zeros(len(features), np.float32)  # as usual as can be, where one group is all
    for fold in np.unique(folds) if len(names) > 1 else []:
        out = folds == fold
        held_out[out] = squared_distance(features[out], *whiten(features[~out]))
    return Typicality(*whiten(features), held_out)


def fit_networks(networks: dict[str, onnx.ModelProto], known: Images, threads: int) -> Typicality:
    """Fit on what exported networks, fp32 or int8, make of training images, with their groups kept together. known:
    with windows, if a network looks at them."""
    features = []
    for look in sorted(networks, reverse=True):  # the window's before the frame's, as in the graph's head
        session = onnxfile.open_session(networks[look].SerializeToString(), threads)
        parts = np.split(known.look(look), range(BATCH, len(known), BATCH))
        made = [session.run([f"{look}_features"], {f"{look}_prepared": part})[0] for part in parts]
        features.append(np.concatenate(made))
    return fit(np.concatenate(features, 1), known.groups)
