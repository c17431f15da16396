"""Near-duplicates: BUSI, the source of BreastMNIST, holds the same lesion several times.

Two images are twins when the Pearson correlation of their 28x28 pixels, as stored or mirrored left-right, exceeds
`THRESHOLD`; a group is a connected component of twins.

    python -m common.twins      audits a data set: prints what there is, and draws the pairs
"""

import numpy as np
from PIL import Image

SIDE = 28
THRESHOLD = 0.95
SHEET = 32  # pairs in a figure


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


def audit(splits: dict) -> dict:
    """What near-duplicates there are in a data set, and which of them matter.

    Args: splits: {name: Split}. Returns: counts of images, pairs, groups, pairs across splits and pairs with opposite
        labels; for each split the images with a twin in another one; and "listed", the pairs, most alike first: split,
        index and label of both, and their correlation.
    """
    images = np.concatenate([split.images for split in splits.values()])
    labels = np.concatenate([split.labels for split in splits.values()])
    origin = [(name, i) for name, split in splits.items() for i in range(len(split))]
    pairs = sorted(find_pairs(images), key=lambda pair: -pair[2])
    groups = group(len(images), pairs)
    names_of: dict[int, set] = {}
    for g, (name, _) in zip(groups, origin):
        names_of.setdefault(int(g), set()).add(name)
    leaking = [name for g, (name, _) in zip(groups, origin) if len(names_of[int(g)]) > 1]
    return {
        "images": len(images),
        "pairs": len(pairs),
        "groups": len(names_of),
        "pairs_across_splits": sum(origin[i][0] != origin[j][0] for i, j, _ in pairs),
        "pairs_with_opposite_labels": sum(bool(labels[i] != labels[j]) for i, j, _ in pairs),
        "images_with_a_twin_in_another_split": {name: leaking.count(name) for name in splits},
        "listed": [((*origin[i], int(labels[i])), (*origin[j], int(labels[j])), r) for i, j, r in pairs],
    }


def audit_text(found: dict) -> str:
    """The audit in words."""
    elsewhere = found["images_with_a_twin_in_another_split"]
    opposite = [pair for pair in found["listed"] if pair[0][2] != pair[1][2]]
    return "\n".join(
        [
            f"{found['images']} images, {found['pairs']} pairs with a correlation above {THRESHOLD}, "
            f"{found['groups']} groups",
            f"{found['pairs_across_splits']} pairs cross splits; in a group with another split's images: "
            + ", ".join(f"{n} of {name}" for name, n in elsewhere.items()),
            f"{found['pairs_with_opposite_labels']} pairs carry opposite labels",
            *(f"  {_name(a)} and {_name(b)}, correlation {r:.4f}" for a, b, r in opposite),
        ]
    )


def _name(image: tuple) -> str:
    split, index, label = image
    return f"{split} {index} {'malignant' if label else 'benign'}"


def draw_pairs(splits: dict, listed: list, title: str):
    """A sheet of twins side by side, opposite labels framed. Returns: a matplotlib Figure."""
    from common import figures

    shown = [np.stack([splits[a[0]].images[a[1]], splits[b[0]].images[b[1]]]) for a, b, _ in listed]
    captions = [f"{_name(a)}\n{_name(b)}\ncorrelation {r:.3f}" for a, b, r in listed]
    frames = [figures.MALIGNANT if a[2] != b[2] else "white" for a, b, _ in listed]
    note = "Opposite labels are framed; mirrored pairs are shown as stored."
    return figures.image_sheet(np.stack(shown), captions, 4, title, frames=frames, note=note)


def main() -> None:
    from common import cli, data, figures, runs  # the audit's own needs, which importers of this module do not have

    parser = cli.Parser("Audit near-duplicates: how many there are, and which cross splits or carry opposite labels.")
    parser.add_argument(
        "--out", default="runs/twins", metavar="DIR", help="folder for the figures (default: %(default)s)"
    )
    cli.add_data_flags(parser)
    args = parser.parse_args()
    source = data.find(args.data, args.data_root, args.size, args.seed)
    splits = dict(zip(data.SPLITS, data.load(source, *data.SPLITS)))
    found = audit(splits)
    print(f"{source.label}\n{audit_text(found)}")
    out = runs.create(args.out)
    opposite = [pair for pair in found["listed"] if pair[0][2] != pair[1][2]]
    sheets = {"nearest the threshold": found["listed"][-SHEET:][::-1], "of opposite labels": opposite[:SHEET]}
    for name, pairs in sheets.items():
        file = out / f"twins_{name.split()[-1]}.png"
        if pairs:
            figures.save(draw_pairs(splits, pairs, f"{source.label}, twins {name}"), file)
            print(f"figure: {file}")


if __name__ == "__main__":
    from common.cli import run

    run(main)
