"""Run folders: the files that train.py and crossval.py write and other scripts read.

A folder with model.pt holds one model. A folder with fold_1.pt, fold_2.pt, … holds an ensemble. calibration.json has
temperature, offset and operating point. split.csv is the table of all images, with groups and fingerprints. A run
folder also holds predictions.csv, metrics.json, and other files of the script.
"""

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from common import fingerprints, tablefile
from common.answer import Answer
from common.calibration import Calibration, logit, sigmoid
from common.data import Found, Images
from common.delimited import as_cell
from common.description import describes_data
from common.errors import UserError, reading
from common.files import read_json, replacing, write_csv, write_json
from common.looks import look
from common.model import BreastResNet, Predictor, TwoLooks, explain, predict
from common.settings import Settings
from common.tablefile import COLUMNS
from common.weights import read_tensors, write_tensors

FORMAT = "breastmnist-resnet18 v2"
TABLE = "split.csv"
UNREAD = -1  # group of an image that the run did not read
WORK = ".breastmnist"  # folder in --out while a run is at work (`resume`)
FILES = ["calibration.json", "metrics.json", "predictions.csv", TABLE]  # files of each run, in addition to its models


def prediction_rows(images: Images, probabilities, fold=None) -> list[dict]:
    """Return the rows of predictions.csv. The index counts the images within each split of a hospital.

    Args: probabilities: [n], P(malignant); fold: [n], the fold that held each image out; None without cross-validation.
    """
    table = images.table
    known = {"split": table["split"], "index": table.groupby(["hospital", "split"]).cumcount(), "label": table["label"]}
    known |= {"probability": np.asarray(probabilities, float)} | ({} if fold is None else {"fold": fold})
    return pd.DataFrame(known | {name: table[name] for name in ("hospital", "patient", "image")}).to_dict("records")


def read_predictions(path: Path) -> dict[tuple[str, str, str], dict]:
    """Return the rows of a predictions.csv by (hospital, split, image).

    Each row has "label", "out_of_fold" (whether a fold held the image out) and "probability". The hospital is "" if the
    file has no column hospital. The index stands in place of the image if the file has no column image. Predictions of
    several repeats are averaged as logits, as in `Predictor`. Raises: UserError.
    """
    needed = "use the columns split, index, label and probability, and probabilities from 0 to 1"
    with reading(path, "is not a table of predictions", needed):
        table = tablefile.read(path)
        table = table.assign(**{name: "" for name in ("fold", "hospital") if name not in table})
        table["image"] = table["image" if "image" in table else "index"]
        table["label"] = table["label"].map({"0": 0, "1": 1})
        table["probability"] = table["probability"].astype(float)
        numbered = table["index"].str.fullmatch(r"\d{1,9}")
        if not (numbered & table["label"].notna() & table["probability"].between(0, 1)).all() or "split" not in table:
            raise ValueError("not predictions")
    found = {}
    for key, rows in table.groupby(["hospital", "split", "image"], sort=False):
        if len(rows) > 1 and (rows["fold"] == "").any():  # only repeats of a cross-validation predict an image again
            raise UserError(f"{path}: has several rows of image {key[2]}. Add the column hospital, or remove rows.")
        p = rows["probability"].to_numpy()
        mean = float(p[0]) if len(p) == 1 else float(sigmoid(logit(p).mean()))  # one value stays exact
        first = rows.iloc[0]
        found[key] = {"label": int(first["label"]), "out_of_fold": bool(first["fold"]), "probability": mean}
    return found


def matching(predictions: dict, images: Images) -> list[dict] | None:
    """Return the stored prediction of each image, in order; None if a prediction is missing or has another label."""
    found = []
    for row in prediction_rows(images, np.zeros(len(images))):
        names = itertools.product((row["hospital"], ""), [row["split"]], (row["image"], str(row["index"])))
        known = next((predictions[key] for name in names if (key := tuple(map(as_cell, name))) in predictions), None)
        if known is None or known["label"] != row["label"]:
            return None
        found.append(known)
    return found


def save_results(out: Path, found: Found, calibration: Calibration, rows: list[dict], metrics: dict) -> None:
    """Write calibration.json, predictions.csv (`rows`) and metrics.json (`metrics`) of a run. Raises: UserError."""
    write_json(out / "calibration.json", asdict(calibration), found.notice)
    write_csv(out / "predictions.csv", rows, found.notice)
    write_json(out / "metrics.json", metrics, found.notice)


def save_table(out: Path, images: Images, unread: pd.DataFrame | None = None) -> None:
    """Write split.csv: the table of all images of a run, with groups and fingerprints. Raises: UserError.

    Args: unread: rows of image files that the run did not read, without group and fingerprint.
    """
    marks = [row.tobytes().hex() for row in fingerprints.fingerprint(images.squares)]
    table = images.table.assign(group=images.groups, fingerprint=marks)
    if unread is not None and len(unread):
        table = pd.concat([table, unread.assign(group=UNREAD, fingerprint="")])
    with replacing(out / TABLE) as beside:
        table = table.drop(columns="_file", errors="ignore")  # the path on this machine
        table.to_csv(beside, index=False, encoding="utf-8")


def read_table(path: Path) -> pd.DataFrame:
    """Return the table that `save_table` wrote, with labels, groups and boxes as numbers. Raises: UserError."""
    with reading(path):
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        if not {*COLUMNS, "group", "fingerprint"} <= set(table.columns) or table.empty:
            raise ValueError("columns, or rows")
        numbers = {"label": int, "group": int} | dict.fromkeys(("x", "y", "width", "height"), float)
        for name, kind in numbers.items():
            table[name] = table[name].replace("", "nan").astype(kind)
        for mark, group in zip(table["fingerprint"], table["group"]):
            if len(bytes.fromhex(mark)) != (0 if group == UNREAD else fingerprints.BITS // 8):
                raise ValueError("fingerprint")
    return table


def fingerprints_of(table: pd.DataFrame, splits: list[str]) -> np.ndarray:
    """Return the fingerprints of the images in some splits, uint8 [n, 32]. table: as from `read_table`."""
    return read_fingerprints(table["fingerprint"][table["split"].isin(splits)])


def read_fingerprints(texts: Iterable[str]) -> np.ndarray:
    """Return the hexadecimal fingerprints of split.csv as uint8 [n, 32]."""
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, fingerprints.BITS // 8)


def save_model(path: Path, model, settings: Settings, seed: int, found: Found, trained_on: list) -> None:
    """Write a checkpoint of tensors and plain values, which can be read without unpickling code. Raises: UserError.

    Args: model: a BreastResNet or a TwoLooks; trained_on: splits that fitted the weights of the model or its ensemble.
    """
    content = {
        "format": FORMAT,
        "state": {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()},
        "stages": model.stages,
        "mirror": settings.mirror,
        "settings": settings.as_dict(),
        "seed": seed,
        "data": found.describe() | {"trained_on": trained_on},
    }
    write_tensors(path, content)


def empty_model(size: int, stages: int | list[int]) -> BreastResNet | TwoLooks:
    """Return a model with arbitrary weights on the CPU. stages: of a BreastResNet, or of both networks of TwoLooks."""
    model: BreastResNet | TwoLooks
    with torch.device("meta"):  # initial weights would cost time and random numbers
        if isinstance(stages, list):
            of_window, of_frame = stages
            looks = BreastResNet(size, of_window), BreastResNet(size, of_frame, finds=True)
            model = TwoLooks(*looks, torch.nn.Linear(2, 1))
        else:
            model = BreastResNet(size, stages)
    model.to_empty(device="cpu")
    return model


def read_checkpoint(path: Path) -> tuple[dict, BreastResNet | TwoLooks]:
    """Return what `save_model` wrote, and its model, ready to predict. Raises: UserError on any other file."""
    content = read_tensors(path, "a checkpoint", "train the run again")
    kinds = {"mirror": bool, "settings": dict, "seed": int}
    with reading(path, "is not a checkpoint of this project, or is damaged"):
        if content["format"] == "breastmnist-resnet18 v1":
            raise UserError(f"{path}: was written by version 1 of this program. Train the run again.")
        known = content["format"] == FORMAT and describes_data(content["data"])
        kinds |= {"stages": list if content["data"]["view"] == "lesion" else int}
        if not known or any(type(content[key]) is not kind for key, kind in kinds.items()):
            raise ValueError("not what save_model writes")
        model = empty_model(content["data"]["size"], content["stages"])
        model.load_state_dict(content["state"])
        if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
            raise ValueError("weights that are no numbers")
    return content, model.eval()


def rows_of(table: pd.DataFrame, images: Images) -> pd.DataFrame | None:
    """Return the rows of a run's table for images, in order; None if an image is not in the table.

    The name, the split and the fingerprint identify an image. The hospital may have another name, as folders may.
    """
    places = images.table[["image", "split"]].assign(_place=range(len(images)))  # no user column begins with "_"
    found = places.merge(table[table["group"] != UNREAD], on=["image", "split"])
    marks = fingerprints.fingerprint(images.squares)[found["_place"]]
    bits = np.unpackbits(marks ^ read_fingerprints(found["fingerprint"]), axis=1).sum(1)
    found = found.assign(_bits=bits)[bits <= fingerprints.SAME].sort_values(["_place", "_bits"])
    found = found.drop_duplicates("_place")
    return found.reset_index(drop=True) if len(found) == len(images) else None


def read_own_predictions(folder: Path, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return what predictions.csv says of images of a run. rows: rows of the run's table.

    Returns: P(malignant) [n], nan if unknown; bool [n], whether P is out-of-fold. Raises: UserError.
    """
    path = folder / "predictions.csv"
    known = read_predictions(path) if path.exists() else {}
    none = {"probability": np.nan, "out_of_fold": False}
    names = rows[["hospital", "split", "image"]].map(as_cell)
    found = [known.get(place, none) for place in names.itertuples(index=False, name=None)]
    return np.array([row["probability"] for row in found]), np.array([row["out_of_fold"] for row in found], bool)


@dataclass(frozen=True)
class Run:
    """A run folder in memory: the predictor, its calibration, and the data that trained it.

    `data`: from `Found.describe`, with "trained_on", the splits that fitted the weights; `table`: split.csv.
    """

    path: Path
    predictor: Predictor
    calibration: Calibration
    data: dict
    table: pd.DataFrame

    def answer(self, images: Images, given: bool = False) -> Answer:
        """Return the answer of the models. given: look at known boxes. Raises: UserError on images of another size."""
        self.require_size(images)
        looked = look(self.predictor, images, given)
        probabilities = self.calibration.probabilities(predict(self.predictor, *looked.inputs))
        return Answer(probabilities, looked.windows, looked.found)

    @property
    def view(self) -> str:
        """What the models look at: square, frame or lesion."""
        return self.data["view"]

    def require_size(self, images: Images) -> None:
        """Raise a UserError if images are not of the size that the run takes."""
        size, height = self.data["size"], images.pixels.shape[1]
        if height != size:
            raise UserError(f"{self.path}: takes images of {size}×{size}, not {height}×{height}. Give --size {size}.")

    def evidence(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Return the evidence of the first look, float32 [n, rows, columns], and its windows, [n, 4], as in `Look`.

        Evidence is what each position adds to the calibrated logit. Unit: log-odds.
        """
        looked = look(self.predictor, images)
        evidence = explain(self.predictor, *looked.inputs).evidence[0].numpy()
        return evidence / self.calibration.temperature + self.calibration.offset, looked.windows

    @property
    def trained_on(self) -> np.ndarray:
        """Fingerprints of the images that trained the models, uint8 [n, 32]."""
        return fingerprints_of(self.table, self.data["trained_on"])

    @property
    def chosen_on_splits(self) -> list[str]:
        """Splits that trained nothing, but chose the epoch, the temperature and the threshold."""
        return ["val"] if self.calibration.chosen_on.get("on") == "val" else []

    @property
    def chosen_on(self) -> np.ndarray:
        """Fingerprints of the images in `chosen_on_splits`, uint8 [n, 32]."""
        return fingerprints_of(self.table, self.chosen_on_splits)


def load(folder: str | Path, device: torch.device | str = "cpu") -> Run:
    """Read a run folder, one model or an ensemble of folds, onto a device. Raises: UserError."""
    path = Path(folder)
    if (path / WORK / "finished").exists():
        why = "a new run was interrupted while it replaced this run"
        raise UserError(f"{folder}: {why}. Repeat its command with --resume.")
    files = sorted(path.glob("fold_*.pt"), key=lambda file: (len(file.name), file.name)) or [path / "model.pt"]
    if not files[0].exists():
        way_out = "Repeat its command with --resume, or give" if (path / WORK / "partial").exists() else "Give"
        raise UserError(f"{folder}: holds no model.pt or fold_*.pt. {way_out} a run folder of train.py or crossval.py.")
    checkpoints, members = zip(*map(read_checkpoint, files))
    first = checkpoints[0]
    if any(content[key] != first[key] for content in checkpoints for key in ("mirror", "settings", "data")):
        raise UserError(f"{folder}: the files fold_*.pt are of different runs. Run crossval.py again.")
    calibration = read_calibration(path / "calibration.json")
    predictor = Predictor(members, first["mirror"]).to(device)
    return Run(path, predictor, calibration, first["data"], read_table(path / TABLE))


def read_metrics(folder: Path) -> dict:
    """Read the metrics.json of a run. Raises: UserError if it is absent, damaged or without "splits" and "results"."""
    path = folder / "metrics.json"
    metrics = read_json(path)
    kinds = {"splits": dict, "results": list, "folds": list}
    if not all(isinstance(({"folds": []} | metrics).get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"{path}: holds no metrics of a run. Train the run again.")
    return metrics


def read_calibration(path: Path) -> Calibration:
    """Read a calibration.json. Raises: UserError if the file is absent or damaged."""
    stored = read_json(path)
    with reading(path):
        return Calibration.read(stored)
