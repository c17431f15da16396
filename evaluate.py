"""Every metric of a run or an .onnx file on one split, with intervals, figures and a report to open in a browser."""

import glob
import os
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from common import comparison, data, files, scoring
from common.calibration import OUT_OF_FOLD, operating_point, threshold_rule
from common.deploy import onnxfile
from common.errors import UserError
from common.intervals import resample_counts
from common.metrics import STANDARD_THRESHOLD, summary
from common.model import device_of
from common.run import flags, folders
from common.run.provenance import provenance
from common.seed import set_seed
from common.settings import number, one_of
from common.show import figures, gradcam, page, tables


def parse_args():
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "model", metavar="RUN_OR_ONNX", help="a folder of train.py or crossval.py, or a file of export.py"
    )
    parser.add_argument(
        "--split",
        type=one_of("train", "val", "test"),
        default="test",
        metavar="NAME",
        help="train, val or test (default: %(default)s)",
    )
    parser.add_argument(
        "--bootstrap",
        type=number(int, 100, 100_000),
        default=2000,
        metavar="B",
        help="resamples behind each 95 %% interval (default: %(default)s)",
    )
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="compare with another run, .onnx or predictions.csv on the same images (default: none)",
    )
    parser.add_argument(
        "--sensitivity",
        type=flags.INNER_SHARE,
        metavar="S",
        help="choose the operating point anew, on the run's held-out predictions, and store it "
        "(default: keep the stored one)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the results (default: RUN, or the folder of the .onnx)"
    )
    flags.add_data_flags(parser, of_run=True)
    flags.add_machine_flags(parser)
    return parser.parse_args()


def open_model(name, args):
    """A run folder or an .onnx file; both have probabilities(), calibration and data."""
    if name.endswith(".onnx"):
        return onnxfile.load(name, args.threads)
    return folders.load(name, device_of(args.device))


def name_of(path) -> str:
    """What a run, an .onnx or a predictions.csv is called: its name without those endings."""
    path = Path(path).resolve()
    return path.stem if path.suffix in (".onnx", ".csv") else path.name


def of_model(model) -> Path:
    """The folder of a run or an .onnx file."""
    return model.path if model.path.is_dir() else model.path.parent


def choose_operating_point(model, sensitivity):
    """The run with another operating point, chosen on its own held-out predictions."""
    if not isinstance(model, folders.Run):
        raise UserError("--sensitivity: an .onnx file keeps no held-out predictions; give the run folder")
    rows = folders.held_out(folders.read_predictions(model.path / "predictions.csv"))
    labels, probabilities = folders.columns(rows)
    chosen = replace(
        model.calibration,
        threshold=operating_point(labels, probabilities, sensitivity),
        threshold_rule=threshold_rule(sensitivity, model.calibration.fitted_on),
    )
    return replace(model, calibration=chosen)


def predict(model, source, split, name) -> tuple[np.ndarray, str]:
    """P(malignant) of a split, and how it was predicted: an ensemble's own images only by members that have not seen
    them."""
    if source.md5 == model.data["md5"] and name in model.data["trained_on"]:
        if isinstance(model, folders.Run):
            rows = folders.read_predictions(model.path / "predictions.csv")
            unseen = [row for row in rows if row["split"] == name and row["out_of_fold"]]
            if len(unseen) == len(split):
                return folders.columns(unseen)[1], OUT_OF_FOLD
        print(f"warning: {model.path} was trained on {name}; these figures flatter it", file=sys.stderr)
    return model.probabilities(split.images), "predictions of the model"


def score(model, source, name):
    """The Scored predictions of a split, clean of what could be in training, and how they were predicted."""
    split, *others = data.load(source, name, *{"test": ("train", "val"), "val": ("train",), "train": ()}[name])
    probabilities, how = predict(model, source, split, name)
    apart = others and how != OUT_OF_FOLD
    clean = scoring.clean_mask(split, *others) if apart else None
    return scoring.Scored(split.labels, probabilities, clean), how


def score_other(other, source, args):
    """The Scored predictions of what --against names; a model of another input size gets the images of its size."""
    if not other.endswith(".csv"):
        model = open_model(other, args)
        if model.data["size"] != source.size:
            source = data.find_again(model.data, args.data, args.data_root, None, args.seed)
        return score(model, source, args.split)[0]
    rows = [row for row in folders.read_predictions(Path(other)) if row["split"] == args.split]
    return scoring.Scored(*folders.columns(rows))


def compare(name, scored, other_name, other, resamples, seed) -> dict:
    """Paired tests of two models on the same images, at the standard threshold. Raises: UserError on other images."""
    labels, ours, theirs = scored.labels, scored.probabilities, other.probabilities
    if not np.array_equal(labels, other.labels):
        raise UserError(f"--against {other_name}: its predictions are not of the same images")
    standard = STANDARD_THRESHOLD
    delong = comparison.delong(labels, ours, theirs)
    mcnemar = comparison.mcnemar(labels, ours >= standard, theirs >= standard)
    return {
        "against": other_name,
        "differences": comparison.paired_bootstrap(labels, ours, theirs, resamples=resamples, seed=seed),
        "delong": delong,
        "mcnemar": mcnemar,
        "conclusion": comparison.conclusion(name, other_name, delong, mcnemar, len(labels)),
    }


def write_standard_result(out, name, scored, source, split) -> Path:
    """MedMNIST's standard result file, written by MedMNIST's own Evaluator in its own label order (1 is benign); what
    the Evaluator computes must be what we computed."""
    import medmnist

    evaluator = medmnist.Evaluator("breastmnist", split, size=source.size, root=source.path.parent)
    metrics = summary(scored.labels, scored.probabilities)
    ours = metrics["auc"], metrics["accuracy"]
    try:
        with tempfile.TemporaryDirectory(dir=out) as beside:
            theirs = evaluator.evaluate(1 - scored.probabilities.astype(float), beside, name)
            if not np.allclose(theirs, ours, rtol=0, atol=1e-12):
                raise UserError(f"MedMNIST's Evaluator finds {theirs}, not {ours}")
            file = out / evaluator.get_standard_evaluation_filename(theirs, name)
            for earlier in out.glob(f"breastmnist*_{split}_*@{glob.escape(name)}.csv"):
                earlier.unlink()
            os.replace(Path(beside) / file.name, file)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); free some space") from None
    return file


def draw(model, source, scored, how, args, seed) -> dict:
    """The figures of the scores, {what it shows: (file stem, Figure)}."""
    labels, probabilities = scored.labels, scored.probabilities
    thresholds = {"standard": STANDARD_THRESHOLD, "operating point": model.calibration.threshold}
    counts = resample_counts(labels, args.bootstrap, seed)
    title = f"{source.label}, {args.split}{', out-of-fold' if how == OUT_OF_FOLD else ''}"
    drawn = {
        "ROC curve": ("roc", figures.roc(labels, probabilities, counts, thresholds, title)),
        "Precision-recall curve": (
            "precision_recall", figures.precision_recall(labels, probabilities, counts, thresholds, title)
        ),
        "Reliability diagram": ("reliability", figures.reliability(labels, probabilities, title)),
        "Scores by class": ("scores", figures.score_histogram(labels, probabilities, thresholds, title)),
        "Confusion matrices": ("confusion", figures.confusion(labels, probabilities, thresholds, title)),
    }  # fmt: skip
    if isinstance(model, folders.Run):
        if how != OUT_OF_FOLD:
            drawn["Grad-CAM"] = ("grad_cam", draw_grad_cam(model, source, scored, args.split, title))
        metrics = folders.read_metrics(model.path)
        if metrics.get("folds"):
            drawn["Folds"] = ("folds", draw_folds(metrics, source))
    return drawn


def draw_grad_cam(model, source, scored, split, title):
    """Where the model looks in the images that it gets most confidently wrong and right."""
    (images,) = (part.images for part in data.load(source, split))
    shown = np.concatenate(gradcam.most_confident(scored.labels, scored.probabilities, 6))
    heat = gradcam.grad_cam(model.predictor, images[shown])
    labels, probabilities = scored.labels[shown], scored.probabilities[shown]
    return figures.grad_cam_sheet(images[shown], heat, labels, probabilities, shown, title)


def draw_folds(metrics, source):
    """The folds of a cross-validated run beside their pooled figures."""
    folds, pooled = metrics["folds"], metrics["splits"]["out_of_fold"]
    return figures.fold_overview(folds, pooled, f"{source.label}, {len(folds)} folds")


def comparison_section(comparison):
    """The sentence, and the paired differences behind it."""
    rows = [
        [tables.COLUMNS[name], f"{x['difference']:+.4f}", " to ".join(f"{limit:+.4f}" for limit in x["ci95"])]
        for name, x in comparison["differences"].items()
    ]
    table = page.Table(["", "difference", "95 % interval"], rows, "Paired bootstrap, at the standard threshold.")
    return page.Section("Comparison", [comparison["conclusion"]], [table])


def sections(report, model, source, how, pngs) -> list:
    """What report.html shows: tables first, then the comparison, then the figures."""
    section, table = page.Section, page.metrics_table
    point, fit = report["operating_point"], report["calibration"]
    split, called = next(iter(point["splits"])), model.path.resolve().name
    paragraphs = [
        f"{source.label}: {how} of {called}. Malignant is the positive class; brackets are 95 % bootstrap "
        "intervals. “clean” leaves out images with a near-duplicate among the training or validation images.",
        f"The operating point {point['threshold']:.4f} is the {point['rule']}; the temperature "
        f"{fit['temperature']:.3f} was fitted on {fit['fitted_on']}.",
        "At the operating point, " + tables.operating_rates(split, point["splits"][split]) + ".",
    ]
    measures = {name: values for name, values in fit.items() if isinstance(values, dict)}
    rows = [[name, *(tables.with_interval(values, m) for m in ("brier", "ece"))] for name, values in measures.items()]
    shown = [
        table(report["splits"], "At the standard threshold 0.5."),
        table(point["splits"], "At the operating point."),
        page.Table(["", "Brier score", "ECE"], rows, "Calibration; ECE in 10 bins of equal mass."),
    ]
    compared = [comparison_section(report["comparison"])] if "comparison" in report else []
    pictures = [page.Picture(file, f"{what} of {called}", what) for what, file in pngs.items()]
    return [section("Metrics", paragraphs, shown), *compared, section("Figures", pictures=pictures)]


def save(out, args, model, source, how, report, drawn) -> Path:
    """Write evaluation_<split>.json, the figures and the page, whose path is returned."""
    head = {"model": model.path.resolve().name, "split": args.split, "predictions": how}
    made = {"provenance": provenance(source, args.threads)}
    files.write_json(out / f"evaluation_{args.split}.json", head | made | report, source.notice)
    written = {what: out / f"{stem}_{args.split}.png" for what, (stem, _) in drawn.items()}
    for what, (_, figure) in drawn.items():
        figures.save(figure, written[what])
    page = out / ("report.html" if args.split == "test" else f"report_{args.split}.html")
    title = f"{model.path.resolve().name} on {args.split}"
    page.write_html(page, title, sections(report, model, source, how, written))
    return page


def main():
    args = parse_args()
    set_seed(0, args.threads)
    model = open_model(args.model, args)
    source = data.find_again(model.data, args.data, args.data_root, args.size, args.seed)
    if args.sensitivity is not None:
        model = choose_operating_point(model, args.sensitivity)
    name, seed = name_of(model.path), source.seed if args.seed is None else args.seed

    scored, how = score(model, source, args.split)
    other = score_other(args.against, source, args) if args.against else None
    report = scoring.evaluate_splits({args.split: scored}, model.calibration, args.bootstrap, seed)
    drawn = draw(model, source, scored, how, args, seed)
    text = tables.scores_text(report, source)
    if other:
        report["comparison"] = result = compare(name, scored, args.against, other, args.bootstrap, seed)
        figure = figures.comparison(result["differences"], name, name_of(args.against), source.label)
        drawn["Comparison"] = ("comparison", figure)
        text += "\n" + result["conclusion"]

    out = folders.make_output(of_model(model) if args.out is None else args.out)
    if args.sensitivity is not None:
        files.write_json(model.path / "calibration.json", asdict(model.calibration), source.notice)
        print("the new operating point is stored; metrics.json and earlier exports keep the old one", file=sys.stderr)
    page = save(out, args, model, source, how, report, drawn)
    print(text)
    if source.name == "breastmnist":
        print(f"MedMNIST's standard result file: {write_standard_result(out, name, scored, source, args.split)}")
    print(f"figures, evaluation_{args.split}.json and {page.name}: {out}/")


if __name__ == "__main__":
    flags.run(main)
