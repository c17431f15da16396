"""Search for good settings, by default for the learning rate and the weight decay.

First Optuna finds a promising range of each setting, then a grid inside the range decides. The score of a setting is
its mean AUC over folds of train and val. Near-duplicates and images of one patient share a fold. Test is never read.
tune.py chooses the simplest setting within one standard error of the best.

To continue a stopped search, repeat the command. To share the work, run the command several times at once, here or on
other machines.
"""

import math
import shlex
import sys
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import optuna

from common import crossvalidation, data, files, parallel, training, weights
from common.errors import UserError
from common.folds import assign_folds
from common.intervals import mean_std
from common.kinds import NATURAL, POSITIVE_INT, Kind, number
from common.metrics import auc
from common.model import device_of
from common.run import flags, outputs, search
from common.run.provenance import provenance
from common.seed import set_seed
from common.settings import Settings, check
from common.show import figures, searchfigures, tables

JOURNAL = "study.journal"
FIGURES = ["study.png", "importance.png", "grid.png"]
FILES = ["best.json", "trials.csv", *FIGURES, JOURNAL]  # what --out may get
FOR_TRAINING = ("data", "positive", "data_root", "size", "seed")  # flags that train.py needs in addition to --params
TOP_SHARE = 0.25  # share of the trials of the search, the best ones, that spans the range of the grid
SHOWN = 5  # number of trials of each stage in the table, the best ones
GRID = ("lr", "wd")  # rows and columns of the grid


def build_parser():
    parser = flags.Parser(__doc__)
    flags.add(
        parser, "--trials", POSITIVE_INT, "total number of trials, with those of other workers and earlier sessions", 30
    )
    known = f"settings to search, separated by commas: {', '.join(search.RANGES)}"
    flags.add(parser, "--search", Kind(search.names, "NAMES"), known, "lr,wd")
    flags.add(parser, "--grid", NATURAL, "after the search, try a grid of N x N values of lr and wd; 0: no grid", 3)
    flags.add(parser, "--folds", number(int, 2, math.inf), "number of folds that score a setting", 3)
    kept = "where workers store the shared search: journal:FILE, sqlite:///FILE, postgresql://… or mysql://…"
    flags.add(parser, "--storage", Kind(search.storage_url, "URL"), kept, shown=f"journal:{JOURNAL} in --out")
    flags.add(parser, "--study", Kind(str, "NAME"), "name of the study in the storage", "breastmnist")
    flags.add(parser, "--jobs", POSITIVE_INT, "number of workers to start on this machine; they share --threads", 1)
    flags.add_run_flags(parser, "runs/tune", calibrates=False)
    return parser


def find(args, settings: Settings) -> data.Found:
    """Find the data of a command. Raises: UserError."""
    return data.find(args.data, args.data_root, args.size, args.seed, args.positive, view=settings.view)


@dataclass(frozen=True)
class Outcome:
    """Result of a search.

    rows: one row for each finished trial of both stages, as in trials.csv; chosen: the row of the chosen setting; best:
    the row with the best mean; error: standard error of a difference between two settings; importances:
    {setting: share}.
    """

    rows: list[dict]
    chosen: dict
    best: dict
    error: float
    importances: dict[str, float]


def complete(rows: list[dict], stage: str) -> list[dict]:
    """Return the rows of the complete trials of a stage, best first."""
    return sorted((row for row in rows if (row["stage"], row["state"]) == (stage, "complete")), key=lambda r: -r["auc"])


def make_score(pool, settings, args):
    """Return a function that scores the setting of a trial by the mean AUC over the folds.

    The pruner sees the mean after each fold.
    """
    device = device_of(args.device)
    fold_of = assign_folds(pool.labels, pool.groups, args.folds, args.seed)

    def score(stage: str, trial: optuna.Trial, setting: dict) -> float:
        tried = replace(settings, **{name: check(name, value, "study") for name, value in setting.items()})
        scores: list[float] = []
        for fold in range(args.folds):
            name, held_out = f"{stage} {trial.number} fold {fold + 1}", fold_of == fold
            seed = crossvalidation.model_seed(args.seed, fold)
            try:
                _, logits, _ = crossvalidation.train_fold(pool, ~held_out, held_out, tried, seed, device, name)
            except training.Diverged:
                raise optuna.TrialPruned() from None
            scores.append(float(auc(pool.labels[held_out], logits)))
            trial.set_user_attr("scores", scores)
            trial.report(float(np.mean(scores)), fold)
            if fold + 1 < args.folds and trial.should_prune():
                raise optuna.TrialPruned()
        return float(np.mean(scores))

    return score


def fixed_settings(settings, found, args) -> dict:
    """Return what all workers on a study must have in common. A file of weights counts by its content, not its path."""
    fixed = {key: value for key, value in settings.as_dict().items() if key not in (*args.search, "patience")}
    fixed["precision"] = training.precision(device_of(args.device), settings.precision)
    if md5 := weights.weights_md5(settings.weights):
        fixed["weights"] = f"MD5 {md5}"
    ranges = {name: str(search.RANGES[name]) for name in args.search}
    fixed |= {"search": ranges, "folds": args.folds, "seed": args.seed}
    return fixed | {"size": found.size, "data_md5": found.describe()["md5"]}


def work(url, fixed, settings, args) -> None:
    """Read the images and take part in the search, in a separate process. Raises: UserError."""
    take_part(url, fixed, data.load(find(args, settings), "train", "val", optional=["val"]), settings, args)


def take_part(url, fixed, pool, settings, args) -> Outcome:
    """Do both stages of the search together with all other workers, and choose a setting.

    In the first stage, TPE proposes settings, and poor trials are pruned after two folds or more. The second stage is
    the grid.
    The choice is among the cells of the grid or, without a grid, among the best trials of the search.
    Raises: UserError.
    """
    score = make_score(pool, settings, args)
    study = search.open_study(url, args.study, fixed)
    with search.explained(url, "failed. To continue from here, repeat the command"):
        search.optimise(study, args.trials, args.search, partial(score, "trial"), args.seed)
        trials = search.finished(study)[: args.trials]
        rows = [trial_row("search", trial.number, trial, trial.params, settings, args) for trial in trials]
        if not (searched := complete(rows, "search")):
            raise UserError("no trial is complete, because the training diverged in all of them. Give more --trials.")
        near = searched[: max(2, math.ceil(TOP_SHARE * len(searched)))]  # at least two trials, which span a range
        if args.grid and set(GRID) & set(args.search):
            second = search.open_study(url, f"{args.study} grid {args.grid} after {args.trials}", fixed)
            second.pruner = optuna.pruners.NopPruner()
            if "cells" not in second.user_attrs:
                second.set_user_attr("cells", grid_cells(near, args))
            cells = second.user_attrs["cells"]  # the cells of the first worker, which may have seen fewer trials
            scored = search.score_all(second, cells, partial(score, "cell"))
            rows += [trial_row("grid", i, *pair, settings, args) for i, pair in enumerate(zip(scored, cells))]
            near = complete(rows, "grid") or near
        importances = search.importances(study, args.search)
    scores = np.array([[row[f"fold_{i + 1}"] for i in range(args.folds)] for row in near])
    chosen, best, error = search.choose(near, scores)
    return Outcome(rows, near[chosen], near[best], error, importances)


def trial_row(stage: str, number: int, trial, setting: dict, settings, args) -> dict:
    """Return a row of trials.csv. The row has lr and wd even if the search does not vary them."""
    scores = trial.user_attrs.get("scores", [])
    mean, std = mean_std(scores)
    row = {"stage": stage, "trial": number, "state": trial.state.name.lower()}
    row |= {name: setting.get(name, getattr(settings, name)) for name in dict.fromkeys(GRID + args.search)}
    row |= {"auc": mean, "standard_error": std / math.sqrt(max(len(scores), 1))}
    return row | {f"fold_{i + 1}": scores[i] if i < len(scores) else None for i in range(args.folds)}


def grid_cells(near: list[dict], args) -> list[dict]:
    """Return the settings of the grid: args.grid values of lr and of wd, if the search varies them.

    The values are evenly spaced in the logarithm over the range of the near rows. All other settings are those of the
    first row. A grid of one cell is the first row.
    """
    cells = [{name: near[0][name] for name in args.search}]
    for name in GRID if args.grid > 1 else ():
        if name in args.search:
            values = [row[name] for row in near]
            spaced = sorted({float(f"{x:.3g}") for x in np.geomspace(min(values), max(values), args.grid)})
            cells = [cell | {name: value} for cell in cells for value in spaced]
    return cells


def cells_of(row: dict, args) -> list[str]:
    """Return AUC ± standard error, and the searched settings, as texts."""
    values = [row[name] for name in args.search]
    auc_text = f"{row['auc']:.4f} ± {row['standard_error']:.4f}"
    return [auc_text, *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values)]


def setting_text(row: dict, args) -> str:
    """Return a line such as: AUC 0.9012 ± 0.0103, lr 0.0003, wd 0.01."""
    return ", ".join(f"{name} {cell}" for name, cell in zip(("AUC", *args.search), cells_of(row, args)))


def outcome_text(outcome: Outcome, label: str, args) -> str:
    """Return the best trials of both stages, and the choice, as text."""
    lines = [f"{label}, mean AUC ± standard error over {args.folds} folds of train+val", ""]
    lines.append(tables.line("", ["AUC", *args.search], 18))
    for stage in ("search", "grid"):
        for row in complete(outcome.rows, stage)[:SHOWN]:
            lines.append(tables.line(f"{stage} {row['trial']}", cells_of(row, args), 18))
    error = "n/a (a single setting)" if math.isnan(outcome.error) else f"{outcome.error:.4f}"
    choice = f"""
best by mean: {setting_text(outcome.best, args)}
standard error of a difference between settings, paired by fold: {error}
chosen, the simplest within one standard error of the best: {setting_text(outcome.chosen, args)}"""
    return "\n".join([*lines, choice])


def draw(outcome: Outcome, label: str, out) -> None:
    """Draw study.png (the score of every trial), importance.png, and grid.png (the grid as a heat map)."""
    title = f"{label}, mean AUC over folds"
    scores = {row["trial"]: row["auc"] for row in complete(outcome.rows, "search")}
    history = [scores.get(i) for i in range(1 + max(row["trial"] for row in outcome.rows if row["stage"] == "search"))]
    figures.save(searchfigures.search_history(history, title), out / "study.png")
    if outcome.importances:
        shares = searchfigures.importances(outcome.importances, f"{label}, settings searched")
        figures.save(shares, out / "importance.png")
    if grid := complete(outcome.rows, "grid"):
        cells = {(row["lr"], row["wd"]): (row["auc"], row["standard_error"]) for row in grid}
        chosen, best = ((row["lr"], row["wd"]) for row in (outcome.chosen, outcome.best))
        figures.save(searchfigures.heat_map(cells, chosen, best, title), out / "grid.png")


def save(outcome: Outcome, settings, found, args, out) -> None:
    """Write best.json, trials.csv and the figures. In best.json, keys with an underscore are for people."""
    made_with = provenance(found, args.threads)
    if args.storage:  # the URL may hold a password
        words = (word.replace(args.storage, search.shown(args.storage)) for word in sys.argv)
        made_with["command"] = shlex.join(["python", *words])
    chosen, best = outcome.chosen, outcome.best
    tuned = {name: chosen[name] for name in args.search} | {
        "_auc": chosen["auc"],
        "_standard_error": chosen["standard_error"],
        "_folds": args.folds,
        "_rule": search.RULE,
        "_paired_error": outcome.error,
        "_best_by_mean": {key: best[key] for key in (*args.search, "auc", "standard_error")},
        "_importances": outcome.importances,
        "_provenance": made_with,
    }
    files.write_csv(out / "trials.csv", outcome.rows, found.notice)
    for figure in FIGURES:  # of an earlier search
        (out / figure).unlink(missing_ok=True)
    draw(outcome, found.label, out)
    files.write_json(out / "best.json", settings.as_dict() | tuned, found.notice)


def next_command(parser, args, pool, out) -> str:
    """Return the command that trains with the chosen setting on the same data: train.py, or crossval.py without val."""
    script = "train.py" if (pool.table["split"] == "val").any() else "crossval.py"
    words = ["python", script, "--params", f"{out}/best.json"]
    for name in FOR_TRAINING:
        if (value := getattr(args, name)) != parser.get_default(name):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def main():
    parser = build_parser()
    args = parser.parse_args()
    settings = Settings.from_args(args)
    found = find(args, settings)
    settings = replace(settings, view=found.view)
    pool = data.load(found, "train", "val", optional=["val"])
    data.require_apart(found, without="test")
    weights.initial_model(args.size, settings)  # both calls raise their errors before anything is written
    make_score(pool, settings, args)
    threads = max(args.threads // args.jobs, 1)
    set_seed(args.seed, threads)
    with outputs.output(args.out, FILES, [*found.paths, args.params, settings.weights]) as out:
        url, fixed = args.storage or f"journal:{out}/{JOURNAL}", fixed_settings(settings, found, args)
        search.open_study(url, args.study, fixed)  # before any worker, so that an error is printed once
        outputs.record(out, [] if args.storage else [JOURNAL])  # for other workers, and this command after a kill
        if args.jobs > 1:
            task = url, fixed, settings, args
            parallel.run_copies(work, task, args.jobs, partial(set_seed, args.seed, threads))
        outcome = take_part(url, fixed, pool, settings, args)  # finish what a dead worker left
        save(outcome, settings, found, args, out)
    print(outcome_text(outcome, found.label, args))
    print(f"next: {next_command(parser, args, pool, out)}")


if __name__ == "__main__":
    flags.run(main)
