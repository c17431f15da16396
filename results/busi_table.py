"""Write BUSI as a table with the splits of BreastMNIST, so that no run trains on test images of BreastMNIST.

    python -m results.busi_table busi busi.csv        reads the folder busi, and writes busi.csv.

The program reads BreastMNIST and the folder of BUSI as downloaded. BreastMNIST was made from BUSI. Each image of BUSI
gets the split of the most similar image of BreastMNIST with the same label. The correlation of both images must be at
least 0.999. The table has absolute paths, labels, splits, boxes and classes. The program prints the number of images
per split.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from common import data, imagefile, imagetable
from common.duplicates import unit_vectors
from common.errors import UserError
from common.images import Images
from common.run import command
from common.tablefile import COLUMNS
from results import log

SIDE, LEAST = 28, 0.999  # side of compared images in pixels; correlation of the same picture


def table(busi: Path, breastmnist: Images) -> pd.DataFrame:
    """Return the images of BUSI with absolute paths and the splits of BreastMNIST.

    Args: busi: folder of BUSI; breastmnist: all splits, at 28 pixels. Raises: UserError if BreastMNIST lacks an image.
    """
    listed = imagetable.list_images(busi)
    paths = [listed.folder / image for image in listed.table["image"]]
    squares = np.stack([imagefile.prepare(next(imagefile.frames(path)), SIDE) for path in paths])
    flat, known = (unit_vectors(pixels).reshape(len(pixels), -1) for pixels in (squares, breastmnist.pixels))
    correlation = flat @ known.T
    correlation[listed.table["label"].to_numpy()[:, None] != breastmnist.labels] = -1  # a picture may have both labels
    if (strangers := correlation.max(1) < LEAST).any():
        raise UserError(f"{paths[int(strangers.argmax())]}: is not in BreastMNIST. Give BUSI as downloaded.")
    splits = breastmnist.table["split"].to_numpy()[correlation.argmax(1)]
    found = listed.table.assign(split=splits, hospital="busi", image=[str(path.resolve()) for path in paths])
    return found[[*COLUMNS, "class"]]


def main():
    parser = command.Parser(__doc__)
    for name in ("BUSI", "TABLE"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--data-root", metavar="DIR", help="folder of MedMNIST's files")
    args = parser.parse_args()
    breastmnist = data.load(data.find(["breastmnist"], args.data_root, SIDE), *data.SPLITS)
    found = table(args.BUSI, breastmnist)
    log.write_table(found, args.TABLE)
    print(found.groupby("split").size().to_string())


if __name__ == "__main__":
    command.run(main)
