"""Cross-validate the recipe: k models, each scored on the fold it has not seen; together they are an ensemble.

By default near-duplicates share a fold, over train+val. The seed study's protocol is
--folds 5 --groups none --pool train.
"""

import sys
from dataclasses import asdict

import numpy as np

import common


def parse_args():
    parser = common.cli.Parser(__doc__)
    one_of, at_least_one = common.settings.one_of, common.settings.POSITIVE_INT
    parser.add_argument("--folds", type=common.settings.number(int, 2, np.inf), default=5, metavar="K",
                        help="folds (default: %(default)s)")
    parser.add_argument("--repeats", type=at_least_one, default=1, metavar="R",
                        help="repeat with other folds and seeds (default: %(default)s)")
    parser.add_argument("--pool", type=one_of("train", "train+val", "all"), default="train+val", metavar="SPLITS",
                        help="what to divide: train, train+val or all (default: %(default)s)")
    parser.add_argument("--groups", type=one_of("twins", "none"), default="twins", metavar="HOW",
                        help="twins: near-duplicates share a fold; none: every image by itself (default: %(default)s)")
    parser.add_argument("--compare-groups", action="store_true",
                        help="also run the other way of --groups, and print both side by side")
    parser.add_argument("--drop-test-twins", action="store_true",
                        help="leave out images with a near-duplicate in test, for a clean test of the ensemble")
    parser.add_argument("--no-test", action="store_true", help="do not read test: for choosing settings")
    parser.add_argument("--jobs", type=at_least_one, metavar="N",
                        help="models trained at once, sharing --threads (default: as many as threads, at most K)")
    common.cli.add_sensitivity_flag(parser)
    common.cli.add_run_flags(parser, "runs/crossval")
    args = parser.parse_args()
    args.jobs = args.jobs or min(args.threads, args.folds)
    return args


def read_pool(source, args):
    """The images to divide and where each is from: (Split, split names [n], indices within the split [n])."""
    names = {"train": ["train"], "train+val": ["train", "val"], "all": ["train", "val", "test"]}[args.pool]
    splits = common.data.load(source, *names)
    pool = common.data.join(*splits)
    origin = np.repeat(names, [len(split) for split in splits])
    index = np.concatenate([np.arange(len(split)) for split in splits])
    if not args.drop_test_twins:
        return pool, origin, index
    (test,) = common.data.load(source, "test")  # its images only say what to leave out
    kept = common.evaluation.clean_mask(pool, test)
    print(f"left out {np.sum(~kept)} of {len(pool)} images, near-duplicates of test images", file=sys.stderr)
    return pool[kept], origin[kept], index[kept]


def validate(pool, groups, settings, args):
    """Cross-validate one way of grouping."""
    return common.crossvalidation.cross_validate(
        pool, groups, settings, args.folds, args.repeats, args.seed, args.jobs, args.threads, args.device
    )


def held_out_rows(pool, origin, index, validation, probabilities) -> list[dict]:
    """Out-of-fold rows of predictions.csv, an image once for each repeat, calibrated."""
    rows = []
    for fold, repeat in zip(validation.fold + 1, probabilities):
        for name in dict.fromkeys(origin):
            of = origin == name
            rows += common.runs.prediction_rows(name, pool.labels[of], repeat[of], index[of], fold[of])
    return rows


def test_ensemble(source, models, calibration, settings):
    """The ensemble on test, which is read only now that everything is chosen: (summaries, prediction rows)."""
    test, train, val = common.data.load(source, "test", "train", "val")
    predictor = common.model.Predictor(models, settings.mirror == "on", calibration.temperature)
    probabilities = common.calibration.sigmoid(common.training.predict(predictor, test.images))
    clean = common.evaluation.clean_mask(test, train, val)
    rows = common.runs.prediction_rows("test", test.labels, probabilities, fold=[""] * len(test))
    return common.evaluation.summaries(test.labels, probabilities, clean), rows


def fold_table(folds) -> str:
    """Metrics of each fold, then their mean and standard deviation."""
    spread = common.intervals.spread(folds, common.tables.COLUMNS)
    table = common.tables.metrics_table({f"fold {fold['fold']}": fold for fold in folds})
    return table + "\n" + common.tables.spread_line("mean ± std over folds", spread)


def save(out, models, settings, source, args, calibration, rows, metrics):
    """Write the run folder, and clear away models of an earlier run with more folds."""
    files = [out / f"fold_{i + 1}.pt" for i in range(len(models))]
    for i, (file, model) in enumerate(zip(files, models)):
        common.runs.save_model(file, model, settings, args.seed + i, source)
    for stale in set(out.glob("fold_*.pt")) - set(files):
        stale.unlink()
    common.runs.write_json(out / "calibration.json", asdict(calibration))
    common.runs.write_csv(out / "predictions.csv", rows)
    common.runs.write_csv(out / "folds.csv", [common.metrics.flatten(fold) for fold in metrics["folds"]])
    common.runs.write_json(out / "metrics.json", metrics)


def main():
    args = parse_args()
    settings = common.settings.from_args(args)
    common.seed.set_seed(args.seed, args.threads)
    source = common.data.find(args.data, args.data_root, args.size, args.seed)
    out = common.runs.create(args.out, "model.pt")
    pool, origin, index = read_pool(source, args)

    validation = validate(pool, args.groups, settings, args)
    mean_logits = validation.logits.mean(0)
    calibration = common.calibration.calibrate(pool.labels, mean_logits, args.sensitivity, "out-of-fold predictions")
    to_probability = lambda logits: common.calibration.sigmoid(logits / calibration.temperature)
    rows = held_out_rows(pool, origin, index, validation, to_probability(validation.logits))
    splits = common.evaluation.summaries(pool.labels, to_probability(mean_logits), name="out_of_fold")
    if not args.no_test and args.pool != "all":
        tested, test_rows = test_ensemble(source, validation.models, calibration, settings)
        splits, rows = splits | tested, rows + test_rows

    folds = validation.score_folds(pool.labels)
    metrics = {
        "config": asdict(settings) | {key: value for key, value in vars(args).items()},
        "provenance": common.runs.provenance(source, args.threads),
        "splits": splits,
        "folds": folds,
    }
    save(out, validation.models, settings, source, args, calibration, rows, metrics)
    print(fold_table(folds), common.tables.metrics_table(splits), sep="\n\n")


if __name__ == "__main__":
    common.cli.run(main)
