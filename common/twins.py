"""Near-duplicates: BUSI, the source of BreastMNIST, holds the same lesion several times.

Two images are twins when the Pearson correlation of their 28x28 pixels, as stored or mirrored left-right, exceeds
`THRESHOLD`; a group is a connected component of twins.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image

from common.data import Split

SIDE = 28
THRESHOLD = 0.95


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Images as unit vectors whose dot product is the Pearson correlation of their 28x28 pixels.

    Args: images: uint8 [n, side, side]; larger ones are first resized as MedMNIST does (antialiased bilinear).
    Returns: float32 [n, 28, 28]; a constant image, whose correlation is undefined, is all zero and has no twin.
    """
    if images.shape[1:] != (SIDE, SIDE):
        resized = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for image in images]
        images = np.stack([np.asarray(image) for image in resized])
    centred = images.astype(np.float32) - images.mean((1, 2), keepdims=True, dtype=np.float32)
    norm = np.sqrt((centred**2).sum((1, 2), keepdims=True))
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)


def find_pairs(images: np.ndarray, threshold: float = THRESHOLD, block: int = 2048) -> list[tuple[int, int, float]]:
    """All twin pairs.

    Memory grows with `block`, not with n: the n x n correlations exist only a block x block tile at a time.

    Args: images: uint8 [n, side, side]; threshold: correlation above which two images are twins.
    Returns: (i, j, correlation) with i < j, the correlation as stored or mirrored, whichever is larger.
    """
    upright = fingerprints(images)
    flat, mirrored = upright.reshape(len(images), -1), upright[:, :, ::-1].reshape(len(images), -1)
    pairs = []
    for top in range(0, len(images), block):
        for left in range(top, len(images), block):
            rows, columns = flat[top : top + block], slice(left, left + block)
            correlation = np.maximum(rows @ flat[columns].T, rows @ mirrored[columns].T)
            pairs += [
                (int(i) + top, int(j) + left, float(correlation[i, j]))
                for i, j in zip(*np.nonzero(correlation > threshold))
                if i + top < j + left
            ]
    return pairs


def group(n: int, pairs) -> np.ndarray:
    """Connected components by union-find.

    Args: n: number of images; pairs: (i, j, ...) tuples.
    Returns: int [n], the smallest index of each image's group.
    """
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for i, j, *_ in pairs:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    return np.array([root(i) for i in range(n)])


def find_groups(images: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Groups of near-duplicates: int [n], the smallest index in each image's group. images: uint8 [n, side, side]."""
    return group(len(images), find_pairs(images, threshold))


@dataclass(frozen=True)
class Named:
    """An image of a data set."""

    split: str
    index: int
    label: int


@dataclass(frozen=True)
class Audit:
    """What near-duplicates there are in a data set, and which of them matter.

    pairs: (one image, the other, correlation), the most alike first. leaking: {split: images in a group with an image
    of another split}.
    """

    images: int
    groups: int
    pairs: list[tuple[Named, Named, float]]
    leaking: dict[str, int]

    @property
    def across_splits(self) -> int:
        return sum(a.split != b.split for a, b, _ in self.pairs)

    @property
    def opposite(self) -> list[tuple[Named, Named, float]]:
        """The pairs whose labels contradict each other."""
        return [(a, b, r) for a, b, r in self.pairs if a.label != b.label]


def audit(splits: dict[str, Split]) -> Audit:
    """Find the near-duplicates of a data set. splits: {name: Split}."""
    named = [Named(name, i, int(label)) for name, split in splits.items() for i, label in enumerate(split.labels)]
    images = np.concatenate([split.images for split in splits.values()])
    pairs = sorted(find_pairs(images), key=lambda pair: -pair[2])
    groups, origin = group(len(images), pairs), np.array([image.split for image in named])
    splits_of = Counter(g for g, _ in set(zip(groups.tolist(), origin)))  # how many each group has images in
    mixed = [g for g, count in splits_of.items() if count > 1]
    leaking = {name: int(np.isin(groups[origin == name], mixed).sum()) for name in splits}
    return Audit(len(images), len(splits_of), [(named[i], named[j], r) for i, j, r in pairs], leaking)
