"""Train one model on train, choose its epoch, temperature and threshold on val, and only then look at test."""

from common import data, scoring
from common.calibration import Calibration, calibrate, sigmoid
from common.files import write_csv
from common.model import Predictor, device_of, predict
from common.run import fallback, flags, folders, provenance, resume
from common.scoring import Scored, evaluate_splits
from common.seed import set_seed
from common.settings import Settings
from common.show import figures, tables
from common.training import Fit, fit

FILES = [*folders.FILES, "model.pt", "history.csv", "curves.png"]


def parse_args():
    parser = flags.Parser(__doc__)
    flags.add_run_flags(parser, "runs/train", falls_back=True)
    return parser.parse_args()


def score(fitted: Fit, settings: Settings, source, train, val, sensitivity) -> tuple[Calibration, dict[str, Scored]]:
    """Calibrate on val, then predict test: (calibration, {"val": …, "test": …})."""
    predictor = Predictor([fitted.model], settings.mirror)
    val_logits = predict(predictor, val.images)
    calibration = calibrate(val.labels, val_logits, sensitivity, "val")
    (test,) = data.load(source, "test")  # read only now, when everything is chosen
    test_logits = predict(predictor, test.images)
    return calibration, {
        "val": scoring.score(val, sigmoid(val_logits / calibration.temperature), train, apart=False),
        "test": scoring.score(test, sigmoid(test_logits / calibration.temperature), train, val),
    }


def main():
    args = parse_args()
    settings = Settings.from_args(args)
    source, settings, notice = fallback.choose(args, settings)
    if notice:
        print(notice, flush=True)  # before all that goes to stderr
    data.require(source, *data.SPLITS)
    scoring.require_unseen(source, "leave these out of it", "val", "test")
    val, *train = data.load(source, "val", "train", *data.further(source))
    train = data.concatenate(*train)

    name = "train on PHANTOM data" if source.synthetic else "train"
    described = provenance.describe(args, settings, source)
    with resume.begin(args, settings, source, described, FILES) as partial:
        set_seed(args.seed, args.threads)
        fitted = fit(train, val, settings, args.seed, device_of(args.device), name, partial / "model.pt")
        calibration, scored = score(fitted, settings, source, train, val, args.sensitivity)
        scores = evaluate_splits(scored, calibration)
        rows = [row for one in scored.values() for row in folders.prediction_rows(one.split, one.probabilities)]
        metrics = described | {"best_epoch": fitted.best_epoch} | scores
        with resume.finish(partial) as out:
            trained_on = ["train", *data.further(source)]
            folders.save_model(out / "model.pt", fitted.model, settings, args.seed, source, trained_on)
            folders.save_results(out, source, calibration, rows, metrics)
            write_csv(out / "history.csv", fitted.history, source.notice)
            figures.save(figures.training_curves(fitted.history, fitted.best_epoch, source.label), out / "curves.png")
    lines = [tables.scores_text(scores, source.label), *scoring.none_clean(scored), f"written to {args.out}/"]
    print(*lines, *filter(None, [notice]), sep="\n")


if __name__ == "__main__":
    flags.run(main)
