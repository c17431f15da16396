"""Lines of the table that predict.py prints. Needs numpy and Pillow."""

from pathlib import Path

from common import evidence
from common.show import tables


def printable(path) -> str:
    """Return a path as text, with escapes for characters that would command a terminal or break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))


def heading(model, threshold: float, rule: str, folder: Path | None) -> str:
    """Return the lines above the table: the model, its operating point, the scale of overlays, and the columns.

    Args: model: an .onnx file; threshold: on P(malignant); rule: its meaning; folder: of the overlays, or None.
    """
    lines = [f"{model.path.name}, trained on {model.dataset}: {model.intended_use}"]
    lines.append(f"threshold {threshold:.4f}: {rule}")
    if threshold == model.calibration.threshold and (expected := tables.expected(model.calibration)):
        lines.append(expected)
    lines.append(f"typicality threshold {model.typicality_threshold:g}: {model.typicality_rule}")
    if folder:
        full = f"the strongest colour means {evidence.FULL:g} log-odds or more"
        lines.append(f"{printable(folder)}: vermillion is evidence for malignant, blue is evidence against; {full}")
    sure = f"{'found':>6}  {'window':<19}  " * (model.view == "lesion")
    if sure:
        lines.append("found: how sure the model is of a lesion. window: x,y,width,height of where it looks, in pixels")
    return "\n".join([*lines, f"{'P(malignant)':>12}  {'typicality':>10}  {'':<26}  {sure}{'page':>4}  image"])


def row(answer: dict) -> str:
    """Return the line of an image in the table under `heading`. answer: the answer of predict.py for an image."""
    typicality = tables.number(answer["typicality"])
    name = printable(answer["image"]) + "  (trained on this image)" * answer["seen_in_training"]
    sure = ""
    if "window" in answer:
        sure = f"{answer['found']:>6.2f}  {','.join(f'{side:.0f}' for side in answer['window']):<19}  "
    return f"{answer['probability']:>12.4f}  {typicality:>10}  {answer['call']:<26}  {sure}{answer['page']:>4}  {name}"


def patient_row(answer: dict, several: bool) -> str:
    """Return the line of a patient in the table of patients.

    Args: answer: from `patients.highest`; several: whether there are several hospitals.
    """
    name = answer["patient"] + f", {answer['hospital']}" * several
    return f"{answer['probability']:>12.4f}  {answer['call']:<26}  {answer['images']:>6}  {printable(name)}"
