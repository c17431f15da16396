"""Synthetic B-mode breast ultrasound, with which every command runs offline and tests take seconds.

Results on phantoms are no evidence. The generator imitates a scanner. Random scatterers times the echogenicity of the
tissue, blurred by the point-spread function, give an echo. The amplitude of the echo is Rayleigh speckle (Wagner et
al., IEEE Trans. Sonics Ultrason. 1983), and its logarithm is the image. The classes differ in the features of BI-RADS:
shape, orientation, margin, echo pattern and posterior features, each drawn from overlapping distributions. Lengths are
shares of the side of the image. The ranges were chosen by eye.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

CHUNK = 32  # images rendered together, which bounds memory; another number would give other images
RENDER_SIDE = 84  # smallest side in pixels of a rendered image, before averaging down
NORMAL_SHARE = 0.15  # share of images without a lesion among images that are not malignant
ANGLES = 512  # samples of the contour of a lesion
PSF_AXIAL, PSF_LATERAL = 0.0035, 0.007  # standard deviations; a beam is wider than a pulse is long
LOOKS = 3  # scans averaged into one image, as scanners do to reduce speckle
BLACK, WHITE, NOISE_FLOOR = -34.0, 42.0, -31.0  # dB; 0 is shallow fat at medium gain


def _centres(count: int) -> np.ndarray:
    return (np.arange(count, dtype=np.float32) + 0.5) / count


def _gaussian(distance: np.ndarray, sigma: float) -> np.ndarray:
    """Return Gaussian weights in rows of unit norm, which smooth white noise and keep its variance."""
    weights = np.exp(-0.5 * (distance / sigma) ** 2).astype(np.float32)
    return weights / np.linalg.norm(weights, axis=-1, keepdims=True)


def _kernel(sigma: float) -> np.ndarray:
    """Return Gaussian weights over three standard deviations to each side. sigma: in pixels."""
    reach = int(np.ceil(3 * sigma))
    return _gaussian(np.arange(-reach, reach + 1), sigma)


def _blur(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return weighted sums down the rows: [n, rows, columns] becomes [n, rows - len(kernel) + 1, columns].

    This file uses einsum, because threads of BLAS with many small products wait for each other on a busy machine.
    """
    return np.einsum("nzxk,k->nzx", sliding_window_view(images, len(kernel), axis=1), kernel)


def _field(rng: np.random.Generator, n: int, side: int, rows: int, columns: int) -> np.ndarray:
    """Return smooth random fields of unit variance, [n, side, side], from rows x columns knots of white noise."""
    knots = rng.standard_normal((n, rows, columns), np.float32)
    down, across = (_gaussian(_centres(side)[:, None] - _centres(count), 0.6 / count) for count in (rows, columns))
    return np.einsum("nzk,kx->nzx", np.einsum("zk,nkc->nzc", down, knots), np.ascontiguousarray(across.T))


def _step(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # logistic, without overflow


def _tissue(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Return echogenicity without a lesion, dB, [n, side, side]: skin, fat, fibroglandular tissue, muscle."""

    def draw(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)

    depth = _centres(side)[:, None]
    wavy = depth + 0.04 * _field(rng, n, side, 2, 4)
    fat_ends, gland_ends = draw(0.12, 0.35), draw(0.55, 1.0)
    gland = _step((wavy - fat_ends) / 0.015) * _step((gland_ends - wavy) / 0.02)
    streaks = draw(3, 6) * _field(rng, n, side, 32, 6) + draw(2, 5) * _field(rng, n, side, 9, 4)
    septa = np.exp(-((_field(rng, n, side, 28, 5) / 0.2) ** 2))  # zero crossings of a field: thin, curved lines
    septa *= draw(6, 18) * _step(3 * _field(rng, n, side, 6, 4))
    skin = draw(10, 26) * np.exp(-((depth / 0.02) ** 2))
    coupling = draw(2, 6) * _field(rng, n, side, 2, 5) * np.sqrt(depth)
    attenuation = draw(20, 55) * depth**1.5
    return draw(-7, 9) + draw(3, 14) * gland + streaks + septa + skin + coupling - attenuation


def _draw(rng: np.random.Generator, labels: np.ndarray, benign: float, malignant: float, spread: float) -> np.ndarray:
    """Draw from normal distributions about the mean of the class of each image, [n, 1, 1]."""
    return rng.normal(np.where(labels, malignant, benign), spread).astype(np.float32)[:, None, None]


def _contour_distance(rng: np.random.Generator, labels: np.ndarray, side: int) -> np.ndarray:
    """Return distances from the centre of the lesion, [n, side, side]; 1 on the contour.

    The contour is an ellipse with random radial harmonics.
    """
    n = len(labels)
    radius, tilt = np.exp(_draw(rng, labels, -2.25, -1.95, 0.3)), _draw(rng, labels, 0, 0, 0.2)
    stretch = np.exp(_draw(rng, labels, -0.3, 0.1, 0.17))  # square root of height over width
    x = _centres(side) - _draw(rng, labels, 0.5, 0.5, 0.13)
    z = _centres(side)[:, None] - _draw(rng, labels, 0.38, 0.42, 0.08)
    x, z = (x * np.cos(tilt) + z * np.sin(tilt)) * stretch, (z * np.cos(tilt) - x * np.sin(tilt)) / stretch
    harmonics = np.arange(2, 15, dtype=np.float32)[:, None]
    phase = 2 * np.pi * (harmonics * _centres(ANGLES) + rng.random((n, len(harmonics), 1), np.float32))
    waves = (rng.standard_normal((n, len(harmonics), 1), np.float32) * np.cos(phase) / harmonics).sum(1)
    contour = radius[:, 0] * np.exp(np.abs(_draw(rng, labels, 0.07, 0.3, 0.1))[:, 0] * waves)  # spikes point outward
    angle = ((np.arctan2(z, x) / (2 * np.pi) + 0.5) * ANGLES).astype(np.int32) % ANGLES
    return np.hypot(x, z) / np.take_along_axis(contour, angle.reshape(n, -1), 1).reshape(angle.shape)


def _box(inside: np.ndarray) -> list[float]:
    """Return the box around pixels: x, y, width, height in shares; nan if none. inside: bool [side, side]."""
    ends = [np.flatnonzero(inside.any(axis))[[0, -1]] + (0, 1) for axis in (0, 1) if inside.any()]
    (left, right), (top, bottom) = np.array(ends) / len(inside) if ends else np.full((2, 2), np.nan)
    return [left, top, right - left, bottom - top]


def _add_lesion(rng: np.random.Generator, tissue: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add a lesion to most images.

    A lesion has dark content, sometimes a bright capsule, and mostly a shadow (malignant) or an enhancement (benign)
    below. Returns: echogenicity, dB, [n, side, side]; boxes [n, 4], as from `_box`.
    """
    n, side = tissue.shape[:2]
    present = (labels > 0) | (rng.random(n) >= NORMAL_SHARE)
    distance = _contour_distance(rng, labels, side)
    inside = _step((1 - distance) / np.maximum(_draw(rng, labels, 0.03, 0.08, 0.03), 0.02))
    pattern = np.abs(_draw(rng, labels, 1, 3, 1)) * _field(rng, n, side, 16, 12)
    content = tissue.mean(2, keepdims=True) - np.maximum(_draw(rng, labels, 22, 22, 6), 6) + pattern
    capsule = np.maximum(_draw(rng, labels, 3, -2, 3), 0) * np.exp(-(((distance - 1.1) / 0.08) ** 2))
    path = np.cumsum(_step((1 - distance) / 0.2), 1) / side  # lesion above each pixel; soft, because the beam is wide
    cast = _draw(rng, labels, -20, 60, 40) * path
    echo = tissue + present[:, None, None] * (inside * (content - tissue) + capsule - cast)
    return echo, np.array([_box(shape) for shape in (distance <= 1) & present[:, None, None]])


def _scan(rng: np.random.Generator, echo: np.ndarray) -> np.ndarray:
    """Return log-compressed images, dB, [n, side, side]. echo: echogenicity, dB, same shape.

    An image is the mean power of `LOOKS` independent looks with Rayleigh-distributed amplitude, plus electronic noise.
    """
    axial, lateral = _kernel(PSF_AXIAL * echo.shape[1]), _kernel(PSF_LATERAL * echo.shape[2])
    margin = ((0, 0), (len(axial) // 2,) * 2, (len(lateral) // 2,) * 2)
    amplitude = 10 ** (np.pad(echo, margin, mode="edge") / 20)
    power: np.ndarray = np.asarray(10 ** (NOISE_FLOOR / 10), np.float32)
    for _ in range(2 * LOOKS):  # real and imaginary part of each look
        scatterers = amplitude * rng.standard_normal(amplitude.shape, np.float32)
        columns_first = np.ascontiguousarray(_blur(scatterers, axial).swapaxes(1, 2))
        power = power + _blur(columns_first, lateral) ** 2 / LOOKS
    return 10 * np.log10(power).swapaxes(1, 2)


def generate(n: int, size: int, seed: int, malignant_share: float = 0.27) -> tuple[np.ndarray, np.ndarray]:
    """Generate phantom images and their labels. Image i has the same anatomy at every size; only the speckle differs.

    Args: malignant_share: in [0, 1], exact but for rounding; the default is the share of BreastMNIST.
    Returns: images uint8 [n, size, size]; labels uint8 [n], 1 for malignant.
    """
    return generate_with_boxes(n, size, seed, malignant_share)[:2]


def generate_with_boxes(n: int, size: int, seed: int, malignant_share: float = 0.27):
    """Generate phantom images, labels and the boxes around the lesions.

    Args: as for `generate`. Returns: images and labels as from `generate`; boxes float64 [n, 4], x, y, width and height
    in pixels; nan in images without a lesion.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) < round(n * malignant_share)).astype(np.uint8)
    images, boxes = np.empty((n, size, size), np.uint8), np.empty((n, 4))
    factor = -(-RENDER_SIDE // size)
    for start, stream in zip(range(0, n, CHUNK), rng.spawn(-(-n // CHUNK))):
        chunk = labels[start : start + CHUNK]
        echo, found = _add_lesion(stream, _tissue(stream, len(chunk), size * factor), chunk)
        boxes[start : start + CHUNK] = found * size
        grey = (255 * (_scan(stream, echo) - BLACK) / (WHITE - BLACK)).clip(0, 255)
        blocks = grey.reshape(len(chunk), size, factor, size, factor)
        images[start : start + CHUNK] = blocks.mean((2, 4)).round()  # antialiasing
    return images, labels, boxes
