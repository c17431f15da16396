"""Augmentation of whole batches, for B-mode ultrasound.

The changes are those between two scans of the same lesion: side of the probe (mirror), tilt of the probe (small
rotation), depth setting and position (scale, shift), gain and dynamic range (brightness, contrast), and hidden parts
(erasing). Two scanners differ in grey curve (gamma), resolution (sharpness) and speckle. A model that is trained with
these three changes does better at a new hospital (Zhang et al., IEEE TMI 2020; results/lesion.md).

Images are never turned upside down. Depth runs downward from the probe, so an acoustic shadow falls below its lesion.
No scanner produces a picture with the shadow above the lesion.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from common.settings import Settings


@dataclass(frozen=True)
class Strength:
    """Limits of augmentation. Each amount is drawn uniformly, anew for every image."""

    flip: float = 0.5  # probability of a left-right flip
    degrees: float = 10.0  # largest rotation, in either direction
    zoom: float = Settings.zoom  # largest zoom as a share, in or out
    shift: float = 0.10  # largest translation along each axis, as a share of the side
    contrast: float = 0.2  # largest change of contrast about the image mean, as a share
    brightness: float = 0.1  # largest change of brightness, as a share of the grey range
    scanners: bool = False  # whether to change gamma, sharpness and speckle, which differ between scanners
    gamma: float = 0.5  # grey levels to the power of e^x, largest x in either direction
    sharpness: float = 1.0  # largest share of the fine detail that is removed or added
    speckle: float = 0.25  # largest standard deviation of the noise, as a share of each grey level
    erasing: float = 0.25  # probability of a rectangle set to the image mean


FINDING = Strength(zoom=0.3, shift=0.15)  # for finders: a lesion may be anywhere (results/lesion.md)


def uniform(images: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Draw from U(low, high) for each image, [n]. The CPU draws, so that a seed gives the same on every device."""
    return (low + (high - low) * torch.rand(len(images), generator=generator)).to(images.device)


def affine(planes: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Mirror, rotate, scale and shift in one bilinear resampling, so that an image is blurred only once.

    Outside the frame, the image continues mirrored at the border.
    Args: planes: [n, planes, h, w], square. Planes of one image, such as the image and its heat map, move together.
    """
    images = planes[:, 0]
    angle = uniform(images, -strength.degrees, strength.degrees, generator).deg2rad()
    zoom = 1 + uniform(images, -strength.zoom, strength.zoom, generator)
    sign = 1 - 2 * (uniform(images, 0, 1, generator) < strength.flip).float()
    shift = [uniform(images, -2 * strength.shift, 2 * strength.shift, generator) for _ in "xy"]  # grid spans [-1, 1]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([sign * cos, -sign * sin, shift[0], sin, cos, shift[1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)


def gain(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Change the contrast about the mean of each image, then the brightness; clip to [0, 1]. images: [n, h, w]."""
    contrast = 1 + uniform(images, -strength.contrast, strength.contrast, generator)[:, None, None]
    brightness = uniform(images, -strength.brightness, strength.brightness, generator)[:, None, None]
    mean = images.mean((1, 2), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(0, 1)


def change_gamma(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Raise grey levels to a random power (gamma), which keeps black and white. images: [n, h, w] in [0, 1]."""
    return images ** uniform(images, -strength.gamma, strength.gamma, generator)[:, None, None].exp()


def sharpen(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Blur or sharpen images; clip to [0, 1]. images: [n, h, w].

    A binomial filter of 5x5 pixels removes fine detail. A share of this detail is removed or added.
    """
    share = uniform(images, -strength.sharpness, strength.sharpness, generator)[:, None, None]
    filtered = F.pad(images[:, None], (2, 2, 2, 2), "reflect")
    row = torch.tensor([1.0, 4, 6, 4, 1], device=images.device) / 16
    for kernel in (row.view(1, 1, 1, 5), row.view(1, 1, 5, 1)):
        filtered = F.conv2d(filtered, kernel)
    return (images + share * (filtered[:, 0] - images)).clamp(0, 1)


def speckle(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Add noise in proportion to the grey level; clip to [0, 1]. images: [n, h, w]."""
    deviation = uniform(images, 0, strength.speckle, generator)[:, None, None]
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images * (1 + deviation * noise)).clamp(0, 1)


def erase(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Set a random rectangle of some images to the mean of the image (Zhong et al., AAAI 2020). images: [n, h, w].

    The probability is `strength.erasing`. The sides of the rectangle are 10-40 % of the sides of the image.
    """
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
    """Return a randomly changed copy of each image.

    Args: planes: float [n, planes, h, w] in [0, 1], square. The first plane is the image. The other planes move with
    the image but keep their values; generator: a CPU generator, the only source of chance.
    Returns: float [n, planes, h, w] in [0, 1].
    """
    moved = affine(planes, strength, generator)
    images = gain(moved[:, 0], strength, generator)
    for change in (change_gamma, sharpen, speckle) if strength.scanners else ():
        images = change(images, strength, generator)
    images = erase(images, strength, generator)
    return torch.cat([images[:, None], moved[:, 1:]], 1)


def mixup(parts: Sequence[torch.Tensor], alpha: float, generator: torch.Generator) -> list[torch.Tensor]:
    """Blend each image and its target with a random partner (mixup: Zhang et al., ICLR 2018, eq. 1).

    x = l x_i + (1 - l) x_j with one l ~ Beta(alpha, alpha) per image. If l is below 1/2, l becomes 1 - l, so that the
    first image stays the main one.

    Args: parts: tensors [n, ...], such as images and targets; alpha: 0 or above; 0 for no mixing.
    Returns: the blended parts, same shapes.
    """
    if alpha == 0:
        return list(parts)
    n, device = len(parts[0]), parts[0].device
    gammas = torch._standard_gamma(torch.full((2, n), alpha), generator=generator)
    share = (gammas.max(0).values / gammas.sum(0)).nan_to_num(1).to(device)  # a small alpha can give 0 / 0
    partner = torch.randperm(n, generator=generator).to(device)
    return [part.lerp(part[partner], 1 - share.view(-1, *[1] * (part.ndim - 1))) for part in parts]
