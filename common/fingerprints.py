"""Fingerprints of images: they show which images a model was trained on, without storing the images.

A fingerprint is 256 bits: the signs of random projections of the standardised 28×28 image (Charikar 2002, Similarity
estimation techniques from rounding algorithms). Two images of correlation r differ in about 256 arccos(r) / pi bits, so
brightness, contrast, file format and size hardly matter. All arithmetic uses whole numbers. Thus an image has the same
fingerprint on every machine.

Nobody can reconstruct an image from its fingerprint. A regression that learnt from similar images guesses about as much
as a thumbnail of 7×7 pixels shows (results/fingerprints.csv). Whoever has an image can tell whether a model was trained
on the image. Fingerprints are stored for this purpose.
"""

import base64
import functools
import hashlib

import numpy as np

from common import imagefile

SIDE = 28
BITS = 256
SAME = 9  # most differing bits between files of one picture, also at another size or mirrored (measured: 9)
NEAR = 22  # most differing bits of near-duplicates, with correlation above 0.95 (precision 0.97, recall 0.98)
NO_MATCH = BITS + 1
NAME = b"breastmnist fingerprint 1"  # another name gives other projections, and fingerprints that fit no model file
BLOCK = 2048  # images or fingerprints at a time, which bounds memory


def shrink(images: np.ndarray) -> np.ndarray:
    """Return middle squares as MedMNIST makes its images: uint8 [n, 28, 28]. images: uint8 [n, height, width]."""
    if images.shape[1:] == (SIDE, SIDE):
        return images
    return np.array([imagefile.prepare(image, SIDE) for image in images], np.uint8).reshape(-1, SIDE, SIDE)


@functools.cache
def projections(bits: int = BITS) -> np.ndarray:
    """Return random directions of ±1, changed to ignore the mean of an image: whole numbers, float64 [784, bits]."""
    random = np.frombuffer(hashlib.shake_256(NAME).digest(bits * SIDE**2 // 8), np.uint8)
    directions = np.unpackbits(random).reshape(bits, SIDE**2).T * 2.0 - 1
    return SIDE**2 * directions - directions.sum(0)


def fingerprint(images: np.ndarray, bits: int = BITS) -> np.ndarray:
    """Return the fingerprint of each image: uint8 [n, bits / 8].

    A constant image has an all-zero fingerprint, which matches nothing.
    Args: images: uint8 [n, height, width]; bits: a multiple of 8. Values other than 256 are for comparison only.
    """
    found = np.zeros((len(images), bits // 8), np.uint8)
    for start in range(0, len(images), BLOCK):
        pixels = shrink(images[start : start + BLOCK]).reshape(-1, SIDE**2)
        found[start : start + BLOCK] = np.packbits(pixels @ projections(bits) > 0, axis=1)  # exact: below 2^53
    return found


def differing_bits(fingerprints: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the number of bits that differ in each pair, by a product of signs: float32 [n, m].

    Args: fingerprints: uint8 [n, bytes]; known: uint8 [m, bytes].
    """
    signs, others = (np.unpackbits(each, axis=1).astype(np.float32) * 2 - 1 for each in (fingerprints, known))
    return (signs.shape[1] - signs @ others.T) / 2


def nearest(fingerprints: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the smallest number of bits in which each fingerprint differs from a known fingerprint: int [n].

    Without a match, the number is `NO_MATCH`. All-zero fingerprints match nothing.
    Args: fingerprints: uint8 [n, 32]; known: uint8 [m, 32].
    """
    smallest = np.full(len(fingerprints), NO_MATCH)
    known = known[known.any(1)]
    for top in range(0, len(fingerprints), BLOCK):
        here = slice(top, top + BLOCK)
        for left in range(0, len(known), BLOCK):
            bits = differing_bits(fingerprints[here], known[left : left + BLOCK]).min(1)
            smallest[here] = np.minimum(smallest[here], bits)
    return np.where(fingerprints.any(1), smallest, NO_MATCH)


def distance(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the smallest number of bits in which each image differs from a known fingerprint: int [n].

    The smaller number of the stored and the left-right mirrored image counts. The range is 0 to 256. The number is 257
    without a known fingerprint, and for a constant image. Args: images: uint8 [n, height, width]; known: uint8 [m, 32].
    """
    views = (images, images[:, :, ::-1])
    return np.minimum(*(nearest(fingerprint(view), known) for view in views))


def encode(fingerprints: np.ndarray) -> str:
    """Return fingerprints as base64 text. fingerprints: uint8 [n, 32]."""
    return base64.b64encode(fingerprints.tobytes()).decode("ascii")


def decode(text: str) -> np.ndarray:
    """Return the fingerprints of a text: uint8 [n, 32]. Raises: ValueError on anything that `encode` does not write."""
    if not isinstance(text, str):
        raise ValueError(f"fingerprints are base64 text, not {type(text).__name__}")
    stored = base64.b64decode(text, validate=True)
    if len(stored) % (BITS // 8):
        raise ValueError(f"fingerprints have {BITS // 8} bytes each; {len(stored)} bytes are no whole number of them")
    return np.frombuffer(stored, np.uint8).reshape(-1, BITS // 8)
