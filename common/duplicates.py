"""Find near-duplicates and groups of images. BUSI, the source of BreastMNIST, shows many lesions several times.

Two images are near-duplicates when the Pearson correlation of their 28×28 pixels, as stored or mirrored left-right,
exceeds `THRESHOLD`. A group is a connected component of near-duplicates and of images of one patient.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from common.fingerprints import SIDE, shrink

THRESHOLD = 0.95
MOST = 10_000  # most pairs in a list
BLOCK = 2048  # images at a time, which bounds memory


def unit_vectors(images: np.ndarray) -> np.ndarray:
    """Return images as unit vectors. The dot product of two vectors is the Pearson correlation of their 28×28 pixels.

    Args: images: uint8 [n, height, width]. Returns: float32 [n, 28, 28]; all zero for a constant image, which has no
    correlation and no near-duplicate.
    """
    images = shrink(images)
    centred = images.astype(np.float32) - images.mean((1, 2), keepdims=True, dtype=np.float32)
    norm = np.sqrt((centred**2).sum((1, 2), keepdims=True))
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)


def correlate(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the larger correlation of each pair of images, as stored or with one image mirrored: float32 [n, m].

    Args: vectors, others: `unit_vectors` of n and m images.
    """
    flat, *views = (each.reshape(-1, SIDE**2) for each in (vectors, others, others[:, :, ::-1]))
    return np.maximum(*(flat @ view.T for view in views))


Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # i, j, correlation, with i < j


def search(images: np.ndarray) -> Iterator[Pairs]:
    """Yield all near-duplicates, sorted by i, for each tile of BLOCK × BLOCK images. images: uint8 [n, h, w]."""
    vectors = unit_vectors(images)
    for top in range(0, len(images), BLOCK):
        for left in range(top, len(images), BLOCK):
            correlation = correlate(vectors[top : top + BLOCK], vectors[left : left + BLOCK])
            alike = correlation > THRESHOLD
            i, j = np.nonzero(np.triu(alike, 1) if left == top else alike)
            yield i + top, j + left, correlation[i, j]


def find_pairs(images: np.ndarray) -> tuple[list[tuple[int, int, float]], int]:
    """Find the pairs of near-duplicates. images: uint8 [n, height, width].

    Returns: at most MOST pairs (i, j, correlation), i < j, the highest correlations first; and the number of all pairs.
    """
    total, kept = 0, (np.zeros(0, int), np.zeros(0, int), np.zeros(0, np.float32))
    for found in search(images):
        total += len(found[0])
        i, j, correlation = (np.concatenate(both) for both in zip(kept, found))
        first = np.argsort(-correlation, kind="stable")[:MOST]
        kept = (i[first], j[first], correlation[first])
    return list(zip(*(column.tolist() for column in kept))), total


def group(n: int, sets: Iterable[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Return groups of images: sets that share an image are joined (connected components).

    Args: n: number of images; sets: indices of images that belong together, for example (i, j).
    Returns: int [n], the smallest index in each image's group.
    """
    groups = np.arange(n)
    for members in sets:
        joined = np.unique(groups[np.asarray(members)])
        if len(joined) > 1:
            groups[np.isin(groups, joined)] = joined[0]
    return groups


def patient_pairs(patients: Sequence[str]) -> list[tuple[int, int]]:
    """Return (i, j) for each image j of a known patient; i is the patient's first image. patients: [n], "" unknown."""
    first: dict[str, int] = {}
    return [(first.setdefault(patient, i), i) for i, patient in enumerate(patients) if patient]


def alike_sets(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield each image with its near-duplicates in a tile, as indices."""
    for i, j, _ in search(images):
        first, start = np.unique(i, return_index=True)
        for image, others in zip(first, np.split(j, start[1:])):
            yield np.append(others, image)


def find_groups(images: np.ndarray, patients: Sequence[str] = ()) -> np.ndarray:
    """Find groups of images: near-duplicates, and images of one patient.

    Args: images: uint8 [n, height, width]; patients: [n], unique over all hospitals, "" if unknown; () if no patient
    is known. Returns: int [n], the smallest index in each image's group.
    """
    return group(len(images), chain(alike_sets(images), patient_pairs(patients)))
