"""Search settings, by default learning rate and weight decay: Optuna finds the range, then a grid inside it decides.

A setting's score is the mean AUC over folds of train+val; near-duplicates and images of one patient share a fold. Test
is never read. The chosen setting is the simplest within one standard error of the best. The same command goes on where
it was stopped. Run several times at once, here or on other machines, it shares the work.
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
from common.show import figures, tables

JOURNAL = "study.journal"
FILES = ["best.json", "trials.csv", "study.png", "importance.png", "grid.png", JOURNAL]  # what --out may get
FOR_TRAINING = ("data", "positive", "data_root", "size", "seed")  # flags that train.py needs beside --params
TOP_SHARE = 0.25  # of the search's trials, best first, span the range of the grid
SHOWN = 5  # trials of each stage, best first, in the table
GRID = ("lr", "wd")  # down and across


def build_parser():
    parser = flags.Parser(__doc__)
    flags.add(parser, "--trials", POSITIVE_INT, "trials in all, by all workers and earlier sessions", 30)
    known = f"settings to search, of {', '.join(search.RANGES)}"
    flags.add(parser, "--search", Kind(search.names, "NAMES"), known, "lr,wd")
    flags.add(parser, "--grid", NATURAL, "then a grid of N x N values of lr and wd inside the range; 0: none", 3)
    flags.add(parser, "--folds", number(int, 2, math.inf), "folds that score a setting", 3)
    kept = "where workers share the search: journal:FILE, sqlite:///FILE, postgresql://… or mysql://…"
    flags.add(parser, "--storage", Kind(search.storage_url, "URL"), kept, shown=f"journal:{JOURNAL} in --out")
    flags.add(parser, "--study", Kind(str, "NAME"), "name of the study", "breastmnist")
    flags.add(parser, "--jobs", POSITIVE_INT, "workers to start here, which share --threads", 1)
    flags.add_run_flags(parser, "runs/tune", calibrates=False)
    return parser


def find(args, settings: Settings) -> data.Found:
    """The data of the command. Raises: UserError."""
    return data.find(args.data, args.data_root, args.size, args.seed, args.positive, view=settings.view)


@dataclass(frozen=True)
class Outcome:
    """rows: one row for each finished trial of both stages, as in trials.csv; chosen, best by mean: two of the rows;
    error: standard error of a difference between two settings; importances: {setting: share}."""

    rows: list[dict]
    chosen: dict
    best: dict
    error: float
    importances: dict[str, float]


def complete(rows: list[dict], stage: str) -> list[dict]:
    """The rows of a stage's complete trials, best first."""
    return sorted((row for row in rows if (row["stage"], row["state"]) == (stage, "complete")), key=lambda r: -r["auc"])


def make_score(pool, settings, args):
    """The function that scores a trial's setting by its mean AUC over the folds, which the pruner sees one by one."""
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
    """What all workers on a study must have in common. A file of weights counts by its content, not by its path."""
    fixed = {key: value for key, value in settings.as_dict().items() if key not in (*args.search, "patience")}
    if md5 := weights.weights_md5(settings.weights):
        fixed["weights"] = f"MD5 {md5}"
    ranges = {name: str(search.RANGES[name]) for name in args.search}
    return fixed | {"search": ranges, "folds": args.folds, "seed": args.seed, "data_md5": found.describe()["md5"]}


def work(url, fixed, settings, args) -> None:
    """Take part in a process of its own, which reads the images itself. Raises: UserError."""
    take_part(url, fixed, data.load(find(args, settings), "train", "val", optional=["val"]), settings, args)


def take_part(url, fixed, pool, settings, args) -> Outcome:
    """Do both stages together with all other workers. First TPE, which prunes poor trials after a fold; then the grid.
    The choice is among the cells of the grid, or without a grid among the best trials of the search.
    Raises: UserError."""
    score = make_score(pool, settings, args)
    study = search.open_study(url, args.study, fixed)
    with search.explained(url, "failed; the same command goes on from here"):
        search.optimise(study, args.trials, args.search, partial(score, "trial"), args.seed)
        trials = search.finished(study)[: args.trials]
        rows = [trial_row("search", trial.number, trial, trial.params, settings, args) for trial in trials]
        if not (searched := complete(rows, "search")):
            raise UserError("no trial is complete: the training diverged in all of them; give more --trials")
        near = searched[: max(2, math.ceil(TOP_SHARE * len(searched)))]  # at least two trials, which span a range
        if args.grid and set(GRID) & set(args.search):
            second = search.open_study(url, f"{args.study} grid {args.grid} after {args.trials}", fixed)
            second.pruner = optuna.pruners.NopPruner()
            if "cells" not in second.user_attrs:
                second.set_user_attr("cells", grid_cells(near, args))
            cells = second.user_attrs["cells"]  # those of the first worker, who may have seen fewer trials
            scored = search.score_all(second, cells, partial(score, "cell"))
            rows += [trial_row("grid", i, *pair, settings, args) for i, pair in enumerate(zip(scored, cells))]
            near = complete(rows, "grid") or near
        importances = search.importances(study, args.search)
    scores = np.array([[row[f"fold_{i + 1}"] for i in range(args.folds)] for row in near])
    chosen, best, error = search.choose(near, scores)
    return Outcome(rows, near[chosen], near[best], error, importances)


def trial_row(stage: str, number: int, trial, setting: dict, settings, args) -> dict:
    """A row of trials.csv. It has lr and wd also when they are not searched."""
    scores = trial.user_attrs.get("scores", [])
    mean, std = mean_std(scores)
    row = {"stage": stage, "trial": number, "state": trial.state.name.lower()}
    row |= {name: setting.get(name, getattr(settings, name)) for name in dict.fromkeys(GRID + args.search)}
    row |= {"auc": mean, "standard_error": std / math.sqrt(max(len(scores), 1))}
    return row | {f"fold_{i + 1}": scores[i] if i < len(scores) else None for i in range(args.folds)}


def grid_cells(near: list[dict], args) -> list[dict]:
    """args.grid values of lr and of wd, if these are searched, evenly spaced in the logarithm over the range of the
    near rows; all other settings as in the first row. A grid of one is the first row."""
    cells = [{name: near[0][name] for name in args.search}]
    for name in GRID if args.grid > 1 else ():
        if name in args.search:
            values = [row[name] for row in near]
            spaced = sorted({float(f"{x:.3g}") for x in np.geomspace(min(values), max(values), args.grid)})
            cells = [cell | {name: value} for cell in cells for value in spaced]
    return cells


def cells_of(row: dict, args) -> list[str]:
    """AUC ± standard error, and the searched settings, as text."""
    values = [row[name] for name in args.search]
    auc_text = f"{row['auc']:.4f} ± {row['standard_error']:.4f}"
    return [auc_text, *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values)]


def setting_text(row: dict, args) -> str:
    """A line such as: AUC 0.9012 ± 0.0103, lr 0.0003, wd 0.01."""
    return ", ".join(f"{name} {cell}" for name, cell in zip(("AUC", *args.search), cells_of(row, args)))


def outcome_text(outcome: Outcome, label: str, args) -> str:
    """The best trials of both stages, and the choice."""
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
    """study.png: the score of every trial of the search; importance.png; grid.png: the grid as a heat map."""
    title = f"{label}, mean AUC over folds"
    scores = {row["trial"]: row["auc"] for row in complete(outcome.rows, "search")}
    history = [scores.get(i) for i in range(1 + max(row["trial"] for row in outcome.rows if row["stage"] == "search"))]
    figures.save(figures.search_history(history, title, "AUC"), out / "study.png")
    if outcome.importances:
        shares = figures.importances(outcome.importances, f"{label}, settings searched")
        figures.save(shares, out / "importance.png")
    if grid := complete(outcome.rows, "grid"):
        cells = {(row["lr"], row["wd"]): (row["auc"], row["standard_error"]) for row in grid}
        chosen, best = ((row["lr"], row["wd"]) for row in (outcome.chosen, outcome.best))
        figures.save(figures.heat_map(cells, chosen, best, title), out / "grid.png")


def save(outcome: Outcome, settings, found, args, out) -> None:
    """Write best.json, in which keys with an underscore are for people, trials.csv and the figures."""
    made_with = provenance(found, args.threads)
    if args.storage:  # may hold a password
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
    draw(outcome, found.label, out)
    files.write_json(out / "best.json", settings.as_dict() | tuned, found.notice)


def next_command(parser, args, pool, out) -> str:
    """The command that trains with the chosen setting on the same data; train.py needs val."""
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
    weights.initial_model(args.size, settings)  # these two raise their errors before anything is written
    make_score(pool, settings, args)
    threads = max(args.threads // args.jobs, 1)
    set_seed(args.seed, threads)
    with outputs.output(args.out, FILES, [*found.paths, args.params, settings.weights]) as out:
        url, fixed = args.storage or f"journal:{out}/{JOURNAL}", fixed_settings(settings, found, args)
        search.open_study(url, args.study, fixed)  # before any worker, who would name the same error
        outputs.record(out, [] if args.storage else [JOURNAL])  # for other workers, and this command after a kill
        if args.jobs > 1:
            task = url, fixed, settings, args
            parallel.run_copies(work, task, args.jobs, partial(set_seed, args.seed, threads))
        outcome = take_part(url, fixed, pool, settings, args)  # what is missing: a worker may have died
        save(outcome, settings, found, args, out)
    print(outcome_text(outcome, found.label, args))
    print(f"next: {next_command(parser, args, pool, out)}")


if __name__ == "__main__":
    flags.run(main)
