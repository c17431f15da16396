"""Synthetic B-mode ultrasound: data for running every command offline and the tests in seconds, never evidence.

An echo is random scatterers times the tissue's echogenicity, blurred by the scanner's point-spread function; its envelope
is Rayleigh speckle (Wagner et al., IEEE Trans. Sonics Ultrason. 1983, for the statistics), and its logarithm is the
image. So everything here adds up in decibels. The classes differ by what BI-RADS looks at (shape, orientation, margin,
echo pattern, posterior features), each drawn from distributions that overlap: no single sign decides, as in life.

Lengths are shares of the image's side and depth runs downward, so an image shows the same phantom at every size.
"""

import numpy as np

CHUNK = 32  # images rendered together: bounds memory; fixed, because it decides which image draws which numbers
RENDER_SIDE = 112  # pixels rendered per side at least; twice the size if that is more
NORMAL_SHARE = 0.15  # of the images that are not malignant: no lesion at all
PSF_AXIAL, PSF_LATERAL = 0.0035, 0.007  # standard deviations; the beam is wider than the pulse is long
BLACK, WHITE, NOISE_FLOOR = -34.0, 42.0, -31.0  # dB; 0 is fat near the skin at medium gain
ANGLES = 512  # samples of a lesion's contour


def _centres(count: int) -> np.ndarray:
    return (np.arange(count, dtype=np.float32) + 0.5) / count


def _smoothing(side: int, knots: int, sigma: float) -> np.ndarray:
    """[side, knots] Gaussian weights from knots to pixels, in rows of unit norm: white noise keeps its variance."""
    weights = np.exp(-0.5 * ((_centres(side)[:, None] - _centres(knots)) / sigma) ** 2)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def _field(rng: np.random.Generator, n: int, side: int, rows: int, columns: int) -> np.ndarray:
    """Smooth random fields of unit variance, [n, side, side], with about `rows` x `columns` features."""
    knots = rng.standard_normal((n, rows, columns), dtype=np.float32)
    return _smoothing(side, rows, 0.6 / rows) @ knots @ _smoothing(side, columns, 0.6 / columns).T


def _step(x: np.ndarray) -> np.ndarray:
    """Logistic step from 0 to 1."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _tissue(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Echogenicity of breast without a lesion, dB, [n, side, side]: skin, fat, fibroglandular tissue, muscle."""

    def draw(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)

    depth = _centres(side)[:, None]
    wavy = depth + 0.04 * _field(rng, n, side, 2, 4)
    fat_ends, gland_ends = draw(0.12, 0.35), draw(0.55, 1.0)
    gland = _step((wavy - fat_ends) / 0.015) * _step((gland_ends - wavy) / 0.02)
    streaks = draw(3, 6) * _field(rng, n, side, 32, 6) + draw(2, 5) * _field(rng, n, side, 9, 4)
    septa = np.exp(-((_field(rng, n, side, 28, 5) / 0.2) ** 2))  # the zero crossings of a field: thin, curved lines
    septa *= draw(6, 18) * _step(3 * _field(rng, n, side, 6, 4))
    skin = draw(8, 20) * np.exp(-((depth / 0.03) ** 2))
    coupling = draw(2, 6) * _field(rng, n, side, 2, 5) * np.sqrt(depth)
    attenuation = draw(20, 55) * depth**1.5
    return draw(-7, 9) + draw(3, 14) * gland + streaks + septa + skin + coupling - attenuation


def _contour(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random closed contours, [n, ANGLES], of unit variance: harmonics 2 to 14 of the polar angle."""
    harmonics = np.arange(2, 15, dtype=np.float32)
    phase = 2 * np.pi * _centres(ANGLES) * harmonics[:, None]
    waves = np.concatenate([np.cos(phase), np.sin(phase)]) / np.tile(harmonics, 2)[:, None] ** 1.0
    return rng.standard_normal((n, len(waves)), dtype=np.float32) @ waves / np.sqrt((waves**2).sum(0))


def _add_lesion(rng: np.random.Generator, tissue: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Echogenicity, dB, [n, side, side], of the tissue with a lesion in it: its inside takes the tissue's place, a
    capsule may surround it, and below it lies a shadow or posterior enhancement."""
    n, side = tissue.shape[:2]

    def draw(benign: float, malignant: float, spread: float) -> np.ndarray:
        return rng.normal(np.where(labels, malignant, benign), spread).astype(np.float32)[:, None, None]

    present = (labels > 0) | (rng.random(n) >= NORMAL_SHARE)
    radius, taller = np.exp(draw(-2.25, -1.95, 0.3)), np.exp(draw(-0.3, 0.1, 0.2))  # sqrt of height over width
    tilt, roughness = draw(0, 0, 0.2), np.abs(draw(0.05, 0.2, 0.07))
    x = _centres(side) - draw(0.5, 0.5, 0.13)
    z = _centres(side)[:, None] - draw(0.38, 0.42, 0.08)
    x, z = (x * np.cos(tilt) + z * np.sin(tilt)) * taller, (z * np.cos(tilt) - x * np.sin(tilt)) / taller
    angle = ((np.arctan2(z, x) / (2 * np.pi) + 0.5) * ANGLES).astype(np.int32) % ANGLES
    contour = radius[:, 0] * np.exp(roughness[:, 0] * _contour(rng, n))
    distance = np.hypot(x, z) / np.take_along_axis(contour, angle.reshape(n, -1), 1).reshape(angle.shape)
    inside = _step((1 - distance) / np.clip(draw(0.03, 0.08, 0.03), 0.02, None))

    content = tissue.mean(2, keepdims=True) + np.abs(draw(1, 3, 1)) * _field(rng, n, side, 16, 12) - np.clip(draw(22, 22, 6), 6, None)
    capsule = np.clip(draw(3, -2, 3), 0, None) * np.exp(-(((distance - 1.1) / 0.08) ** 2))
    beam = _smoothing(side, side, 0.025)  # as wide as the aperture, so that what a lesion casts has soft edges
    below = np.cumsum(inside, 1) @ (beam / beam.sum(1)) / side  # each beam's path through the lesion so far
    changed = inside * (content - tissue) + capsule - draw(-20, 60, 40) * below
    return tissue + present[:, None, None] * changed


def _scan(rng: np.random.Generator, echo: np.ndarray) -> np.ndarray:
    """Speckled, log-compressed envelope, dB, of tissue with echogenicity `echo`, dB, [n, side, side]."""
    side = echo.shape[-1]
    scatterers = rng.standard_normal((2, *echo.shape), dtype=np.float32) * 10 ** (echo / 20)
    axial, lateral = (_smoothing(side, side, sigma) for sigma in (PSF_AXIAL, PSF_LATERAL))
    real, imaginary = axial @ scatterers @ lateral.T
    return 10 * np.log10(real**2 + imaginary**2 + 10 ** (NOISE_FLOOR / 10))


def generate(n: int, size: int, seed: int, malignant_share: float = 0.27) -> tuple[np.ndarray, np.ndarray]:
    """Phantom images with labels; the same arguments give the same arrays.

    Args:
        n: number of images.
        size: side in pixels; image i shows the same anatomy at every size, only its speckle differs.
        seed: 0 or above.
        malignant_share: share of malignant images, in [0, 1]; met exactly but for rounding.

    Returns: (images uint8 [n, size, size], labels uint8 [n], 1 for malignant).
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) < round(n * malignant_share)).astype(np.uint8)
    images = np.empty((n, size, size), np.uint8)
    factor = max(2, -(-RENDER_SIDE // size))
    for start, stream in zip(range(0, n, CHUNK), rng.spawn(-(-n // CHUNK))):
        chunk = labels[start : start + CHUNK]
        echo = _add_lesion(stream, _tissue(stream, len(chunk), size * factor), chunk)
        grey = (255 * (_scan(stream, echo) - BLACK) / (WHITE - BLACK)).clip(0, 255)
        pixels = grey.reshape(len(chunk), size, factor, size, factor).mean((2, 4))  # antialiasing
        images[start : start + CHUNK] = pixels.round()
    return images, labels
