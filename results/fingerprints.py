"""Measure how well fingerprints recognise training images, and how much of a picture a fingerprint reveals.

    python -m results.fingerprints                                  prints the table, in Markdown
    python -m results.fingerprints busi_splits.csv BREAST_FOLDER    first writes results/fingerprints.csv

busi_splits.csv is a table of BUSI's files with the columns image, split and index (of the image in BreastMNIST).
BREAST_FOLDER holds BrEaST-Lesions-USG as downloaded. The program also reads BreastMNIST. Of BUSI and BreastMNIST, only
train and val are read. These images chose two limits of differing bits; no test image did. The first limit is the
largest distance of a copy that is not cut. The second limit has the highest F2 score, because a missed near-duplicate
counts as unseen.
"""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from common import duplicates, files, fingerprints, imagefile, npzfile
from common.run import flags
from results import log

COLUMNS = (
    "about bits limit cases precision recall lowest_correlation smallest_distance largest_distance "
    "mean_correlation above_0.95 thumbnail_pixels"
).split()
LIMITS = {  # compared limits of differing bits, for the same picture and for a near-duplicate
    128: (range(2, 8), range(9, 15)),
    256: (range(4, 15), range(18, 29)),
    512: (range(8, 29, 2), range(36, 57, 2)),
}
SAME_PICTURE = 0.998  # correlation; BreastMNIST at 64, 128 or 224 pixels has 0.9986 or more with itself at 28
RIDGE = 300.0  # the best penalty of 10, 100, 300 and 1000
FOLDS = 5


def compress(image: np.ndarray, kind: str, **options) -> np.ndarray:
    """Return an image as Pillow reads it from a file of the format `kind`. image: uint8 [h, w]."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return np.asarray(Image.open(file))


def scale(image: np.ndarray, factor: float) -> np.ndarray:
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "PNG": lambda image: compress(image, "PNG"),
    "JPEG, quality 92": lambda image: compress(image, "JPEG", quality=92),
    "JPEG, quality 75": lambda image: compress(image, "JPEG", quality=75),
    "JPEG, quality 60": lambda image: compress(image, "JPEG", quality=60),
    "half the size": lambda image: scale(image, 0.5),
    "double the size": lambda image: scale(image, 2),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "2 pixels of border cut off": lambda image: image[2:-2, 2:-2],
}


def read_busi(table: Path) -> tuple[list[np.ndarray], list[tuple[str, int]]]:
    """Return the images of BUSI in train and val, and (split, index) of each image in BreastMNIST."""
    with open(table, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in ("train", "val")]
    images = [next(imagefile.frames(table.parent / row["image"])) for row in rows]
    return images, [(row["split"], int(row["index"])) for row in rows]


def read_breast(folder: Path) -> list[np.ndarray]:
    """Return the images of BrEaST, without masks."""
    return [next(imagefile.frames(path)) for path in sorted(folder.rglob("case[0-9][0-9][0-9].*"))]


def read_breastmnist(size: int, places: list[tuple[str, int]]) -> np.ndarray:
    """Return images of BreastMNIST, uint8 [n, size, size]. places: (split, index) of each image."""
    with np.load(npzfile.breastmnist_path(None, size)) as file:
        stored = {split: file[f"{split}_images"] for split in ("train", "val")}
    return np.stack([stored[split][index] for split, index in places])


def measure_limits(bits: int, known: np.ndarray, asked: np.ndarray, own: np.ndarray) -> Iterator[dict]:
    """Yield rows of precision and recall of fingerprints, compared with the exact correlation.

    Each image is asked about twice: with the original picture among the known images, and without. Only the second
    question is about near-duplicates.

    Args: known: uint8 [m, 28, 28]; asked: uint8 [n, 28, 28], changed copies; own: int [n], index of each original.
    """
    distance = distances(asked, fingerprints.fingerprint(known, bits))
    correlation = duplicates.correlate(duplicates.unit_vectors(asked), duplicates.unit_vectors(known))
    copies = np.arange(len(asked)), own
    nearest, highest = distance.min(1), correlation.max(1)
    distance[copies], correlation[copies] = bits + 1, -1
    nearest_other, highest_other = distance.min(1), correlation.max(1)
    same = np.append(np.full(len(asked), True), highest_other > SAME_PICTURE)
    questions = {
        "the same picture": (np.append(nearest, nearest_other), np.append(highest, highest_other), same),
        "near-duplicates": (nearest_other, highest_other, highest_other > duplicates.THRESHOLD),
    }
    for (about, (smallest, alike, true)), limits in zip(questions.items(), LIMITS[bits]):
        for limit in limits:
            found = smallest <= limit
            precision, recall = (f"{np.sum(found & true) / np.sum(each):.4f}" for each in (found, true))
            row = {"about": about, "bits": bits, "limit": limit, "cases": len(true)}
            yield row | {"precision": precision, "recall": recall, "lowest_correlation": f"{alike[found].min():.3f}"}


def distances(asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the differing bits of each image and each known fingerprint. A mirrored image counts if it is nearer.

    Args: asked: uint8 [n, 28, 28]; known: uint8 [m, bytes]. Returns: float32 [n, m].
    """
    views = [fingerprints.fingerprint(view, known.shape[1] * 8) for view in (asked, asked[:, :, ::-1])]
    return np.minimum(*(fingerprints.differing_bits(view, known) for view in views))


def measure_change(change: str, known: np.ndarray, changed: np.ndarray) -> dict:
    """Return a row: how far changed copies are from the originals. known, changed: uint8 [n, 28, 28]."""
    own = distances(changed, fingerprints.fingerprint(known)).diagonal()
    row = {"about": "the same picture, " + change, "bits": fingerprints.BITS, "limit": fingerprints.SAME}
    recall = f"{np.mean(own <= fingerprints.SAME):.4f}"
    return row | {"cases": len(own), "recall": recall, "largest_distance": int(own.max())}


def measure_hospitals(images: np.ndarray, others: np.ndarray) -> dict:
    """Return a row: how near another hospital comes. images: uint8 [n, 28, 28]; others: uint8 [m, 28, 28]."""
    nearest = fingerprints.distance(others, fingerprints.fingerprint(images))
    row = {"about": "BrEaST where BUSI is known", "bits": fingerprints.BITS, "limit": fingerprints.NEAR}
    return row | {"cases": len(nearest), "smallest_distance": int(nearest.min())}


def pearson(guesses: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the correlation of each guess with its image, [n]. guesses, vectors (standardised images): [n, 784]."""
    centred = guesses - guesses.mean(1, keepdims=True)
    return (centred * vectors).sum(1) / np.linalg.norm(centred, axis=1)


def guess(signs: np.ndarray, vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Guess images from their fingerprints by ridge regression, trained on the images of other groups.

    Args: signs: [n, bits] of ±1; vectors: [n, 784]; groups: int [n]. Returns: [n, 784].
    """
    guesses = np.zeros_like(vectors)
    for fold in range(FOLDS):
        out = groups % FOLDS == fold
        (x, y), (mean_x, mean_y) = (signs[~out], vectors[~out]), (signs[~out].mean(0), vectors[~out].mean(0))
        gram = (x - mean_x).T @ (x - mean_x) + RIDGE * np.eye(signs.shape[1])
        guesses[out] = (signs[out] - mean_x) @ np.linalg.solve(gram, (x - mean_x).T @ (y - mean_y)) + mean_y
    return guesses


def thumbnails(images: np.ndarray, side: int) -> np.ndarray:
    """Return images reduced to side × side pixels and enlarged again, [n, 784]. images: uint8 [n, 28, 28]."""
    small = [Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(each.resize((28, 28), Image.Resampling.BICUBIC), float).ravel() for each in small])


def measure_guesses(images: np.ndarray) -> Iterator[dict]:
    """Yield rows: the correlation of guesses from fingerprints with the images, and the thumbnail that shows as much.

    Args: images: uint8 [n, 28, 28]. The size of a thumbnail is its side in pixels.
    """
    vectors = duplicates.unit_vectors(images).reshape(len(images), -1).astype(float)
    groups = np.unique(duplicates.find_groups(images), return_inverse=True)[1]
    sharpness = [pearson(thumbnails(images, side), vectors).mean() for side in range(2, 28)]
    for bits in LIMITS:
        signs = np.unpackbits(fingerprints.fingerprint(images, bits), axis=1) * 2.0 - 1
        ways = {
            "back-projection": signs @ fingerprints.projections(bits).T,
            "regression, learnt from other such images": guess(signs, vectors, groups),
        }
        for how, guesses in ways.items():
            found = pearson(guesses, vectors)
            row = {"about": "guessing the picture by " + how, "bits": bits, "cases": len(found)}
            row |= {"mean_correlation": f"{found.mean():.3f}", "above_0.95": f"{np.mean(found > 0.95):.3f}"}
            yield row | {"thumbnail_pixels": int(np.searchsorted(sharpness, found.mean())) + 2}


def measure_all(busi: Path, breast: Path) -> list[dict]:
    """Return all rows of fingerprints.csv. Arguments: as on the command line."""
    pictures, places = read_busi(busi)
    pictures += read_breast(breast)
    known = np.stack([imagefile.prepare(picture, 28) for picture in pictures])
    copies = {
        change: np.stack([imagefile.prepare(how(picture), 28) for picture in pictures])
        for change, how in CHANGES.items()
    }
    for size in npzfile.SIZES:
        copies[f"BreastMNIST, {size} pixels"] = fingerprints.shrink(read_breastmnist(size, places))
    asked, own = np.concatenate([*copies.values()]), np.concatenate([np.arange(len(each)) for each in copies.values()])
    rows = [measure_change(change, known[: len(changed)], changed) for change, changed in copies.items()]
    rows.append(measure_hospitals(known[: len(places)], known[len(places) :]))
    for bits in LIMITS:
        rows += measure_limits(bits, known, asked, own)
    rows += measure_guesses(known)
    return [dict.fromkeys(COLUMNS, "") | row for row in rows]


def table() -> str:
    """Return fingerprints.csv in Markdown; of the compared limits, only those in use, scaled to the number of bits."""
    limits = {"the same picture": fingerprints.SAME, "near-duplicates": fingerprints.NEAR}
    rows = [
        row
        for row in log.read("fingerprints.csv")
        if row["about"] not in limits
        or int(row["limit"]) == limits[row["about"]] * int(row["bits"]) // fingerprints.BITS
    ]
    return log.markdown(" | ".join(COLUMNS).replace("_", " "), [list(row.values()) for row in rows])


def main():
    parser = log.parser(__doc__)
    parser.add_argument("sets", nargs="*", type=Path, help="busi_splits.csv, and the folder of BrEaST-Lesions-USG")
    if sets := parser.parse_args().sets:
        if len(sets) != 2:
            parser.error("give two: busi_splits.csv, and the folder of BrEaST-Lesions-USG")
        files.write_csv(log.FOLDER / "fingerprints.csv", measure_all(*sets))
    print(table())


if __name__ == "__main__":
    flags.run(main)
