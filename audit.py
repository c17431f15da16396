"""Audit a data set before trusting a number on it: near-duplicates, which of them cross splits or carry opposite
labels, and what augmentation makes of training images, all drawn to be looked at."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from common import data, twins
from common.augment import Strength, augment
from common.data import Split
from common.errors import UserError
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
    """An image of a data set; place: where it stands among all; file: its name, "" where it has none."""

    place: int
    split: str
    index: int
    label: int
    file: str = ""

    def __str__(self) -> str:
        called = f"{self.split} {self.file}" if self.file else f"{self.split} {self.index}"
        return f"{called} {'malignant' if self.label else 'benign'}"


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


def named_images(pool: Split) -> list[Named]:
    return [
        Named(place, row["split"], row["index"], int(label), row.get("image", ""))
        for place, (row, label) in enumerate(zip(pool.rows, pool.labels))
    ]


def audit(pool: Split) -> Audit:
    """Find the near-duplicates of a data set, all its splits together."""
    named = named_images(pool)
    pairs = sorted(twins.find_pairs(pool.images), key=lambda pair: -pair[2])
    groups = twins.group(len(pool), [*pairs, *twins.patient_pairs(pool.patients)])
    origin = np.array([image.split for image in named])
    splits_of = Counter(g for g, _ in set(zip(groups.tolist(), origin)))  # how many each group has images in
    mixed = [g for g, count in splits_of.items() if count > 1]
    leaking = {str(name): int(np.isin(groups[origin == name], mixed).sum()) for name in dict.fromkeys(origin)}
    return Audit(len(pool), len(splits_of), [(named[i], named[j], r) for i, j, r in pairs], leaking)


def read(source: data.Source) -> Split:
    """All images, in their splits; of image files that cannot be divided, together."""
    try:
        return data.concatenate(*data.load(source, *data.SPLITS))
    except UserError:
        if not source.of_files:
            raise
        return data.load(source, "all")[0]


def audit_text(found: Audit) -> str:
    """The audit in words."""
    return "\n".join(
        [
            f"{found.images} images, {len(found.pairs)} pairs with a correlation above {twins.THRESHOLD}, "
            f"{found.groups} groups",
            f"{found.across_splits} pairs cross splits; in a group with another split's images: "
            + ", ".join(f"{n} of {name}" for name, n in found.leaking.items()),
            f"{len(found.opposite)} pairs carry opposite labels",
            *(f"  {a} and {b}, correlation {r:.4f}" for a, b, r in found.opposite),
        ]
    )


def draw_pairs(pool: Split, pairs: list, title: str):
    """A sheet of twins side by side, opposite labels framed."""
    tiles = [pool.images[[a.place, b.place]] for a, b, _ in pairs]
    captions = [f"{a}\n{b}\ncorrelation {r:.3f}" for a, b, r in pairs]
    frames = [figures.MALIGNANT if a.label != b.label else "white" for a, b, _ in pairs]
    note = "Opposite labels are framed; mirrored pairs are shown as stored."
    return figures.image_sheet(np.stack(tiles), captions, 4, title, frames=frames, note=note)


def draw_augmented(pool: Split, title: str, seed: int):
    """A sheet of the first images of each class, each beside augmented copies."""
    shown = np.concatenate([np.flatnonzero(pool.labels == c)[:SHOWN] for c in (1, 0)])
    stored = torch.from_numpy(pool.images[shown]).float() / 255
    generator = torch.Generator().manual_seed(seed)
    copies = [augment(stored, Strength(), generator) for _ in range(COPIES)]
    tiles = (torch.stack([stored, *copies], 1) * 255).round().byte().numpy()
    captions = [f"{image}: as stored, then augmented" for image in named_images(pool[shown])]
    return figures.image_sheet(tiles, captions, 1, title)


def main():
    args = parse_args()
    source = data.find(args.data, args.data_root, args.size, args.seed)
    pool = read(source)
    out = folders.make_output(args.out)
    found = audit(pool)
    print(f"{source.label}\n{audit_text(found)}")
    sheets = {
        "twins_threshold": ("twins nearest the threshold", found.pairs[-PAIRS:][::-1]),
        "twins_labels": ("twins of opposite labels", found.opposite[:PAIRS]),
    }
    drawn = {
        stem: draw_pairs(pool, pairs, f"{source.label}, {what}") for stem, (what, pairs) in sheets.items() if pairs
    }
    drawn["augmented"] = draw_augmented(pool, f"{source.label}, augmentation", args.seed)
    for stem, figure in drawn.items():
        figures.save(figure, out / f"{stem}.png")
        print(f"figure: {out / f'{stem}.png'}")


if __name__ == "__main__":
    flags.run(main)
