"""Write the half of BUS-BRA that our measurements use as a table: the patients with an even case number.

    python -m results.busbra_table busbra busbra.csv        reads the folder busbra, and writes busbra.csv.

The program reads the folder of BUS-BRA as downloaded. The table has absolute paths, labels, patients, boxes and the
other columns of BUS-BRA. The program prints the numbers of images and patients.
"""

from pathlib import Path

import pandas as pd

from common import imagetable
from common.errors import UserError
from common.run import command
from results import log


def table(busbra: Path) -> pd.DataFrame:
    """Return the images of the patients of BUS-BRA with an even case number, with absolute paths. Raises: UserError."""
    listed = imagetable.list_images(busbra)
    if not listed.table["patient"].str.isdecimal().all():
        raise UserError(f"{busbra}: is not BUS-BRA as downloaded: a case is not a number.")
    even = listed.table[listed.table["patient"].astype(int) % 2 == 0]
    paths = [str((listed.folder / image).resolve()) for image in even["image"]]
    return even.assign(image=paths, hospital="busbra").drop(columns="split")


def main():
    parser = log.parser(__doc__)
    for name in ("BUSBRA", "TABLE"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    found = table(args.BUSBRA)
    log.write_table(found, args.TABLE)
    print(f"{len(found)} images of {found['patient'].nunique()} patients")


if __name__ == "__main__":
    command.run(main)
