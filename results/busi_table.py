"""Write BUSI as a table whose test images are BreastMNIST's, so that no run trains on these.

    python -m results.busi_table ../shared/external/busi ../shared/external/busi_splits.csv busi.csv

The second file says which image of BUSI is in which split of BreastMNIST. The table has labels, splits and boxes.
"""

from pathlib import Path

import pandas as pd

from common import imagetable
from common.run import command
from common.tablefile import COLUMNS


def main():
    parser = command.Parser(__doc__)
    for name in ("BUSI", "SPLITS", "TABLE"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    listed = imagetable.list_images(args.BUSI)
    splits = pd.read_csv(args.SPLITS).set_index("image")["split"]
    splits.index = [image.split("/", 1)[1] for image in splits.index]
    table = listed.table.assign(split=listed.table["image"].map(splits), hospital="busi")
    table["image"] = [str((listed.folder / image).resolve()) for image in table["image"]]
    table[[*COLUMNS, "class"]].to_csv(args.TABLE, index=False)
    print(table.groupby("split").size())


if __name__ == "__main__":
    command.run(main)
