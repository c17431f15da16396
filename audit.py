"""Audit a data set before trusting a number on it: near-duplicates, which of them cross splits or carry opposite
labels, and what augmentation makes of training images, all drawn to be looked at."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from common import data, twins
from common.augment import Strength, augment
from common.data import Split
from common.run import flags, folders
from common.show import figures

PAIRS = 32  # in a sheet
SHOWN, COPIES = 4, 5  # images of each class in the sheet of augmented ones, and copies of each


def parse_args():
    parser = flags.Parser(__doc__)
    flags.add(parser, "--out", flags.FOLDER, "folder for the figures", "runs/audit")
    flags.add_data_flags(parser)
    return parser.parse_args()


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
    pairs = sorted(twins.find_pairs(images), key=lambda pair: -pair[2])
    groups, origin = twins.group(len(images), pairs), np.array([image.split for image in named])
    splits_of = Counter(g for g, _ in set(zip(groups.tolist(), origin)))  # how many each group has images in
    mixed = [g for g, count in splits_of.items() if count > 1]
    leaking = {name: int(np.isin(groups[origin == name], mixed).sum()) for name in splits}
    return Audit(len(images), len(splits_of), [(named[i], named[j], r) for i, j, r in pairs], leaking)


def name_of(image: Named) -> str:
    return f"{image.split} {image.index} {'malignant' if image.label else 'benign'}"


def audit_text(found: Audit) -> str:
    """The audit in words."""
    return "\n".join(
        [
            f"{found.images} images, {len(found.pairs)} pairs with a correlation above {twins.THRESHOLD}, "
            f"{found.groups} groups",
            f"{found.across_splits} pairs cross splits; in a group with another split's images: "
            + ", ".join(f"{n} of {name}" for name, n in found.leaking.items()),
            f"{len(found.opposite)} pairs carry opposite labels",
            *(f"  {name_of(a)} and {name_of(b)}, correlation {r:.4f}" for a, b, r in found.opposite),
        ]
    )


def draw_pairs(splits: dict[str, Split], pairs: list, title: str):
    """A sheet of twins side by side, opposite labels framed."""
    tiles = [np.stack([splits[image.split].images[image.index] for image in (a, b)]) for a, b, _ in pairs]
    captions = [f"{name_of(a)}\n{name_of(b)}\ncorrelation {r:.3f}" for a, b, r in pairs]
    frames = [figures.MALIGNANT if a.label != b.label else "white" for a, b, _ in pairs]
    note = "Opposite labels are framed; mirrored pairs are shown as stored."
    return figures.image_sheet(np.stack(tiles), captions, 4, title, frames=frames, note=note)


def draw_augmented(train: Split, title: str, seed: int):
    """A sheet of training images, some of each class, each beside augmented copies."""
    shown = np.concatenate([np.flatnonzero(train.labels == c)[:SHOWN] for c in (1, 0)])
    stored = torch.from_numpy(train.images[shown]).float() / 255
    generator = torch.Generator().manual_seed(seed)
    copies = [augment(stored, Strength(), generator) for _ in range(COPIES)]
    tiles = (torch.stack([stored, *copies], 1) * 255).round().byte().numpy()
    captions = [f"train {i}, {'malignant' if train.labels[i] else 'benign'}: as stored, then augmented" for i in shown]
    return figures.image_sheet(tiles, captions, 1, title)


def main():
    args = parse_args()
    source = data.find(args.data, args.data_root, args.size, args.seed)
    splits = dict(zip(data.SPLITS, data.load(source, *data.SPLITS)))
    out = folders.make_output(args.out)
    found = audit(splits)
    print(f"{source.label}\n{audit_text(found)}")
    sheets = {
        "twins_threshold": ("twins nearest the threshold", found.pairs[-PAIRS:][::-1]),
        "twins_labels": ("twins of opposite labels", found.opposite[:PAIRS]),
    }
    drawn = {
        stem: draw_pairs(splits, pairs, f"{source.label}, {what}") for stem, (what, pairs) in sheets.items() if pairs
    }
    drawn["augmented"] = draw_augmented(splits["train"], f"{source.label}, augmentation", args.seed)
    for stem, figure in drawn.items():
        figures.save(figure, out / f"{stem}.png")
        print(f"figure: {out / f'{stem}.png'}")


if __name__ == "__main__":
    flags.run(main)
