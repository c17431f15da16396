"""Audit a data set before you trust a number that was measured on it.

audit.py counts near-duplicates in different splits, and names those with opposite labels or of two patients. audit.py
draws pairs of near-duplicates, and augmented images, for you to inspect.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from common import data, duplicates
from common.augment import Strength, augment
from common.data import Images
from common.kinds import FOLDER
from common.run import flags, outputs
from common.seed import set_seed
from common.settings import Settings
from common.show import figures

PAIRS = 32  # pairs in a figure
FILES = ["near_duplicates.png", "opposite_labels.png", "augmented.png"]
SHOWN, COPIES = 4, 5  # images of each class in the figure of augmented images, and copies of each image


def parse_args():
    parser = flags.Parser(__doc__)
    flags.add(parser, "--out", FOLDER, "folder for the figures", "runs/audit")
    flags.add_data_flags(parser)
    flags.add_machine_flags(parser, device=False)
    return parser.parse_args()


@dataclass(frozen=True)
class Audit:
    """The near-duplicates of a data set.

    groups: number of groups; total: number of pairs; pairs: (i, j, correlation), the highest correlation first;
    opposite: the pairs with opposite labels; patients: the pairs of two patients; across_splits: number of pairs with
    images in two splits; leaking: {split: number of images in a group with an image of another split}.
    """

    groups: int
    total: int
    pairs: list[tuple[int, int, float]]
    opposite: list[tuple[int, int, float]]
    patients: list[tuple[int, int, float]]
    across_splits: int
    leaking: dict[str, int]


def audit(pool: Images) -> Audit:
    """Find the near-duplicates of a data set, in all splits together."""
    pairs, total = duplicates.find_pairs(pool.squares)
    groups = pool.groups
    split = pool.table["split"].to_numpy(str)
    splits_of = Counter(g for g, _ in set(zip(groups.tolist(), split)))  # {group: number of its splits}
    mixed = [g for g, count in splits_of.items() if count > 1]
    leaking = {str(name): int(np.isin(groups[split == name], mixed).sum()) for name in dict.fromkeys(split)}
    opposite = [(i, j, r) for i, j, r in pairs if pool.labels[i] != pool.labels[j]]
    who = pool.patients
    patients = [(i, j, r) for i, j, r in pairs if who[i] and who[j] and who[i] != who[j]]
    across = sum(split[i] != split[j] for i, j, _ in pairs)
    return Audit(len(splits_of), total, pairs, opposite, patients, across, leaking)


def name_of(pool: Images, i: int) -> str:
    """Return the name of an image, such as "test/76 benign", or its file name with split and label."""
    row = pool.table.iloc[i]
    place = row["image"] if row["image"].startswith(f"{row['split']}/") else f"{row['split']} {row['image']}"
    return f"{place} {'malignant' if row['label'] else 'benign'}"


def pair_text(pool: Images, i: int, j: int, correlation: float) -> str:
    return f"  {name_of(pool, i)} and {name_of(pool, j)}, correlation {correlation:.4f}"


def audit_text(pool: Images, found: Audit) -> str:
    """Return the audit as text."""
    who = pool.patients
    leaking = ", ".join(f"{n} of {name}" for name, n in found.leaking.items())
    alike = f"pairs with a correlation above {duplicates.THRESHOLD}: {found.total}"
    lines = [
        f"{len(pool)} images, {found.groups} groups; {alike}",
        f"pairs in two splits: {found.across_splits}; images in a group with an image of another split: {leaking}",
        f"pairs with opposite labels: {len(found.opposite)}",
    ]
    if found.total > len(found.pairs):
        lines.insert(1, f"of these pairs, the {len(found.pairs)} with the highest correlations are counted below")
    lines += [pair_text(pool, *pair) for pair in found.opposite]
    if found.patients:
        lines.append(f"pairs of two patients: {len(found.patients)}")
        lines += [f"{pair_text(pool, *pair)}, of {who[pair[0]]} and {who[pair[1]]}" for pair in found.patients]
    return "\n".join(lines)


def draw_pairs(pool: Images, pairs: list, title: str):
    """Return a figure of near-duplicates side by side. A coloured border marks pairs with opposite labels.

    Args: pairs: (i, j, correlation), at least one.
    """
    tiles = np.stack([pool.pixels[[i, j]] for i, j, _ in pairs])
    captions = [f"{name_of(pool, i)}\n{name_of(pool, j)}\ncorrelation {r:.3f}" for i, j, r in pairs]
    frames = [figures.MALIGNANT if pool.labels[i] != pool.labels[j] else "white" for i, j, _ in pairs]
    note = "A frame marks opposite labels. Mirrored pairs are shown as stored."
    return figures.image_sheet(tiles, captions, 4, title, frames=frames, note=note)


def draw_augmented(pool: Images, title: str, seed: int):
    """Return a figure of the first images of each class, each next to copies augmented as in training.

    The images of files are for the views frame and lesion, in which training also varies what differs between scanners.
    """
    view = "frame" if (pool.files != "").any() else "square"
    strength = Strength(scanners=Settings(view=view).varies_scanners)
    shown = np.concatenate([np.flatnonzero(pool.labels == c)[:SHOWN] for c in (1, 0)])
    stored = torch.from_numpy(pool.pixels[shown]).float() / 255
    generator = torch.Generator().manual_seed(seed)
    copies = [augment(stored[:, None], strength, generator)[:, 0] for _ in range(COPIES)]
    tiles = (torch.stack([stored, *copies], 1) * 255).round().byte().numpy()
    captions = [f"{name_of(pool, i)}: as stored, then augmented" for i in shown]
    return figures.image_sheet(tiles, captions, 1, title)


def main():
    args = parse_args()
    set_seed(args.seed, args.threads)
    found = data.find(args.data, args.data_root, args.size, args.seed, args.positive, undivided="all", view="square")
    pool = data.load(found, *found.splits, optional=found.splits)
    with outputs.output(args.out, FILES, found.paths) as out:
        outputs.remove(out, ["audit.py"])  # figures of an earlier audit
        audited = audit(pool)
        print(f"{found.label}\n{audit_text(pool, audited)}")
        drawn = {}
        if audited.pairs:
            title = f"{found.label}, near-duplicates with the lowest correlation of those listed"
            drawn["near_duplicates"] = draw_pairs(pool, audited.pairs[-PAIRS:][::-1], title)
        if audited.opposite:
            title = f"{found.label}, near-duplicates with opposite labels"
            drawn["opposite_labels"] = draw_pairs(pool, audited.opposite[:PAIRS], title)
        drawn["augmented"] = draw_augmented(pool, f"{found.label}, images as stored and augmented", args.seed)
        for stem, figure in drawn.items():
            figures.save(figure, out / f"{stem}.png")
            print(f"figure: {out / f'{stem}.png'}")


if __name__ == "__main__":
    flags.run(main)
