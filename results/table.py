"""Make the tables and the figure of README.md and docs/results.md from the committed files in results/.

    python -m results.table      prints the tables, in Markdown, and writes results/results.png and its data, figure.csv

Each row of ours.csv names a file, a part of the file, and what the images of this part chose. A part is a split, with
intervals, or a list of scores, with mean ± standard deviation. published.csv has results of others on test, with a
standard deviation over seeds where published.
"""

import json
import textwrap

import numpy as np
from matplotlib.figure import Figure

from common import files, imagefile
from common.deploy import onnxfile
from common.evidence import overlay
from common.show import figures, tables
from common.show.figures import CHOSEN, FAINT, INK, MODEL, MUTED, canvas
from results import log, measure

METRICS = ("accuracy", "auc")
PLACES = {"busi": "BUSI, Egypt", "breast": "BrEaST, Poland", "busbra": "BUS-BRA, Brazil"}
LOOKS = {  # {what a model looks at: (file with scores at unseen hospitals, boxes)}
    "middle square": ("crossval_square.json", ""),
    "lesion, found": ("crossval_hospitals.json", "found"),
    "lesion, box given": ("crossval_hospitals.json", "given"),
}
FRAME = log.FOLDER / "frame.png"  # a test image of BUSI, which the model has not seen
TITLE = "At unseen hospitals, a given box raises the AUC; a found box does as well as the middle square"
HOME = "BreastMNIST's test, home"
CREDIT = "BUSI, Al-Dhabyani et al. 2020, CC BY 4.0"


def read(file: str) -> dict:
    """Return a metrics.json. For a log of seeds, return the same entries, with a list of scores for each split."""
    if file.endswith(".json"):
        return json.loads((log.FOLDER / file).read_text(encoding="utf-8"))
    (command, rows), *_ = measure.configurations(file.removesuffix(".csv")).items()
    splits: dict[str, list] = {}
    for split in ("val", "test", "clean_test"):
        splits[split] = [{metric: float(row[f"{split}_{metric}"]) for metric in METRICS} for row in rows]
    return {"provenance": rows[0] | {"command": command, "data": {"size": 28}}, "splits": splits}


def mean_and_std(row: dict, metric: str) -> tuple[float, float]:
    """Return mean and standard deviation of a row of published.csv; the deviation is nan if not published."""
    return float(row[metric]), float(row[f"{metric}_std"] or "nan")


def score(scores: dict | list[dict], metric: str) -> str:
    """Return a metric as text: with its interval for one run, with its standard deviation for a list of runs."""
    return log.spread([one[metric] for one in scores]) if isinstance(scores, list) else log.cell(scores, metric)


def table() -> str:
    """Return our results and then published results, in Markdown.

    Our rows have command, precision and the start of the weights' MD5, unless the row above is of the same file.
    """
    rows, file = [], ""
    for row in log.read("ours.csv"):
        run = read(row["file"])
        made = run["provenance"]
        weights = f"weights {made['weights_md5'][:8]}" if made["weights_md5"] else "random weights"
        source = f"`{made['command']}`, {made['precision']}, {weights}" if row["file"] != file else ""
        scores, file = run["splits"].get(row["part"]) or run[row["part"]], row["file"]  # a split, folds or repeats
        about = [row["what"], str(made["data"]["size"]), row["chose"], source]
        rows.append([*about, *(score(scores, metric) for metric in METRICS)])
    for row in log.read("published.csv"):
        cells = [tables.plus_minus(*mean_and_std(row, metric)) for metric in METRICS]
        rows.append([f"published: {row['what']}, test", row["input"], "", row["source"], *cells])
    columns = "model and images | input size | chosen on these images | command, precision and weights; or reference"
    return log.markdown(f"{columns} | accuracy | AUC", rows)


def at_hospitals(unit: str) -> dict:
    """Return {what the models look at: {hospital: scores at the operating point}}. unit: "image" or "patient".

    Models of the other hospitals predict each hospital.
    """
    found: dict = {}
    for look, (file, boxes) in LOOKS.items():
        about = {"on": "out_of_fold", "unit": unit, "subset": "all", "threshold_name": "operating point"}
        about |= {"boxes": boxes} if boxes else {}
        entries = [entry for entry in read(file)["results"] if about.items() <= entry.items()]
        found[look] = {entry["hospital"]: entry for entry in entries if entry["hospital"] in PLACES}
    return found


def held_out_table() -> str:
    """Return AUC and held-out rates in Markdown, per image, of each hospital by a model of the others.

    The threshold of the rates is chosen on the other hospitals. With given boxes, crossval.py chooses no threshold.
    """
    rates = {look: read(file)["calibration"]["achieved"] for look, (file, boxes) in LOOKS.items() if boxes != "given"}
    rows = []
    for hospital, place in PLACES.items():
        for look, scores in at_hospitals("image").items():
            entry = scores[hospital]
            held_out = next((found for found in rates.get(look, []) if found["hospital"] == hospital), None)
            cells = [log.cell(held_out, metric) if held_out else "" for metric in ("recall", "specificity")]
            rows.append([place, str(entry["n"]), look, log.cell(entry, "auc"), *cells, "design"])
    header = "hospital | images | the model sees | AUC | sensitivity | specificity | chosen on these images"
    return log.markdown(header, rows)


def hospital_table() -> str:
    """Return AUC and rates at the file's threshold in Markdown, of each hospital by a model of the others.

    Rows are per image and per patient.
    """
    by_unit, rows = {unit: at_hospitals(unit) for unit in ("image", "patient")}, []
    for hospital, place in PLACES.items():
        for unit, looks in by_unit.items():
            for look, scores in looks.items():
                if entry := scores.get(hospital):
                    cells = (log.cell(entry, metric) for metric in ("auc", "recall", "specificity"))
                    rows.append([place, f"{entry['n']} {unit}s", look, *cells, ", ".join(["design", *entry["chose"]])])
    header = "hospital | n | the model sees | AUC | sensitivity | specificity | chosen on these images"
    return log.markdown(header, rows)


def shown_scores() -> dict:
    """Return the AUCs of the figure at home and at hospitals, {look: {place: (value, low, high)}}."""
    found: dict = {look: {} for look in LOOKS}
    test = read("crossval_hospitals.json")["splits"]["test"]
    found["lesion, found"][HOME] = log.limits(test, "auc")
    for look, scores in at_hospitals("image").items():
        found[look] |= {PLACES[hospital]: log.limits(entry, "auc") for hospital, entry in scores.items()}
    return found


def _intervals(axes, series: dict[str, dict], places: list, styles) -> None:
    """Draw values with intervals, names side by side at each place. series: {name: {place: (value, low, high)}}."""
    for i, ((colour, marker), (name, points)) in enumerate(zip(styles, series.items())):
        values, low, high = np.array(list(points.values())).T
        x = [places.index(place) + 0.13 * (i - 1) for place in points]
        errors = [values - low, high - values]
        axes.errorbar(x, values, errors, fmt=marker, color=colour, markersize=8, capsize=4, label=name)
    axes.set_xticks(range(len(places)), places)
    axes.grid(axis="y", color=FAINT)


def figure_of(picture, caption: str, aucs: dict, published: dict, title: str) -> Figure:
    """Draw a picture, and next to it AUCs with intervals at several places.

    Args: picture: uint8 [h, w, 3]; aucs: {name: {place: (value, low, high)}}; published: {place: (value, name)}.
    """
    figure, (left, right) = canvas(title, 12, 5.4, 1, 2, width_ratios=[4, 7])
    left.imshow(picture)
    left.set_axis_off()
    left.set_title(textwrap.fill(caption, 44), size=10, loc="left", y=0, va="top", pad=-8)
    places = list(dict.fromkeys(place for points in aucs.values() for place in points))
    places.sort(key=list(published).__contains__, reverse=True)  # places with a published value come first
    _intervals(right, aucs, places, [style[:2] for style in ((MUTED, "s"), (MODEL, "o"), (CHOSEN, "D"))])
    note = "Right of the line: each hospital is predicted by a model of the others. Bars: 95 % intervals"
    right.set_title(note, size=10, loc="left")
    right.axvline(len(published) - 0.5, color=MUTED, linewidth=0.8)
    for place, (value, name) in published.items():
        right.plot(places.index(place) + 0.3, value, "*", color=INK, markersize=12, label=name)
    right.set_xticks(range(len(places)), [place.replace(", ", ",\n") for place in places])
    right.set(ylabel="AUC", xlim=(-0.5, len(places) - 0.5), ylim=(right.get_ylim()[0] - 0.06, 1))  # room for the legend
    right.legend(loc="lower left", ncols=2, frameon=True, edgecolor="none")
    return figure


def draw() -> Figure:
    """Draw a frame with the evidence of the shipped file, and the AUCs of `shown_scores`."""
    model = onnxfile.load(log.MODELS / "breast_ultrasound.onnx", 1)
    (frame,) = imagefile.frames(FRAME)
    (p,), (evidence,), (window,) = model.run(["probability", "evidence", "window"], frame[np.newaxis])
    call = "flagged" if p >= model.calibration.threshold else "not flagged"
    caption = f"White: the window that the model found. P(malignant) = {p:.2f}: {call}. {CREDIT}"
    best = max(log.read("published.csv"), key=lambda row: float(row["auc"]))
    published = {HOME: (float(best["auc"]), f"best published ({best['input']} px)")}
    picture = np.asarray(overlay(frame, evidence, window))
    return figure_of(picture, caption, shown_scores(), published, TITLE)


def main():
    print(table(), held_out_table(), hospital_table(), sep="\n\n")
    figures.save(draw(), log.FOLDER / "results.png")
    rows = [(look, place, *values) for look, points in shown_scores().items() for place, values in points.items()]
    names = ("the model looks at", "place", "auc", "auc_low", "auc_high")
    files.write_csv(log.FOLDER / "figure.csv", [dict(zip(names, row)) for row in rows])


if __name__ == "__main__":
    main()
