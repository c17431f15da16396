"""Augmentation of whole batches, for B-mode ultrasound.

What changes here is what changes between two scans of the same lesion: the probe's side (mirror), its tilt (small
rotation), depth setting and position (scale, shift), gain and dynamic range (brightness, contrast), and what the view
hides (erasing). Two scanners differ in their grey curve (gamma), resolution (sharpness) and speckle. A model that has
seen all three vary does better at a hospital that it has never seen (Zhang et al., IEEE TMI 2020; results/lesion.md).

Images are never turned upside down: depth runs downward from the probe, so an acoustic shadow falls below its lesion.
No scanner produces a picture with the shadow above the lesion.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from common.settings import Settings


@dataclass(frozen=True)
class Strength:
    """How far augmentation may go; each amount is drawn uniformly and anew for every image."""

    mirror: float = 0.5  # probability of a left-right flip
    degrees: float = 10.0  # rotation up to this, either way
    scale: float = Settings.zoom  # zoom by up to this share, in or out
    shift: float = 0.10  # translation by up to this share of the side, each axis
    contrast: float = 0.2  # about the image mean, by up to this share
    brightness: float = 0.1  # added, as a share of the grey range
    scanners: bool = False  # whether the next three count, which vary what differs between scanners
    gamma: float = 0.5  # grey levels to the power of e^x, x up to this, either way
    sharpness: float = 1.0  # of the image's fine detail, this share is taken away or added
    speckle: float = 0.25  # standard deviation of the noise up to this, as a share of each grey level
    erasing: float = 0.25  # probability of a rectangle set to the image mean


FINDING = Strength(scale=0.3, shift=0.15)  # of frames in which a lesion is to be found, wherever it is (lesion.md)


def uniform(images: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """A draw from U(low, high) for each image, on the CPU so that a seed means the same on every device."""
    return (low + (high - low) * torch.rand(len(images), generator=generator)).to(images.device)


def affine(planes: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Mirror, rotate, scale and shift in one bilinear resampling, so that the image is blurred only once; what comes
    from outside the frame repeats the mirrored border. planes: [n, planes, h, w], square; those of one image, such as
    the image and its heat map, move together."""
    images = planes[:, 0]
    angle = uniform(images, -strength.degrees, strength.degrees, generator).deg2rad()
    zoom = 1 + uniform(images, -strength.scale, strength.scale, generator)
    sign = 1 - 2 * (uniform(images, 0, 1, generator) < strength.mirror).float()
    shift = [uniform(images, -2 * strength.shift, 2 * strength.shift, generator) for _ in "xy"]  # grid spans [-1, 1]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([sign * cos, -sign * sin, shift[0], sin, cos, shift[1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)


def gain(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Contrast about each image's mean, then brightness, clipped to [0, 1]. images: [n, h, w]."""
    contrast = 1 + uniform(images, -strength.contrast, strength.contrast, generator)[:, None, None]
    brightness = uniform(images, -strength.brightness, strength.brightness, generator)[:, None, None]
    mean = images.mean((1, 2), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(0, 1)


def grey_curve(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Gamma: a power of the grey levels, which keeps black and white. images: [n, h, w] in [0, 1]."""
    return images ** uniform(images, -strength.gamma, strength.gamma, generator)[:, None, None].exp()


def focus(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Blur or sharpen: take away, or add, a share of what a binomial filter of 5x5 pixels removes; clipped to [0, 1].
    images: [n, h, w]."""
    share = uniform(images, -strength.sharpness, strength.sharpness, generator)[:, None, None]
    filtered = F.pad(images[:, None], (2, 2, 2, 2), "reflect")
    row = torch.tensor([1.0, 4, 6, 4, 1], device=images.device) / 16
    for kernel in (row.view(1, 1, 1, 5), row.view(1, 1, 5, 1)):
        filtered = F.conv2d(filtered, kernel)
    return (images + share * (filtered[:, 0] - images)).clamp(0, 1)


def speckle(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Noise in proportion to the grey level, clipped to [0, 1]. images: [n, h, w]."""
    deviation = uniform(images, 0, strength.speckle, generator)[:, None, None]
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images * (1 + deviation * noise)).clamp(0, 1)


def erase(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Random erasing: with probability `strength.erasing`, a rectangle of sides 10-40 % of the image takes the image's
    mean (Zhong et al., AAAI 2020). images: [n, h, w]."""
    inside = torch.ones_like(images, dtype=torch.bool)
    for axis in (1, 2):
        length = images.shape[axis]
        side = uniform(images, 0.1, 0.4, generator) * length
        start = uniform(images, 0, 1, generator) * (length - side)
        position = torch.arange(length, device=images.device) + 0.5
        within = (position >= start[:, None]) & (position < (start + side)[:, None])
        inside &= within.unsqueeze(3 - axis)
    chosen = uniform(images, 0, 1, generator) < strength.erasing
    return torch.where(inside & chosen[:, None, None], images.mean((1, 2), keepdim=True), images)


def augment(planes: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """A randomly changed copy of each image.

    Args: planes: float [n, planes, h, w] in [0, 1], square: the image, and what moves with it but keeps its values;
    generator: a CPU generator, the only source of chance.
    Returns: float [n, planes, h, w] in [0, 1].
    """
    moved = affine(planes, strength, generator)
    images = gain(moved[:, 0], strength, generator)
    for change in (grey_curve, focus, speckle) if strength.scanners else ():
        images = change(images, strength, generator)
    images = erase(images, strength, generator)
    return torch.cat([images[:, None], moved[:, 1:]], 1)


def mixup(parts: Sequence[torch.Tensor], alpha: float, generator: torch.Generator) -> list[torch.Tensor]:
    """Blend each image, its target and whatever else belongs to it with a random partner's: x = l x_i + (1 - l) x_j,
    one l ~ Beta(alpha, alpha) an image, l >= 1/2 so that the first stays the main one (Zhang et al., ICLR 2018, eq. 1).

    Args: parts: [n, ...] each; alpha: above 0, or 0 for no mixing.
    """
    if alpha == 0:
        return list(parts)
    n, device = len(parts[0]), parts[0].device
    gammas = torch._standard_gamma(torch.full((2, n), alpha), generator=generator)
    share = (gammas.max(0).values / gammas.sum(0)).nan_to_num(1).to(device)  # a small alpha draws 0 / 0
    partner = torch.randperm(n, generator=generator).to(device)
    return [part.lerp(part[partner], 1 - share.view(-1, *[1] * (part.ndim - 1))) for part in parts]
