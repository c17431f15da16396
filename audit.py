"""Audit a data set before trusting a number on it: near-duplicates, which of them cross splits or carry opposite
labels, and what augmentation makes of training images, all drawn to be looked at."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from common import data, duplicates
from common.augment import Strength, augment
from common.data import Split
from common.errors import UserError
from common.run import flags, outputs
from common.show import figures

PAIRS = 32  # in a sheet
FILES = ["twins_threshold.png", "twins_labels.png", "augmented.png"]
SHOWN, COPIES = 4, 5  # images of each class in the sheet of augmented ones, and copies of each


def parse_args():
    parser = flags.Parser(__doc__)
    flags.add(parser, "--out", flags.FOLDER, "folder for the figures", "runs/audit")
    flags.add_data_flags(parser)
    return parser.parse_args()


@dataclass(frozen=True)
class Audit:
    """The near-duplicates of a data set. total: number of pairs; pairs: (i, j, correlation) of the most alike ones, the
    most alike first; opposite: those of opposite labels; across_splits: how many have an image in each of two splits;
    leaking: {split: images in a group with an image of another split}."""

    groups: int
    total: int
    pairs: list[tuple[int, int, float]]
    opposite: list[tuple[int, int, float]]
    across_splits: int
    leaking: dict[str, int]


def audit(pool: Split) -> Audit:
    """Find the near-duplicates of a data set, all its splits together."""
    pairs, total = duplicates.find_pairs(pool.images)
    groups = duplicates.find_groups(pool.images, pool.patients)
    split = np.array([row["split"] for row in pool.rows])
    splits_of = Counter(g for g, _ in set(zip(groups.tolist(), split)))  # how many each group has images in
    mixed = [g for g, count in splits_of.items() if count > 1]
    leaking = {str(name): int(np.isin(groups[split == name], mixed).sum()) for name in dict.fromkeys(split)}
    opposite = [(i, j, r) for i, j, r in pairs if pool.labels[i] != pool.labels[j]]
    return Audit(len(splits_of), total, pairs, opposite, sum(split[i] != split[j] for i, j, _ in pairs), leaking)


def name_of(pool: Split, i: int) -> str:
    """What an image is called: "test 76 benign", or with the name of its file."""
    row = pool.rows[i]
    return f"{row['split']} {row.get('image', row['index'])} {'malignant' if pool.labels[i] else 'benign'}"


def read(source: data.Source) -> Split:
    """All images, in their splits; of image files that cannot be divided, together."""
    try:
        return data.concatenate(*data.load(source, *data.SPLITS))
    except UserError:
        if not source.of_files:
            raise
        return data.load(source, "all")[0]


def audit_text(pool: Split, found: Audit) -> str:
    """The audit in words."""
    leaking = ", ".join(f"{n} of {name}" for name, n in found.leaking.items())
    alike = f"pairs with a correlation above {duplicates.THRESHOLD}: {found.total}"
    lines = [
        f"{len(pool)} images, {found.groups} groups; {alike}",
        f"pairs across splits: {found.across_splits}; images in a group with another split's: {leaking}",
        f"pairs of opposite labels: {len(found.opposite)}",
    ]
    lines += [f"  {name_of(pool, i)} and {name_of(pool, j)}, correlation {r:.4f}" for i, j, r in found.opposite]
    return "\n".join(lines)


def draw_pairs(pool: Split, pairs: list, title: str):
    """A sheet of twins side by side, opposite labels framed."""
    tiles = np.stack([pool.images[[i, j]] for i, j, _ in pairs])
    captions = [f"{name_of(pool, i)}\n{name_of(pool, j)}\ncorrelation {r:.3f}" for i, j, r in pairs]
    frames = [figures.MALIGNANT if pool.labels[i] != pool.labels[j] else "white" for i, j, _ in pairs]
    note = "Opposite labels are framed; mirrored pairs are shown as stored."
    return figures.image_sheet(tiles, captions, 4, title, frames=frames, note=note)


def draw_augmented(pool: Split, title: str, seed: int):
    """A sheet of the first images of each class, each beside augmented copies."""
    shown = np.concatenate([np.flatnonzero(pool.labels == c)[:SHOWN] for c in (1, 0)])
    stored = torch.from_numpy(pool.images[shown]).float() / 255
    generator = torch.Generator().manual_seed(seed)
    copies = [augment(stored, Strength(), generator) for _ in range(COPIES)]
    tiles = (torch.stack([stored, *copies], 1) * 255).round().byte().numpy()
    captions = [f"{name_of(pool, i)}: as stored, then augmented" for i in shown]
    return figures.image_sheet(tiles, captions, 1, title)


def main():
    args = parse_args()
    source = data.find(args.data, args.data_root, args.size, args.seed)
    pool = read(source)
    with outputs.output(args.out, FILES, [args.data]) as out:
        found = audit(pool)
        print(f"{source.label}\n{audit_text(pool, found)}")
        drawn = {}
        if found.pairs:
            title = f"{source.label}, twins nearest the threshold"
            drawn["twins_threshold"] = draw_pairs(pool, found.pairs[-PAIRS:][::-1], title)
        if found.opposite:
            title = f"{source.label}, twins of opposite labels"
            drawn["twins_labels"] = draw_pairs(pool, found.opposite[:PAIRS], title)
        drawn["augmented"] = draw_augmented(pool, f"{source.label}, augmentation", args.seed)
        for stem, figure in drawn.items():
            figures.save(figure, out / f"{stem}.png")
            print(f"figure: {out / f'{stem}.png'}")


if __name__ == "__main__":
    flags.run(main)
