"""Search settings, by default learning rate and weight decay: Optuna finds the range, then a grid inside it decides.

A setting's score is the mean AUC over twin-aware folds of train+val; test is never read. The chosen setting is the
simplest within one standard error of the best. The search is kept in --storage: the same command goes on where it was
stopped, and run several times at once, here or on other machines, it shares the work.
"""

import math
import shlex
import sys
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import quote

import numpy as np
import optuna

from common import crossvalidation, data, files, parallel, training, weights
from common.errors import UserError
from common.folds import assign_folds
from common.intervals import mean_std
from common.metrics import auc
from common.model import device_of
from common.run import flags, outputs, search
from common.run.provenance import provenance
from common.seed import set_seed
from common.settings import NATURAL, POSITIVE_INT, Kind, Settings, check, number
from common.show import figures, tables

FILES = ["best.json", "trials.csv", "study.png", "importance.png", "grid.png", "study.db"]  # that may be written
TOP_SHARE = 0.25  # of the search's trials, best first, span the range of the grid
SHOWN = 5  # of the search's trials, best first, in the table
GRID = ("lr", "wd")  # down and across


def parse_args():
    parser = flags.Parser(__doc__)
    flags.add(parser, "--trials", POSITIVE_INT, "trials in all, by all workers and earlier sessions", 30)
    known = f"settings to search, of {', '.join(search.RANGES)}"
    flags.add(parser, "--search", Kind(search.names, "NAMES"), known, "lr,wd")
    flags.add(parser, "--grid", NATURAL, "then a grid of N x N values of lr and wd inside the range; 0: none", 3)
    flags.add(parser, "--folds", number(int, 2, math.inf), "twin-aware folds that score a setting", 3)
    kept = "where the search is kept and shared: sqlite:///FILE, postgresql://…, mysql://… or journal:FILE"
    flags.add(parser, "--storage", Kind(str, "URL"), kept, shown="the SQLite file study.db in --out")
    flags.add(parser, "--study", Kind(str, "NAME"), "name of the study", "breastmnist")
    flags.add(parser, "--jobs", POSITIVE_INT, "workers to start here, which share --threads", 1)
    flags.add(parser, "--heartbeat", POSITIVE_INT, "seconds between a worker's signs of life; four missing: dead", 15)
    flags.add_run_flags(parser, "runs/tune", calibrates=False)
    return parser.parse_args()


@dataclass(frozen=True)
class Outcome:
    """rows: one a finished trial of either stage; found: the search's complete ones, best first; grid: the grid's, and
    ends {lr or wd: the range that it covers}, empty without one; importances: {setting: share}; chosen, and best by
    mean: two of the rows; error: the standard error of a difference between them."""

    rows: list[dict]
    found: list[dict]
    grid: list[dict]
    ends: dict[str, tuple[float, float]]
    importances: dict[str, float]
    chosen: dict
    best: dict
    error: float


def make_score(pool, settings, args):
    """The function that scores a trial of a stage: its mean AUC over the folds, reported fold by fold to the pruner."""
    device = device_of(args.device)
    fold_of = assign_folds(pool.labels, data.find_groups(pool), args.folds, args.seed)

    def score(stage: str, trial: optuna.Trial) -> float:
        found = {name: search.RANGES[name].suggest(trial, name) for name in args.search}
        tried = replace(settings, **{name: check(name, value, "study") for name, value in found.items()})
        scores: list[float] = []
        for fold in range(args.folds):
            name, unseen = f"{stage} {trial.number} fold {fold + 1}", fold_of == fold
            try:
                _, logits = crossvalidation.train_fold(pool, ~unseen, unseen, tried, args.seed + fold, device, name)
            except training.Diverged:
                raise optuna.TrialPruned() from None
            scores.append(float(auc(pool.labels[unseen], logits)))
            trial.set_user_attr("scores", scores)
            trial.report(float(np.mean(scores)), fold)
            if fold + 1 < args.folds and trial.should_prune():
                raise optuna.TrialPruned()
        return float(np.mean(scores))

    return score


def fixed_settings(settings, source, args) -> dict:
    """What all workers on a study must have in common; a file of weights counts by its content, wherever it lies."""
    fixed = {key: value for key, value in settings.as_dict().items() if key not in (*args.search, "patience")}
    if fingerprint := weights.weights_md5(settings.weights):
        fixed["weights"] = f"MD5 {fingerprint}"
    ranges = {name: str(search.RANGES[name]) for name in args.search}
    return fixed | {"search": ranges, "folds": args.folds, "seed": args.seed, "data_md5": source.md5}


def take_part(url, source, settings, args) -> Outcome:
    """Both stages, shared with all other workers: TPE over the searched settings, hopeless ones pruned after whole
    folds; then the grid, from which is chosen, or without one from the best of the search. Raises: UserError."""
    score = make_score(data.concatenate(*data.load(source, "train", "val")), settings, args)
    fixed = fixed_settings(settings, source, args)
    study = search.open_study(url, args.study, fixed, args.heartbeat)
    with search.explained(url, "failed; the same command goes on from here"):
        search.optimise(study, args.trials, partial(score, "trial"), args.seed)
        trials = search.finished(study)[: args.trials]
        rows = [trial_row("search", trial.number, trial, settings, args) for trial in trials]
        found, grid = complete(rows), []
        near = found[: max(2, math.ceil(TOP_SHARE * len(found)))]  # two at least: they span the range
        ends = {name: span(near, name) for name in GRID if name in args.search and args.grid}
        if ends:
            second = search.open_study(url, f"{args.study} grid {args.grid} after {args.trials}", fixed, args.heartbeat)
            second.pruner = optuna.pruners.NopPruner()
            if "cells" not in second.user_attrs:
                second.set_user_attr("cells", grid_cells(found[0], ends, args))
            cells = second.user_attrs["cells"]  # as the first worker to come here laid them out
            scored = enumerate(search.score_all(second, cells, partial(score, "cell")))
            grid = [trial_row("grid", i, trial, settings, args) for i, trial in scored]
            near = complete(grid)
        importances = search.importances(study, args.search)
    scores = np.array([[row[f"fold_{i + 1}"] for i in range(args.folds)] for row in near])
    chosen, best, error = search.choose(near, scores)
    return Outcome(rows + grid, found, grid, ends, importances, near[chosen], near[best], error)


def trial_row(stage: str, number: int, trial, settings, args) -> dict:
    """A finished trial in trials.csv; lr and wd are there also when they are not searched."""
    scores = trial.user_attrs.get("scores", [])
    mean, std = mean_std(scores)
    row = {"stage": stage, "trial": number, "state": trial.state.name.lower()}
    row |= {name: trial.params.get(name, getattr(settings, name)) for name in dict.fromkeys(GRID + args.search)}
    row |= {"auc": mean, "standard_error": std / math.sqrt(max(len(scores), 1))}
    return row | {f"fold_{i + 1}": scores[i] if i < len(scores) else None for i in range(args.folds)}


def complete(rows) -> list[dict]:
    """Those of a stage's rows that are complete, best first. Raises: UserError."""
    found = sorted((row for row in rows if row["state"] == "complete"), key=lambda row: -row["auc"])
    if not found:
        raise UserError(f"no setting of the {rows[0]['stage']} was completed, all diverged; give more --trials")
    return found


def span(rows, name) -> tuple[float, float]:
    return min(row[name] for row in rows), max(row[name] for row in rows)


def grid_cells(best, ends, args) -> list[dict]:
    """args.grid values of lr and of wd, as far as these are searched, evenly spaced in the logarithm inside the range,
    and the best trial's values of everything else; a grid of one is the best trial."""
    cells = [{name: best[name] for name in args.search}]
    for name in ends if args.grid > 1 else []:
        low, high = ends[name]
        values = sorted({float(f"{x:.3g}") for x in np.geomspace(low, high, args.grid)})
        cells = [cell | {name: value} for cell in cells for value in values]
    return cells


def short(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def mean_text(row) -> str:
    return f"{row['auc']:.4f} ± {row['standard_error']:.4f}"


def setting_text(row, args) -> str:
    """A line such as: lr 0.0003, wd 0.01, AUC 0.9012 ± 0.0103."""
    return ", ".join([*(f"{name} {short(row[name])}" for name in args.search), f"AUC {mean_text(row)}"])


def search_table(outcome: Outcome, args) -> str:
    """The best trials of the search, and the range that the grid covers."""
    lines = [tables.line("mean AUC ± standard error", ["AUC", *args.search], 18)]
    for row in outcome.found[:SHOWN]:
        cells = [mean_text(row), *(short(row[name]) for name in args.search)]
        lines.append(tables.line(f"trial {row['trial']}", cells, 18))
    if outcome.ends:
        ends = [f"{name} {short(low)} to {short(high)}" for name, (low, high) in outcome.ends.items()]
        lines.append("range: " + ", ".join(ends))
    return "\n".join(lines)


def grid_table(grid) -> str:
    """Mean AUC ± standard error, learning rates down, weight decays across."""
    cells = {(row["lr"], row["wd"]): mean_text(row) for row in grid}
    lrs, wds = (sorted(set(values)) for values in zip(*cells))
    lines = [tables.line("lr \\ wd", map(short, wds), 18)]
    return "\n".join(lines + [tables.line(short(lr), (cells[lr, wd] for wd in wds), 18) for lr in lrs])


def outcome_text(outcome: Outcome, source, args) -> str:
    """The tables of both stages, and the choice."""
    error = "n/a, of a single setting" if math.isnan(outcome.error) else f"{outcome.error:.4f}"
    choice = f"""\
best by mean: {setting_text(outcome.best, args)}
standard error of a difference between settings, paired by fold: {error}
chosen, the simplest within one of the best: {setting_text(outcome.chosen, args)}"""
    parts = [f"{source.label}, mean AUC over {args.folds} twin-aware folds of train+val", search_table(outcome, args)]
    parts += [grid_table(outcome.grid)] if outcome.grid else []
    return "\n\n".join([*parts, choice])


def draw(outcome: Outcome, source, out) -> None:
    """study.png: the score of every trial of the search; importance.png; grid.png: the grid as a heat map."""
    title = f"{source.label}, mean AUC over folds"
    found = {row["trial"]: row["auc"] for row in outcome.found}
    history = [found.get(i) for i in range(1 + max(row["trial"] for row in outcome.rows if row["stage"] == "search"))]
    figures.save(figures.search_history(history, title, "AUC"), out / "study.png")
    if outcome.importances:
        shares = figures.importances(outcome.importances, f"{source.label}, settings searched")
        figures.save(shares, out / "importance.png")
    if outcome.grid:
        cells = {(row["lr"], row["wd"]): (row["auc"], row["standard_error"]) for row in outcome.grid}
        chosen, best = ((row["lr"], row["wd"]) for row in (outcome.chosen, outcome.best))
        figures.save(figures.heat_map(cells, chosen, best, title), out / "grid.png")


def save(outcome: Outcome, settings, source, args, out) -> None:
    """Write best.json, whose keys with an underscore are for people, trials.csv and the figures."""
    made_with = provenance(source, args.threads)
    if args.storage:  # perhaps with a password
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
    files.write_csv(out / "trials.csv", outcome.rows, source.notice)
    draw(outcome, source, out)
    files.write_json(out / "best.json", settings.as_dict() | tuned, source.notice)


def main():
    args = parse_args()
    settings = Settings.from_args(args)
    source = data.find(args.data, args.data_root, args.size, args.seed)
    data.load(source, "train", "val")  # bad images are named once, before any worker is there
    weights.initial_model(source.size, settings)  # its errors come before anything is written
    threads = max(args.threads // args.jobs, 1)
    set_seed(args.seed, threads)
    with outputs.output(args.out, FILES, [args.data, args.params, settings.weights]) as out:
        task = args.storage or f"sqlite:///{quote(str(out))}/study.db", source, settings, args
        if args.jobs > 1:
            parallel.run_copies(take_part, task, args.jobs, partial(set_seed, args.seed, threads))
        outcome = take_part(*task)  # beside workers elsewhere, or what a killed one left
        save(outcome, settings, source, args, out)
    print(outcome_text(outcome, source, args))
    print(f"next: python train.py --params {out}/best.json")


if __name__ == "__main__":
    flags.run(main)
