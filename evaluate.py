"""Compute every metric of a run or an .onnx file on any images, with intervals, figures and a report in HTML."""

import argparse
from pathlib import Path

import numpy as np

from common import data, evaluation, metrics, netbenefit, scoring, subgroups
from common.answer import Answer
from common.data import Found, Images
from common.deploy import onnxfile
from common.description import notice
from common.errors import UserError
from common.evaluation import Predicted
from common.files import read_json, write_csv, write_json
from common.kinds import FOLDER, Kind, not_empty, number, one_of
from common.model import device_of
from common.npzfile import SPLITS, breastmnist_path
from common.run import flags, folders, outputs, provenance, standard
from common.scoring import Scored
from common.seed import set_seed
from common.show import cases, clinical, figures, tables
from common.show.report import write_report

FIGURES = ["roc", "precision_recall", "reliability", "scores", "confusion", "evidence", "folds", "comparison"]
FIGURES += ["decision", "subgroups", "windows"]
FILES = [f"{figure}_{{}}.png" for figure in FIGURES]
FILES += ["evaluation_{}.json", "predictions_{}.csv", "report_{}.html", "report.html"]
Model = folders.Run | onnxfile.OnnxModel


def parse_args():
    parser = flags.Parser(__doc__)
    what = "a run folder of train.py or crossval.py, or an .onnx file of export.py"
    parser.add_argument("model", metavar="RUN_OR_ONNX", type=not_empty, help=what)
    shown = "test, or all images if the data set has no splits"
    flags.add(parser, "--split", one_of(*SPLITS, "all"), "the images to evaluate", shown=shown)
    flags.add(
        parser, "--bootstrap", number(int, 100, 100_000), "number of bootstrap resamples for each 95 %% interval", 2000
    )
    by = "also score the images of each value of a column separately, for example of each device"
    flags.add(parser, "--by", Kind(lambda text: not_empty(text).casefold(), "COLUMN"), by, shown="none")
    unit = "what to score: images, or patients; the highest probability of their images counts"
    flags.add(parser, "--unit", one_of("image", "patient"), unit, "image")
    against = "compare with another run, .onnx file or predictions.csv on the images that neither model has seen"
    flags.add(parser, "--against", Kind(str, "OTHER"), against, shown="none")
    out = "write the results into DIR/NAME, where NAME is the name of the run or the .onnx file"
    flags.add(parser, "--out", FOLDER, out, shown="the run folder, or a folder NAME next to the .onnx file")
    flags.add_data_flags(parser, of_run=True)
    flags.add_machine_flags(parser)
    return parser.parse_args()


def open_model(name: str, args) -> Model:
    """Open a run folder or an .onnx file. Raises: UserError.

    Both kinds have answer(), evidence(), calibration, data, view, path, and the fingerprints trained_on and chosen_on.
    """
    return onnxfile.load(name, args.threads) if name.endswith(".onnx") else folders.load(name, device_of(args.device))


def name_of(path) -> str:
    """Return the name of a run, of an .onnx file or of a predictions.csv, without the ending."""
    path = Path(path).resolve()
    if path.name == "model.onnx":  # the name that export.py chooses in the folder of a run
        return f"{path.parent.name}_model"
    return path.stem if path.suffix in (".onnx", ".csv") else path.name


def find_images(model: Model, view: str, args) -> Found:
    """Find the data sets to evaluate on: those of the flags, or of the model. view: what the predicting model looks at.

    Images without splits are not divided, unless the flags ask for a split. Raises: UserError.
    """
    kept = model.table if isinstance(model, folders.Run) else None
    undivided = "all" if args.split in (None, "all") else None  # of --data; other data are divided as in training
    found = data.find_again(model.data | {"view": view}, kept, args, undivided)
    if args.data:
        data.require_apart(found)
    return found


def load_images(found: Found, split: str) -> Images:
    """Load the images of a split, or all images. Raises: UserError."""
    names = found.splits if split == "all" else [split]
    return data.load(found, *names, optional=names if split == "all" else ())


def predict(model: Model, images: Images) -> Predicted:
    """Predict images with a model.

    For the images of the run, P(malignant) is read from predictions.csv. In cross-validation, these predictions are
    out-of-fold. An .onnx file gets image files at their full size, as from an app. Raises: UserError.
    """
    seen, nowhere = evaluation.by_pictures(images, model.trained_on, model.chosen_on), np.zeros(len(images), bool)
    rows = folders.rows_of(model.table, images) if isinstance(model, folders.Run) else None
    if isinstance(model, onnxfile.OnnxModel) or rows is None:
        answer, given = model.answer(images), look_at_boxes(model, images)
        return Predicted(images, answer.probabilities, seen, nowhere, answer, given, model.calibration)
    model.require_size(images)
    seen = evaluation.by_table(seen, rows, model.table, model.data["trained_on"], model.chosen_on_splits)
    probabilities, out_of_fold = folders.read_own_predictions(model.path, rows)
    if (missing := np.isnan(probabilities)).any():
        probabilities[missing] = model.answer(images[missing]).probabilities
    return Predicted(images, probabilities, seen, out_of_fold, calibration=model.calibration)


def look_at_boxes(model: Model, images: Images) -> Answer | None:
    """Return the answer of a model when it looks at the given boxes; None if the model does not look for lesions."""
    looks = model.view == "lesion" and images.boxed.any()
    return model.answer(images[images.boxed], given=True) if looks else None


def predict_other(model: Model, scored: Scored, args) -> Predicted:
    """Return the predictions of --against for the images of the first model.

    Raises: UserError, also when a predictions.csv is for other images.
    """
    given, images = args.against, scored.images
    if given.endswith(".csv"):
        rows = folders.matching(folders.read_predictions(Path(given)), images)
        if rows is None:
            raise UserError(
                f"--against {given}: the predictions are not of the same images. Give a run or an .onnx file."
            )
        probabilities, out_of_fold = (np.array([row[name] for row in rows]) for name in ("probability", "out_of_fold"))
        return Predicted(images, probabilities, evaluation.by_pictures(images), out_of_fold)
    other = open_model(given, args)
    if (other.data["size"], other.view) != (images.pixels.shape[-1], model.view):
        at_its_size = argparse.Namespace(**vars(args) | {"size": other.data["size"]})
        images = load_images(find_images(model, other.view, at_its_size), scored.on)
    return predict(other, images)


def label_of(model: Model, found: Found, images: Images) -> str:
    """Return the name of the images for tables and figures."""
    at_full_size = isinstance(model, onnxfile.OnnxModel) and (images.files != "").all()
    return f"{found.name} at full size" if at_full_size else found.label


def title_of(label: str, scored: Scored, predicted: Predicted) -> str:
    """Return the title of a figure of predictions."""
    how = ", out-of-fold" * bool(predicted.out_of_fold.all())
    return f"{label}, {scored.on}{how}" + ", per patient" * (scored.unit == "patient")


def notes_of(model: Model, found: Found, scored: Scored, predicted: Predicted, results: list[dict]) -> list[str]:
    """Return what a reader must know about the results, as sentences."""
    groups = folders.read_metrics(model.path)["config"]["groups"] if predicted.out_of_fold.any() else ""
    phantoms = None if found.synthetic else notice(model.data)
    return [
        *evaluation.notes(predicted, groups),
        *scoring.notes([scored], results),
        *[f"The model was trained on {phantoms}."] * bool(phantoms),
    ]


def official_result(found: Found, scored: Scored, name: str, args) -> tuple[str, str] | None:
    """Return the name and content of MedMNIST's standard result file; None for other data or all splits together.

    Raises: UserError when MedMNIST's Evaluator disagrees.
    """
    if [one.spec for one in found.sets] != ["breastmnist"] or scored.on == "all":
        return None
    root = breastmnist_path(args.data_root, found.size).parent
    return standard.result(scored.labels, scored.probabilities, found.size, root, scored.on, name)


def draw_figures(model: Model, title: str, scored: Scored, predicted: Predicted, args) -> dict:
    """Draw the figures of the scores: {file stem: (caption, Figure)}."""
    shown, counts = (scored.labels, scored.probabilities), scored.resample_counts(args.bootstrap)
    thresholds = {"standard": metrics.STANDARD_THRESHOLD, "operating point": model.calibration.threshold}
    drawn = {
        "roc": ("ROC curve", figures.roc(*shown, counts, thresholds, title)),
        "precision_recall": ("Precision-recall curve", figures.precision_recall(*shown, counts, thresholds, title)),
        "reliability": ("Reliability diagram", figures.reliability(*shown, title)),
        "scores": ("Scores by class", figures.score_histogram(*shown, thresholds, title)),
        "confusion": ("Confusion matrices", figures.confusion(*shown, thresholds, title)),
    }
    if not predicted.out_of_fold.any():
        drawn["evidence"] = "Evidence", cases.sheet(model, scored.images, *shown, title)
    if predicted.answer and predicted.given:
        boxed = predicted.images.boxed
        placed = predicted.answer.windows[boxed], predicted.given.windows, evaluation.overlaps(predicted)
        drawn["windows"] = "Windows", cases.windows(predicted.images[boxed], *placed, title)
    stored = folders.read_metrics(model.path) if isinstance(model, folders.Run) and not args.data else {}
    if folds := stored.get("folds"):
        drawn["folds"] = "Folds", figures.fold_overview(folds, stored["splits"]["out_of_fold"], "out-of-fold images")
    return drawn


def clinical_results(model: Model, scored: Scored, results: list[dict], args) -> dict:
    """Return the clinical results for the JSON file: the net benefit at each threshold and, with --by, the subgroups.

    The entry of the subgroups says whether their AUCs differ.
    """
    shown, counts = (scored.labels, scored.probabilities), scored.resample_counts(args.bootstrap)
    below_one = min(model.calibration.threshold, np.nextafter(1, 0))  # at 1, net benefit divides by 0
    (point,) = netbenefit.curve(*shown, counts, [below_one])
    found = {"decision_curve": {"operating_point": point, "rows": netbenefit.curve(*shown, counts)}}
    if args.by:
        values = subgroups.of_values(results, scored, args.by)
        test = subgroups.compare(*shown, scored.groups, values, args.by, args.bootstrap)
        found["subgroups"] = test | {"rows": subgroups.rows(results, scored, args.by)}
    return found


def draw_clinical(found: dict, title: str) -> dict:
    """Draw the figures of `clinical_results`: {file stem: (caption, Figure)}."""
    curve = found["decision_curve"]
    decision = clinical.decision_curve(curve["rows"], curve["operating_point"], title)
    drawn = {"decision": ("Decision curve", decision)}
    if groups := found.get("subgroups"):
        title = f"{title}, by {groups['column']}"
        drawn["subgroups"] = "Subgroups", clinical.forest(groups["rows"], title, groups["conclusion"])
    return drawn


def evaluated_rows(scored: Scored, predicted: Predicted, threshold: float) -> list[dict]:
    """Return the rows of predictions_<split>.csv: the columns of predictions.csv, flagged, seen, and typicality."""
    known = {"flagged": (scored.probabilities >= threshold).astype(int), "seen": predicted.seen.kinds}
    if predicted.typicality is not None:
        known["typicality"] = predicted.typicality.astype(float)
    rows = folders.prediction_rows(scored.images, scored.probabilities)
    return [row | {name: values[i] for name, values in known.items()} for i, row in enumerate(rows)]


def write(out: Path, name: str, split: str, evaluated: dict, rows: list[dict], drawn: dict, result, notice) -> str:
    """Write evaluation_<split>.json, predictions_<split>.csv, the figures, the report and MedMNIST's standard result.

    Returns: text that names the files. Raises: UserError.
    """
    replaced = replaced_results(out / f"evaluation_{split}.json", evaluated)
    for stem in FIGURES:  # a figure of an earlier evaluation must not stay beside these results
        (out / f"{stem}_{split}.png").unlink(missing_ok=True)
    write_json(out / f"evaluation_{split}.json", evaluated, notice)
    write_csv(out / f"predictions_{split}.csv", rows, notice)
    pictures = {what: out / f"{stem}_{split}.png" for stem, (what, _) in drawn.items()}
    for what, figure in drawn.values():
        figures.save(figure, pictures[what])
    report = out / ("report.html" if split == "test" else f"report_{split}.html")
    write_report(report, evaluated, pictures)
    said = f"{replaced}figures, evaluation_{split}.json and {report.name}: {out}/"
    if result:
        standard.write(out / result[0], result[1], split, name)
        said = f"MedMNIST's standard result file: {out / result[0]}\n{said}"
    return said


def replaced_results(path: Path, evaluated: dict) -> str:
    """Return a line that says that results of another model or other images are replaced; "" if none are."""
    earlier = read_json(str(path), "choose another --out") if path.exists() else evaluated
    model, images = earlier["model"], earlier["images"]
    same = (model, images) == (evaluated["model"], evaluated["images"])
    return "" if same else f"note: the earlier results of {model} on {images} are replaced\n"


def main():
    args = parse_args()
    set_seed(0, args.threads)
    model = open_model(args.model, args)
    found, name = find_images(model, model.view, args), name_of(args.model)
    split = evaluation.choose_split(found, args.split)
    at_home = model.path if model.path.is_dir() else model.path.with_suffix("")
    folder = at_home if args.out is None else Path(args.out, name)
    with outputs.output(folder, [file.format(split) for file in FILES], found.paths) as out:
        images = load_images(found, split)
        label, predicted = label_of(model, found, images), predict(model, images)
        by_image = evaluation.add_subsets(predicted, split, args.by)
        scored = by_image if args.unit == "image" else evaluation.per_patient(by_image)
        result = official_result(found, by_image, name, args)
        every = scoring.by_boxes(by_image, predicted.given and predicted.given.probabilities)
        every = every if args.unit == "image" else [evaluation.per_patient(one) for one in every]
        results = scoring.score_parts(every, model.calibration, args.bootstrap)
        clinic = clinical_results(model, scored, results, args)
        notes = notes_of(model, found, scored, predicted, results)
        notes += [clinic["subgroups"]["conclusion"]] if args.by else []
        lines = [tables.results_text(results, model.calibration, label, found.synthetic, notes)]
        notes = tables.at_operating_point(results, model.calibration) + notes
        title = title_of(label, scored, predicted)
        drawn = draw_figures(model, title, scored, predicted, args) | draw_clinical(clinic, title)
        evaluated = {"model": model.path.resolve().name, "split": split, "predictions": predicted.how, "images": label}
        evaluated |= {"seen": predicted.seen.counts, "finder": evaluation.finder(predicted), "notes": notes}
        evaluated |= scoring.summary(results, model.calibration) | clinic
        if args.against:
            other, names = predict_other(model, by_image, args), (name, args.against)
            compared = evaluation.compare(by_image, predicted, other, names, args.bootstrap)
            lines.append(compared["conclusion"])
            evaluated["comparison"] = compared
            if "differences" in compared:
                figure = figures.comparison(compared["differences"], name, name_of(args.against), label)
                drawn["comparison"] = "Comparison", figure
        evaluated["provenance"] = provenance.provenance(found, args.threads)
        rows = evaluated_rows(by_image, predicted, model.calibration.threshold)
        lines.append(write(out, name, split, evaluated, rows, drawn, result, found.notice))
    print(*lines, sep="\n")


if __name__ == "__main__":
    flags.run(main)
