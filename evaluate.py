"""Every metric of a run or an .onnx file on any images, with intervals, figures and a report to open in a browser."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import comparison, data, fingerprints, metrics, scoring
from common.data import Found, Images
from common.deploy import onnxfile
from common.description import notice
from common.errors import UserError
from common.files import write_csv, write_json
from common.model import device_of
from common.npzfile import breastmnist_path
from common.run import flags, folders, outputs, provenance, standard
from common.scoring import Scored
from common.seed import set_seed
from common.settings import Kind, number, one_of
from common.show import cases, figures, page, tables

FIGURES = ("roc", "precision_recall", "reliability", "scores", "confusion", "evidence", "folds", "comparison")
FILES = [f"{figure}_{{}}.png" for figure in FIGURES]
FILES += ["evaluation_{}.json", "predictions_{}.csv", "report_{}.html", "report.html"]
Model = folders.Run | onnxfile.OnnxModel


def parse_args():
    parser = flags.Parser(__doc__)
    what = "a folder of train.py or crossval.py, or a file of export.py"
    parser.add_argument("model", metavar="RUN_OR_ONNX", type=flags.not_empty, help=what)
    whole = "test; all images of a data set without splits"
    flags.add(parser, "--split", one_of(*data.SPLITS, "all"), "the images to predict", shown=whole)
    flags.add(parser, "--bootstrap", number(int, 100, 100_000), "resamples behind each 95 %% interval", 2000)
    against = "compare with another run, .onnx or predictions.csv on the same images"
    flags.add(parser, "--against", Kind(str, "OTHER"), against, shown="none")
    out = "the results go into a folder in this one, called like the run or the .onnx file"
    flags.add(parser, "--out", flags.FOLDER, out, shown="where the run or the .onnx file lies")
    flags.add_data_flags(parser, of_run=True)
    flags.add_machine_flags(parser)
    return parser.parse_args()


def open_model(name: str, args) -> Model:
    """A run folder or an .onnx file; both have probabilities(), evidence(), calibration, data, path, and the
    fingerprints trained_on and chosen_on."""
    return onnxfile.load(name, args.threads) if name.endswith(".onnx") else folders.load(name, device_of(args.device))


def name_of(path) -> str:
    """What a run, an .onnx or a predictions.csv is called: its name without those endings."""
    path = Path(path).resolve()
    return path.stem if path.suffix in (".onnx", ".csv") else path.name


def find_images(model: Model, size: int | None, args) -> Found:
    """The data sets to evaluate on: those of the model, or of the flags. Images without splits are not divided, unless
    the flags ask for a split."""
    kept = model.table if isinstance(model, folders.Run) else None
    undivided = "all" if args.data and args.split in (None, "all") else None
    described = model.data if size is None else model.data | {"size": size}
    return data.find_again(described, kept, args, undivided)


def load_images(found: Found, split: str) -> Images:
    """The images of a split, or all. Raises: UserError."""
    return data.load(
        found, *(found.splits if split == "all" else [split]), optional=found.splits if split == "all" else ()
    )


@dataclass(frozen=True)
class Predicted:
    """A model's predictions of some images.

    probabilities: [n]; typicality: [n], of an .onnx file that gives it; out_of_fold: each image is predicted by models
    that have not seen it; bits: how far its fingerprint is from the nearest of a training image, int [n], or None where
    the model keeps no fingerprints.
    """

    probabilities: np.ndarray
    typicality: np.ndarray | None
    out_of_fold: bool
    bits: np.ndarray | None

    @property
    def seen(self) -> list[str]:
        """What each image is to the model: "trained on", "near-duplicate" of a training image, "unseen" or ""."""
        if self.bits is None:
            return [""] * len(self.probabilities)
        names = np.where(self.bits <= fingerprints.NEAR, "near-duplicate", "unseen")
        return np.where(self.bits <= fingerprints.SAME, "trained on", names).tolist()

    @property
    def unseen(self) -> np.ndarray:
        """Whether the predicting model has seen neither an image nor a near-duplicate, bool [n]; True where it cannot
        be told."""
        return np.array([self.out_of_fold or seen in ("unseen", "") for seen in self.seen])


def predict(model: Model, images: Images) -> Predicted:
    """P(malignant) of images. An ensemble predicts its own training images out of fold; an .onnx file gets image files
    at their full size, as an app would give them."""
    known = model.trained_on
    bits = fingerprints.distance(images.pixels, known) if len(known) else None
    if isinstance(model, onnxfile.OnnxModel):
        outputs = ["probability"] + ["typicality"] * model.gives("typicality")
        found = model.run_images(outputs, images)
        return Predicted(found[0], found[1] if found[1:] else None, False, bits)
    if (model.path / "folds.csv").exists():
        stored = folders.matching(folders.read_predictions(model.path / "predictions.csv"), images)
        if stored and all(row["out_of_fold"] for row in stored):
            return Predicted(np.array([row["probability"] for row in stored]), None, True, bits)
    return Predicted(model.probabilities(images.pixels), None, False, bits)


def score(model: Model, images: Images, predicted: Predicted, on: str) -> Scored:
    """The predictions with their groups, and the subsets of clean, typical and unlike images."""
    chosen_on = model.chosen_on
    own = folders.known_groups(model.table, images) if isinstance(model, folders.Run) else None
    if own:
        groups, seen = own
    else:
        groups = data.find_groups(images)
        near = ~predicted.unseen | (fingerprints.distance(images.pixels, chosen_on) <= fingerprints.NEAR)
        seen = np.isin(groups, groups[near])
    subsets = {"clean": ~seen} if seen.any() and not predicted.out_of_fold else {}
    if predicted.typicality is not None and (unlike := model.unlike(predicted.typicality)).any():
        subsets |= {"typical": ~unlike, "unlike": unlike}
    chose = ()
    if predicted.out_of_fold:
        chose = ("temperature", "threshold")
    elif (fingerprints.distance(images.pixels, chosen_on) <= fingerprints.SAME).any():
        chose = ("epoch", "temperature", "threshold")
    trained_on = not predicted.out_of_fold and "trained on" in predicted.seen
    return Scored(on, images, predicted.probabilities, groups, subsets, trained_on, chose)


def notes_of(model: Model, found: Found, scored: Scored, predicted: Predicted, results: list[dict]) -> list[str]:
    """What a reader of the results must know, in sentences."""
    n, said = len(scored.images), scoring.notes([scored], results)
    if predicted.typicality is not None:
        marked = int(model.unlike(predicted.typicality).sum())
        said.append(
            f"{marked} of {n} images are unlike the training images (typicality below {model.typicality_threshold:g})."
        )
    if predicted.out_of_fold:
        said.append("Each image is predicted by models that have not seen it, nor a near-duplicate of it.")
    elif predicted.bits is None:
        said.append("The file keeps no fingerprints of its training images: how many of these it has seen is unknown.")
    else:
        counts = {name: predicted.seen.count(name) for name in ("trained on", "near-duplicate", "unseen")}
        said.append(
            f"Of these {n} images the model was trained on {counts['trained on']}, on near-duplicates of "
            f"{counts['near-duplicate']} more, and has not seen {counts['unseen']}."
        )
    if scored.trained_on:
        said.append("The figures of all of them are too good; look at the clean ones.")
    if scored.chose:
        said.append(f"Images among these chose the {', '.join(scored.chose)}: their figures are slightly too good.")
    if (phantoms := notice(model.data)) and not found.synthetic:
        said.append(f"The model was trained on {phantoms}.")
    if expected := tables.promise(model.calibration):
        here = [entry for entry in results if entry["threshold_name"] == "operating point" and entry["unit"] == "image"]
        shown = next((entry for entry in here if entry["subset"] == "clean"), here[0])
        said.append(f"{expected} Measured here, on {tables.name_of(shown)}: {tables.rates(shown)}.")
    return said


def compare(scored: Scored, predicted: Predicted, names: tuple[str, str], args) -> dict:
    """The comparison with --against, on the images that neither model has seen. Raises: UserError when its predictions
    are of other images."""
    if args.against.endswith(".csv"):
        rows = folders.matching(folders.read_predictions(Path(args.against)), scored.images)
        if rows is None:
            raise UserError(f"--against {args.against}: its predictions are not of the same images")
        other = Predicted(np.array([row["probability"] for row in rows]), None, False, None)
    else:
        model = open_model(args.against, args)
        images = scored.images
        if model.data["size"] != images.pixels.shape[-1]:
            images = load_images(find_images(model, model.data["size"], args), scored.on)
        other = predict(model, images)
        if images.table["image"].tolist() != scored.images.table["image"].tolist():
            raise UserError(f"--against {args.against}: it has other images; name them with --data")
    unseen = predicted.unseen & other.unseen
    labels, counts = scored.labels[unseen], scored.only(unseen).resample_counts(args.bootstrap)
    if len(np.unique(labels)) < 2:
        left = f"{unseen.sum()} of these {len(unseen)} images are new to both models"
        return {"against": names[1], "conclusion": f"Only {left}: nothing can be concluded about new images."}
    found = comparison.compare(labels, predicted.probabilities[unseen], other.probabilities[unseen], counts, names)
    return found | {"n": int(unseen.sum()), "seen_by_one": int((~unseen).sum())}


def draw(model: Model, label: str, scored: Scored, predicted: Predicted, args) -> dict:
    """The figures of the scores, {file stem: (what it shows, Figure)}."""
    shown, counts = (scored.labels, scored.probabilities), scored.resample_counts(args.bootstrap)
    thresholds = {"standard": metrics.STANDARD_THRESHOLD, "operating point": model.calibration.threshold}
    title = f"{label}, {scored.on}{', out-of-fold' if predicted.out_of_fold else ''}"
    drawn = {
        "roc": ("ROC curve", figures.roc(*shown, counts, thresholds, title)),
        "precision_recall": ("Precision-recall curve", figures.precision_recall(*shown, counts, thresholds, title)),
        "reliability": ("Reliability diagram", figures.reliability(*shown, title)),
        "scores": ("Scores by class", figures.score_histogram(*shown, thresholds, title)),
        "confusion": ("Confusion matrices", figures.confusion(*shown, thresholds, title)),
    }
    if not predicted.out_of_fold:
        drawn["evidence"] = "Evidence", cases.sheet(model, scored.images.pixels, *shown, title)
    stored = folders.read_metrics(model.path) if isinstance(model, folders.Run) and not args.data else {}
    if folds := stored.get("folds"):
        title = f"{label}, {len(folds)} folds"
        drawn["folds"] = "Folds", figures.fold_overview(folds, stored["splits"]["out_of_fold"], title)
    return drawn


def prediction_rows(model: Model, scored: Scored, predicted: Predicted) -> list[dict]:
    """Rows of predictions_<split>.csv: those of a run's predictions.csv, and what is known of each image."""
    rows = folders.prediction_rows(scored.images, scored.probabilities)
    for i, row in enumerate(rows):
        row |= {"flagged": int(scored.probabilities[i] >= model.calibration.threshold), "seen": predicted.seen[i]}
        if predicted.typicality is not None:
            row |= {"typicality": float(predicted.typicality[i])}
    return rows


def report(model: Model, found: Found, split: str, out: Path, args) -> list[str]:
    """Evaluate, and write the results into a folder: the lines to print."""
    name, images = name_of(model.path), load_images(found, split)
    predicted = predict(model, images)
    scored = score(model, images, predicted, split)
    official = [one.spec for one in found.sets] == ["breastmnist"] and split != "all"
    root = breastmnist_path(args.data_root, found.size).parent
    shown = scored.labels, scored.probabilities
    result = standard.result(*shown, found.size, root, split, name) if official else None
    results = scoring.evaluate([scored], model.calibration, args.bootstrap)
    notes = notes_of(model, found, scored, predicted, results)
    lines = [tables.results_text(results, model.calibration, found.label), *notes]
    drawn = draw(model, found.label, scored, predicted, args)
    compared = compare(scored, predicted, (name, args.against), args) if args.against else None
    if compared:
        lines.append(compared["conclusion"])
    if compared and "differences" in compared:
        names = name, name_of(args.against)
        drawn["comparison"] = "Comparison", figures.comparison(compared["differences"], *names, found.label)

    how = "out-of-fold predictions" if predicted.out_of_fold else "predictions of the model"
    stored = {"model": model.path.resolve().name, "split": split, "predictions": how, "images": found.label}
    stored |= {"seen": {name: predicted.seen.count(name) for name in dict.fromkeys(predicted.seen)}, "notes": notes}
    stored |= {"provenance": provenance.provenance(found, args.threads)}
    stored |= scoring.summary(results, model.calibration) | ({"comparison": compared} if compared else {})
    write_json(out / f"evaluation_{split}.json", stored, found.notice)
    write_csv(out / f"predictions_{split}.csv", prediction_rows(model, scored, predicted), found.notice)
    pictures = {}
    for stem, (what, figure) in drawn.items():
        pictures[what] = out / f"{stem}_{split}.png"
        figures.save(figure, pictures[what])
    written = out / ("report.html" if split == "test" else f"report_{split}.html")
    page.write_report(written, stored, pictures)
    if result:
        standard.write(out / result[0], result[1], split, name)
        lines.append(f"MedMNIST's standard result file: {out / result[0]}")
    return [*lines, f"figures, evaluation_{split}.json and {written.name}: {out}/"]


def main():
    args = parse_args()
    set_seed(0, args.threads)
    model = open_model(args.model, args)
    found = find_images(model, None, args)
    split = args.split or ("test" if "test" in found.splits else "all")
    at_home = model.path if model.path.is_dir() else model.path.with_suffix("")
    folder = at_home if args.out is None else Path(args.out, name_of(model.path))
    with outputs.output(folder, [file.format(split) for file in FILES], found.paths) as out:
        lines = report(model, found, split, out, args)
    print(*lines, sep="\n")


if __name__ == "__main__":
    flags.run(main)
