"""Near-duplicates: BUSI, the source of BreastMNIST, holds the same lesion several times.

Two images are twins when the Pearson correlation of their 28x28 pixels, as stored or mirrored left-right, exceeds
`THRESHOLD`; a group is a connected component of twins.
"""

from collections.abc import Sequence

import numpy as np

from common import imagefile

SIDE = 28
THRESHOLD = 0.95
SAME = 0.998  # above it: one picture. BreastMNIST at 64, 128 or 224 pixels has 0.9988 or more with itself at 28


def shrink(images: np.ndarray) -> np.ndarray:
    """Images at 28x28, as MedMNIST makes them. images: uint8 [n, side, side]."""
    if images.shape[1:] == (SIDE, SIDE):
        return images
    return np.stack([imagefile.prepare(image, SIDE) for image in images])


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Images as unit vectors whose dot product is the Pearson correlation of their 28x28 pixels.

    Args: images: uint8 [n, side, side]. Returns: float32 [n, 28, 28]; a constant image, whose correlation is undefined,
    is all zero and has no twin.
    """
    images = shrink(images)
    centred = images.astype(np.float32) - images.mean((1, 2), keepdims=True, dtype=np.float32)
    norm = np.sqrt((centred**2).sum((1, 2), keepdims=True))
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)


def highest_correlation(images: np.ndarray, others: np.ndarray, block: int = 2048) -> np.ndarray:
    """Of each image with any of the others, as stored or mirrored: [n].

    Args: images, others: uint8 [n, side, side] and [m, side, side], each of a side of its own.
    """
    upright, known = fingerprints(images), fingerprints(others).reshape(len(others), -1)
    views = [view.reshape(len(images), -1) for view in (upright, upright[:, :, ::-1])]
    highest = np.full(len(images), -1.0)
    for start in range(0, len(images), block):
        here = slice(start, start + block)
        highest[here] = np.max([(view[here] @ known.T).max(1, initial=-1) for view in views], 0)
    return highest


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


def patient_pairs(patients: Sequence[str]) -> list[tuple[int, int]]:
    """Each image with the first of its patient, (i, j). patients: [n], "" where unknown."""
    first: dict[str, int] = {}
    return [(first.setdefault(patient, i), i) for i, patient in enumerate(patients) if patient]


def find_groups(images: np.ndarray, patients: Sequence[str] = ()) -> np.ndarray:
    """Groups of near-duplicates, joined where images are of one patient.

    Args: images: uint8 [n, side, side]; patients: [n], "" where unknown; none where no patient is.
    Returns: int [n], the smallest index in each image's group.
    """
    return group(len(images), [*find_pairs(images), *patient_pairs(patients)])
