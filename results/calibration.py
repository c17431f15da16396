"""Compare calibrations with different parameters: none, an offset, a temperature, both, or both with a prior.

    python -m results.calibration simulated
    python -m results.calibration RUN [RUN ...]     folders of crossval.py

simulated: images of two classes with normal logits, a network with a wrong temperature and a wrong offset, and n images
to calibrate on. "excess" is the mean squared distance from the true probability on new images, times 10,000.
RUN: out-of-fold predictions of train and val. Each of five folds is calibrated on the other four. A group stays in one
fold. Test is not read.
The program prints the rows and writes them to results/calibration.csv, where they replace rows of the same data.
"""

from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np

from common import calibration
from common.calibration import calibrated, logit, sigmoid
from common.errors import UserError
from common.files import write_csv
from common.folds import assign_folds
from common.kinds import not_empty
from common.run import command, folders
from common.show import tables
from results import log

SIZES, WORLDS = (20, 50, 78, 100, 200, 500, 1000), 400
WAYS = {  # standard deviations of the prior of slope and offset: 1e-6 fixes a parameter, 1e3 leaves it free
    "none": (1e-6, 1e-6),
    "offset": (1e-6, 1e3),
    "temperature": (1e3, 1e-6),
    "both": (1e3, 1e3),
    "both, prior": calibration.PRIOR_DEVIATIONS,
}


def simulate(n: int, generator) -> dict[str, float]:
    """Return the excess of each way in a simulated world.

    The AUC, the share of malignant images, the temperature and the offset are random. n: images to calibrate on.
    """
    apart = np.sqrt(2) * NormalDist().inv_cdf(generator.uniform(0.75, 0.95))
    share = generator.uniform(0.1, 0.5)
    temperature, offset = np.exp(generator.normal(0, 0.4)), generator.normal(0, 0.8)

    def draw(count: int):
        labels = generator.random(count) < share
        true = apart * generator.normal(apart * (labels - 0.5), 1) + logit(share)
        return labels, true, (true - offset) * temperature

    labels, _, logits = draw(n)
    _, true, new = draw(4000)
    fitted = {name: calibration.fit(labels, logits, prior) for name, prior in WAYS.items()}
    return {name: float(np.mean((calibrated(new, *fit) - sigmoid(true)) ** 2)) for name, fit in fitted.items()}


def simulated() -> list[dict]:
    """Return a row for each way and number of images: the mean excess over WORLDS worlds, times 10,000."""
    rows = []
    for n in SIZES:
        generator = np.random.default_rng(n)
        found = [simulate(n, generator) for _ in range(WORLDS)]
        rows += [
            {"data": "simulated", "way": name, "images": n, "excess": 1e4 * np.mean([world[name] for world in found])}
            for name in WAYS
        ]
    return rows


def nested(folder: str) -> list[dict]:
    """Return a row for each way: Brier score, ECE and calibration in the large of out-of-fold predictions of a run.

    Raises: UserError without out-of-fold predictions, which crossval.py makes.
    """
    run = folders.load(folder)
    table = run.table[run.table["split"].isin(run.data["trained_on"])].reset_index(drop=True)
    probabilities, out_of_fold = folders.read_own_predictions(run.path, table)
    if not out_of_fold.all():
        raise UserError(f"{folder}: has no out-of-fold predictions. Give a folder of crossval.py.")
    labels = table["label"].to_numpy()
    logits = (logit(probabilities) - run.calibration.offset) * run.calibration.temperature
    fold = assign_folds(labels, table["group"].to_numpy(), 5, 0)
    config = folders.read_metrics(Path(folder))["config"]
    rows = []
    for name, prior in WAYS.items():
        probabilities = np.zeros(len(labels))
        for own in (fold == f for f in range(5)):
            probabilities[own] = calibrated(logits[own], *calibration.fit(labels[~own], logits[~own], prior))
        data = f"{run.data['size']} px, view {run.view}, seed {config['seed']}"
        about = {"data": data, "way": name, "images": len(labels)}
        rows.append(about | {key: float(value) for key, value in calibration.summary(labels, probabilities).items()})
    return rows


def main():
    parser = log.parser(__doc__)
    parser.add_argument("what", metavar="RUN", nargs="+", type=not_empty, help="a run folder, or: simulated")
    args = parser.parse_args()
    measure = {"simulated": simulated}
    rows = [row for what in args.what for row in measure.get(what, partial(nested, what))()]
    path = log.FOLDER / "calibration.csv"
    columns = ["data", "way", "images", "excess", "brier", "ece", "calibration_in_the_large"]
    earlier = log.read(path.name) if path.exists() else []
    new = {(row["data"], row["way"], str(row["images"])) for row in rows}
    kept = [row for row in earlier if (row["data"], row["way"], row["images"]) not in new]
    write_csv(path, [{name: row.get(name, "") for name in columns} for row in [*kept, *rows]])
    print(tables.columns(rows))


if __name__ == "__main__":
    command.run(main)
