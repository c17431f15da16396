"""Write BUSI as a table whose test images are BreastMNIST's, so that no run trains on these.

    python -m results.busi_table ../shared/external/busi ../shared/external/busi_splits.csv busi.csv

The second file says which image of BUSI is in which split of BreastMNIST. The table has labels, splits and boxes.
"""

from pathlib import Path

import pandas as pd

from common import imagetable
from common.run import command
from common.tablefile import COLUMNS


def table(busi: Path, splits: Path) -> pd.DataFrame:
    """BUSI's images with absolute paths, and the splits of BreastMNIST. Raises: UserError."""
    listed = imagetable.list_images(busi)
    split_of = pd.read_csv(splits).set_index("image")["split"]
    split_of.index = [image.split("/", 1)[1] for image in split_of.index]
    found = listed.table.assign(split=listed.table["image"].map(split_of), hospital="busi")
    found["image"] = [str((listed.folder / image).resolve()) for image in found["image"]]
    return found[[*COLUMNS, "class"]]


def main():
    parser = command.Parser(__doc__)
    for name in ("BUSI", "SPLITS", "TABLE"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    found = table(args.BUSI, args.SPLITS)
    found.to_csv(args.TABLE, index=False)
    print(found.groupby("split").size().to_string())


if __name__ == "__main__":
    command.run(main)
