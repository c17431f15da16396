"""Train one model on train, choose its epoch, temperature and threshold on val, and only then look at test."""

from dataclasses import asdict

import common


def parse_args():
    parser = common.cli.Parser(__doc__)
    common.cli.add_run_flags(parser, "runs/train")
    return parser.parse_args()


def score(fit, settings, source, train, val, sensitivity):
    """Calibrate on val, then predict test: (calibration, {"val": Scored, "test": Scored})."""
    predictor = common.model.Predictor([fit.model], settings.mirror == "on")
    val_logits = common.model.predict(predictor, val.images)
    calibration = common.calibration.calibrate(val.labels, val_logits, sensitivity, "val")
    (test,) = common.data.load(source, "test")  # read only now, when everything is chosen
    logits = {"val": val_logits, "test": common.model.predict(predictor, test.images)}
    probabilities = {name: common.calibration.sigmoid(z / calibration.temperature) for name, z in logits.items()}
    clean = common.evaluation.clean_mask(test, train, val)
    scored = common.evaluation.Scored
    return calibration, {
        "val": scored(val.labels, probabilities["val"]),
        "test": scored(test.labels, probabilities["test"], clean),
    }


def save(out, fit, settings, source, seed, calibration, scored, metrics):
    """Write the files of the run."""
    rows = [common.runs.prediction_rows(name, s.labels, s.probabilities) for name, s in scored.items()]
    common.runs.save_model(out / "model.pt", fit.model, settings, seed, source, ["train"])
    common.runs.write_json(out / "calibration.json", asdict(calibration), source)
    common.runs.write_csv(out / "history.csv", fit.history, source)
    common.runs.write_csv(out / "predictions.csv", sum(rows, []), source)
    common.figures.save(common.figures.training_curves(fit.history, fit.best_epoch, source.label), out / "curves.png")
    common.runs.write_json(out / "metrics.json", metrics, source)


def main():
    args = parse_args()
    settings = common.settings.from_args(args)
    source = common.data.find(args.data, args.data_root, args.size, args.seed)
    train, val = common.data.load(source, "train", "val")

    with common.resume.begin(args, settings, source, foreign="fold_*.pt") as partial:
        common.seed.set_seed(args.seed, args.threads)
        device = common.model.device_of(args.device)
        fit = common.training.fit(train, val, settings, args.seed, device, checkpoint=partial / "model.pt")
        calibration, scored = score(fit, settings, source, train, val, args.sensitivity)
        report = common.evaluation.report(scored, calibration)
        metrics = common.runs.describe(args, settings, source) | {"best_epoch": fit.best_epoch} | report
        with common.resume.finish(partial) as out:
            save(out, fit, settings, source, args.seed, calibration, scored, metrics)
    print(common.evaluation.report_text(report, source), f"written to {args.out}/", sep="\n")


if __name__ == "__main__":
    common.cli.run(main)
