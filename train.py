"""Train one model on train. Choose its epoch, calibration and operating point on val. Then predict test once."""

from dataclasses import replace

from common import data, scoring
from common.calibration import CHOSEN
from common.data import Found, Images
from common.files import write_csv
from common.looks import choose_found_threshold, find_and_predict
from common.model import Predictor, device_of
from common.run import fallback, flags, folders, provenance, resume
from common.scoring import Scored
from common.seed import set_seed
from common.settings import Settings
from common.show import figures, tables
from common.thresholds import Rule
from common.training import Fit, fit

FILES = [*folders.FILES, "model.pt", "history.csv", "curves.png"]


def parse_args():
    parser = flags.Parser(__doc__)
    flags.add_run_flags(parser, "runs/train", falls_back=True)
    return parser.parse_args()


def score(fitted: Fit, settings: Settings, found: Found, pool: Images, rule: Rule):
    """Calibrate on val, then predict test.

    Args: pool: the images of train and val.
    Returns: the calibration, the predictions of val and of test, and all images.
    """
    predictor = Predictor([fitted.model], settings.mirror)
    of_val = pool.are_of("val")
    val, groups = pool[of_val], pool.groups[of_val]
    logits, sure = find_and_predict(predictor, val)
    found_threshold = choose_found_threshold(val, sure)
    chose = (*["epoch"] * bool(settings.patience), *CHOSEN)
    calibration = scoring.fit_calibration(
        val, logits, groups, rule, "val", found_threshold=found_threshold, chose=chose
    )
    test = data.load(found, "test")  # read only after everything is chosen
    of_test, _ = find_and_predict(predictor, test)
    images, probabilities = data.concatenate(pool, test), calibration.probabilities(of_test)
    scored = [
        Scored("val", val, calibration.probabilities(logits), groups, choosing=True, chose=calibration.chose),
        scoring.score_test(images, images.are_of("test"), probabilities),
    ]
    return calibration, scored, images


def main():
    args = parse_args()
    settings = Settings.from_args(args)
    found, settings, notice = fallback.choose(args, settings)
    settings = replace(settings, view=found.view)
    if notice:
        print(notice, flush=True)  # before the first line on stderr
    pool = data.load(found, "train", "val")
    data.require_apart(found)
    if "test" not in found.splits:  # checked now, because test is read only after training
        data.refuse_empty(found, "test")

    name = "train on PHANTOM data" if found.synthetic else "train"
    described = provenance.describe(args, settings, found)
    with resume.begin(args, settings, found, described, FILES) as partial:
        set_seed(args.seed, args.threads)
        train, val = pool.of_split("train"), pool.of_split("val")
        fitted = fit(train, val, settings, args.seed, device_of(args.device), name, partial / "model.pt")
        calibration, scored, images = score(fitted, settings, found, pool, Rule("sensitivity", args.sensitivity))
        results = scoring.score_parts(scored, calibration)
        metrics = described | {"best_epoch": fitted.best_epoch} | scoring.summary(results, calibration)
        with resume.finish(partial) as out:
            folders.save_model(out / "model.pt", fitted.model, settings, args.seed, found, ["train"])
            folders.save_table(out, images)
            rows = [row for one in scored for row in folders.prediction_rows(one.images, one.probabilities)]
            folders.save_results(out, found, calibration, rows, metrics)
            write_csv(out / "history.csv", fitted.history, found.notice)
            curves = figures.training_curves(fitted.deciding_epochs, fitted.best_epoch, found.label)
            figures.save(curves, out / "curves.png")
    lines = [tables.results_text(results, calibration, found.label, found.synthetic, scoring.notes(scored, results))]
    print(*lines, f"written to {args.out}/", *filter(None, [notice]), sep="\n")


if __name__ == "__main__":
    flags.run(main)
