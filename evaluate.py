"""Every metric of a run or an .onnx file on one split, with intervals, figures and a report to open in a browser."""

import glob
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from common import comparison, data, files, intervals, metrics, scoring
from common.calibration import operating_point, threshold_rule
from common.deploy import onnxfile
from common.errors import UserError
from common.model import device_of
from common.run import flags, folders, provenance
from common.seed import set_seed
from common.settings import Kind, number, one_of
from common.show import figures, gradcam, report, tables


def parse_args():
    parser = flags.Parser(__doc__)
    what = "a folder of train.py or crossval.py, or a file of export.py"
    parser.add_argument("model", metavar="RUN_OR_ONNX", help=what)
    flags.add(parser, "--split", one_of(*data.SPLITS), "the images to predict", "test")
    flags.add(parser, "--bootstrap", number(int, 100, 100_000), "resamples behind each 95 %% interval", 2000)
    against = "compare with another run, .onnx or predictions.csv on the same images"
    flags.add(parser, "--against", Kind(str, "OTHER"), against, shown="none")
    point = f"choose the operating point anew and store it: {threshold_rule('this', 'the held-out images')}"
    flags.add(parser, "--sensitivity", flags.INNER_SHARE, point, shown="keep the stored one")
    flags.add(parser, "--out", flags.FOLDER, "folder for the results", shown="RUN, or the folder of the .onnx")
    flags.add_data_flags(parser, of_run=True)
    flags.add_machine_flags(parser)
    return parser.parse_args()


def open_model(name: str, args):
    """A run folder or an .onnx file; both have probabilities(), calibration, data and path."""
    return onnxfile.load(name, args.threads) if name.endswith(".onnx") else folders.load(name, device_of(args.device))


def name_of(path) -> str:
    """What a run, an .onnx or a predictions.csv is called: its name without those endings."""
    path = Path(path).resolve()
    return path.stem if path.suffix in (".onnx", ".csv") else path.name


def choose_operating_point(model, sensitivity: float):
    """The run with another operating point, chosen on its own held-out predictions. Raises: UserError for an .onnx."""
    if not isinstance(model, folders.Run):
        raise UserError("--sensitivity: an .onnx file keeps no held-out predictions; give the run folder")
    held_out = folders.held_out(folders.read_predictions(model.path / "predictions.csv"))
    threshold = operating_point(*folders.columns(held_out), sensitivity)
    rule = threshold_rule(sensitivity, model.calibration.fitted_on)
    return replace(model, calibration=replace(model.calibration, threshold=threshold, threshold_rule=rule))


def store_operating_point(run: folders.Run) -> None:
    """Labelled by the run's own data, whatever it is evaluated on."""
    files.write_json(run.path / "calibration.json", asdict(run.calibration), data.notice(run.data))
    print("the new operating point is stored; metrics.json and earlier exports keep the old one", file=sys.stderr)


@dataclass(frozen=True)
class Evaluated:
    """A model's predictions of a split. out_of_fold: they are those of cross-validation, each by members that have not
    seen the image."""

    model: folders.Run | onnxfile.OnnxModel
    source: data.Source
    split: str
    images: np.ndarray
    scored: scoring.Scored
    out_of_fold: bool


def predict(model, source: data.Source, split: data.Split, name: str) -> tuple[np.ndarray, bool]:
    """P(malignant) of a split, and whether out-of-fold: so an ensemble predicts the images that it was trained on."""
    seen = data.same_images(model.data, source) and name in model.data["trained_on"]
    if seen and isinstance(model, folders.Run) and model.data["md5"] == source.md5:
        rows = folders.read_predictions(model.path / "predictions.csv")
        unseen = [row for row in rows if row["split"] == name and row["out_of_fold"]]
        if len(unseen) == len(split):
            return folders.columns(unseen)[1], True
    if seen:
        print(f"warning: {model.path} was trained on {name}; these figures flatter it", file=sys.stderr)
    return model.probabilities(split.images), False


def left_out_test_twins(model, source: data.Source) -> bool:
    """Whether crossval.py trained on nothing that has a near-duplicate in test, so that all of test is clean."""
    if not isinstance(model, folders.Run) or not data.same_images(model.data, source):
        return False
    return folders.read_metrics(model.path).get("config", {}).get("drop_test_twins", False)


def evaluate(model, source: data.Source, name: str) -> Evaluated:
    """Predict a split, and set apart its images without a near-duplicate among those that may have been trained on."""
    split, *others = data.load(source, name, *data.SPLITS[: data.SPLITS.index(name)])
    probabilities, out_of_fold = predict(model, source, split, name)
    all_clean = not others or out_of_fold or (name == "test" and left_out_test_twins(model, source))
    clean = None if all_clean else scoring.clean_mask(split, *others)
    return Evaluated(model, source, name, split.images, scoring.Scored(split.labels, probabilities, clean), out_of_fold)


def score_other(source: data.Source, args) -> scoring.Scored:
    """The predictions of what --against names; a model of another input size gets the images of its size."""
    if args.against.endswith(".csv"):
        rows = [row for row in folders.read_predictions(Path(args.against)) if row["split"] == args.split]
        return scoring.Scored(*folders.columns(rows))
    model = open_model(args.against, args)
    if model.data["size"] != source.size:
        source = data.find_again(model.data, args.data, args.data_root, None, args.seed)
    return evaluate(model, source, args.split).scored


def compare(name: str, scored: scoring.Scored, args, source: data.Source, seed: int) -> dict:
    """The tests of a model against what --against names. Raises: UserError when that predicted other images."""
    other = score_other(source, args)
    if not np.array_equal(scored.labels, other.labels):
        raise UserError(f"--against {args.against}: its predictions are not of the same images")
    pair = scored.probabilities, other.probabilities
    return comparison.compare(scored.labels, *pair, (name, args.against), args.bootstrap, seed)


def standard_result(evaluated: Evaluated, name: str) -> tuple[str, str]:
    """Name and content of MedMNIST's standard result file, in which 1 is benign. Raises: UserError when MedMNIST's own
    Evaluator computes something else than we do."""
    import medmnist  # takes seconds

    source, scored = evaluated.source, evaluated.scored
    benign = 1 - scored.probabilities.astype(float)
    root = source.path and source.path.parent
    evaluator = medmnist.Evaluator("breastmnist", evaluated.split, size=source.size, root=root)
    theirs, ours = evaluator.evaluate(benign), metrics.summary(scored.labels, scored.probabilities)
    if not np.allclose(theirs, (ours["auc"], ours["accuracy"]), rtol=0, atol=1e-12):
        raise UserError(f"MedMNIST's Evaluator finds {theirs}, not {ours['auc']} and {ours['accuracy']}")
    lines = [f"{i},{probability}\n" for i, probability in enumerate(benign.tolist())]
    return evaluator.get_standard_evaluation_filename(theirs, name), "".join(lines)


def write_standard_result(path: Path, content: str, name: str, split: str) -> None:
    """In the place of that of an earlier evaluation, whose name has other figures."""
    with files.replacing(path) as beside:
        beside.write_text(content)
    for file in path.parent.glob(f"breastmnist*_{split}_*@{glob.escape(name)}.csv"):
        if file != path:
            file.unlink()


def draw(evaluated: Evaluated, resamples: int, seed: int) -> dict:
    """The figures of the scores, {what it shows: (file stem, Figure)}."""
    model, source, scored = evaluated.model, evaluated.source, evaluated.scored
    shown = scored.labels, scored.probabilities
    thresholds = {"standard": metrics.STANDARD_THRESHOLD, "operating point": model.calibration.threshold}
    counts = intervals.resample_counts(scored.labels, resamples, seed)
    title = f"{source.label}, {evaluated.split}{', out-of-fold' if evaluated.out_of_fold else ''}"
    drawn = {
        "ROC curve": ("roc", figures.roc(*shown, counts, thresholds, title)),
        "Precision-recall curve": ("precision_recall", figures.precision_recall(*shown, counts, thresholds, title)),
        "Reliability diagram": ("reliability", figures.reliability(*shown, title)),
        "Scores by class": ("scores", figures.score_histogram(*shown, thresholds, title)),
        "Confusion matrices": ("confusion", figures.confusion(*shown, thresholds, title)),
    }
    if isinstance(model, folders.Run):
        if not evaluated.out_of_fold:
            drawn["Grad-CAM"] = ("grad_cam", gradcam.sheet(model.predictor, evaluated.images, *shown, title))
        stored = folders.read_metrics(model.path)
        if folds := stored.get("folds"):
            of_folds = f"{source.label}, {len(folds)} folds"
            drawn["Folds"] = ("folds", figures.fold_overview(folds, stored["splits"]["out_of_fold"], of_folds))
    return drawn


def save(out: Path, evaluated: Evaluated, scores: dict, drawn: dict, threads: int) -> Path:
    """Write evaluation_<split>.json, the figures and the report, whose path is returned."""
    split, source, called = evaluated.split, evaluated.source, evaluated.model.path.resolve().name
    predictions = "out-of-fold predictions" if evaluated.out_of_fold else "predictions of the model"
    head = {
        "model": called,
        "split": split,
        "predictions": predictions,
        "provenance": provenance.provenance(source, threads),
    }
    files.write_json(out / f"evaluation_{split}.json", head | scores, source.notice)
    pictures = {what: out / f"{stem}_{split}.png" for what, (stem, _) in drawn.items()}
    for what, (_, figure) in drawn.items():
        figures.save(figure, pictures[what])
    path = out / ("report.html" if split == "test" else f"report_{split}.html")
    report.write(path, called, f"{source.label}: {predictions} of {called}", split, scores, pictures)
    return path


def main():
    args = parse_args()
    set_seed(0, args.threads)
    model = open_model(args.model, args)
    source = data.find_again(model.data, args.data, args.data_root, args.size, args.seed)
    if args.sensitivity is not None:
        model = choose_operating_point(model, args.sensitivity)
    name, seed = name_of(model.path), source.seed if args.seed is None else args.seed

    evaluated = evaluate(model, source, args.split)
    compared = {"comparison": compare(name, evaluated.scored, args, source, seed)} if args.against else {}
    standard = standard_result(evaluated, name) if source.name == "breastmnist" else None
    scores = scoring.evaluate_splits({args.split: evaluated.scored}, model.calibration, args.bootstrap, seed)
    drawn, lines = draw(evaluated, args.bootstrap, seed), [tables.scores_text(scores, source)]
    if compared:
        differences = compared["comparison"]["differences"]
        figure = figures.comparison(differences, name, name_of(args.against), source.label)
        drawn["Comparison"] = ("comparison", figure)
        lines.append(compared["comparison"]["conclusion"])

    beside = model.path if model.path.is_dir() else model.path.parent
    out = folders.make_output(beside if args.out is None else args.out)
    if args.sensitivity is not None:
        store_operating_point(model)
    written = save(out, evaluated, scores | compared, drawn, args.threads)
    if standard:
        write_standard_result(out / standard[0], standard[1], name, args.split)
        lines.append(f"MedMNIST's standard result file: {out / standard[0]}")
    print(*lines, f"figures, evaluation_{args.split}.json and {written.name}: {out}/", sep="\n")


if __name__ == "__main__":
    flags.run(main)
