"""Fit an .onnx file to a hospital, by some of its images with known outcome: the same network with a calibration, a
threshold and, from 100 images on, a typicality of that hospital.

Says first what the file will be worth there. With --prevalence instead of --data, only the local share of malignant
images is used. Needs onnx and onnxruntime, no torch. Research only, not a medical device.
"""

from dataclasses import replace
from pathlib import Path

import onnx

from common import data, fingerprints, recalibration
from common.calibration import Calibration, calibrated, logit, reliability_rows
from common.data import Images
from common.deploy import onnxfile, recalibrate, sidecar
from common.deploy.onnxfile import OnnxModel
from common.errors import UserError
from common.files import replacing, write_json
from common.kinds import FILE, INNER_SHARE, not_empty, one_of
from common.recalibration import Fitted, Unit
from common.run import flags, outputs
from common.show import figures, tables
from common.thresholds import Rule

TYPICAL = 100  # images, from which on typicality is fitted: with fewer, none could be marked as unlike


def parse_args():
    parser = flags.Parser(__doc__)
    parser.add_argument("model", metavar="MODEL.onnx", type=not_empty, help="a file that export.py wrote")
    rules = parser.add_argument_group("threshold: one of")
    flags.add(rules, "--sensitivity", INNER_SHARE, "largest threshold with this sensitivity", shown="0.95")
    flags.add(rules, "--specificity", INNER_SHARE, "smallest threshold with this specificity", shown="none")
    flags.add(rules, "--flag-rate", INNER_SHARE, "smallest threshold that flags at most this share", shown="none")
    unit = "choose the threshold on images, or on patients by the highest probability of their images"
    flags.add(parser, "--unit", one_of("image", "patient"), unit, "image")
    share = "instead of --data: the share of malignant images at the hospital"
    flags.add(parser, "--prevalence", INNER_SHARE, share, shown="none")
    flags.add(parser, "--out", FILE, "the file to write", shown="NAME.local.onnx beside MODEL.onnx")
    flags.add_data_flags(parser, of_run=True)
    flags.add_machine_flags(parser, device=False)
    args = parser.parse_args()
    given = [(kind, value) for kind in ("sensitivity", "specificity", "flag_rate") if (value := getattr(args, kind))]
    if len(given) > 1:
        parser.error("give one of --sensitivity, --specificity and --flag-rate")
    if bool(args.data) == bool(args.prevalence):
        parser.error("give --data some images with known outcome, or --prevalence")
    kind, value = given[0] if given else ("sensitivity", 0.95)
    args.rule = Rule(kind.replace("_", "-"), value)
    args.out = Path(args.out or Path(args.model).with_suffix(".local.onnx"))
    if args.out.suffix != ".onnx":
        parser.error(f"argument --out: {args.out} does not end in .onnx")
    if args.out.resolve() == Path(args.model).resolve():
        parser.error(f"argument --out: {args.out} is the file to calibrate; name another one")
    return args


def read_images(model: OnnxModel, args) -> tuple[Images, str]:
    """The images to calibrate on, and a sentence on those that the model has seen, which are left out."""
    size = args.size or model.data["size"]
    found = data.find(args.data, args.data_root, size, args.seed or 0, args.positive, undivided="all", view="square")
    images = data.load(found, *found.splits, optional=found.splits)
    if not len(model.trained_on):
        return images, "The file keeps no fingerprints: make sure that it was not trained on these images."
    seen = fingerprints.distance(images.squares, model.trained_on) <= fingerprints.NEAR
    if seen.all():
        raise UserError(f"--data: the model was trained on these {len(images)} images; give others")
    left_out = f"{seen.sum()} of {len(images)} images are left out: the model was trained on these or near-duplicates."
    return images[~seen], left_out if seen.any() else "The model has seen none of these images."


def calibration_of(images: Images, unit: Unit, fitted: Fitted, total: tuple[float, float], args) -> Calibration:
    """What the new file keeps of its calibration. total: the temperature and offset of the network's own logits."""
    hospitals = list(dict.fromkeys(images.hospitals))
    about = {"n": len(unit.labels), "malignant": int(unit.labels.sum())}
    chosen_on = {"on": "calibration", "hospitals": hospitals, "hospital_left_out": False, "unit": args.unit} | about
    said = f"{about['n']} {args.unit}s of {' + '.join(hospitals)}"
    rates = {name: value for name, value in fitted.after.items() if name.startswith(("recall", "specificity"))}
    achieved = {"hospital": " + ".join(hospitals), "held_out": True, "how": recalibration.HOW} | about | rates
    return Calibration(*total, fitted.threshold, args.rule.describe(said), chosen_on, [achieved])


def fit_to_images(model: OnnxModel, file: onnx.ModelProto, args, out: Path) -> list[str]:
    """Calibrate the file on images, and say what it will be worth: the lines to print."""
    images, seen = read_images(model, args)
    logits = model.run_images(["logit"], images)[0].astype(float)
    by_image, unit = (recalibration.units(images, logits, unit) for unit in ("image", args.unit))
    recalibration.require_enough(unit, args.unit)
    fitted = recalibration.fit(unit, by_image, model.calibration.threshold, args.rule)
    total = recalibrate.shift(file, fitted.temperature, fitted.offset)
    chosen = calibration_of(images, unit, fitted, total, args)
    recalibrate.describe(file, chosen, images)
    lines = [tables.recalibration_text(fitted, model.calibration, chosen), seen]
    lines.append(recalibration.halving(unit, args.unit, fitted))
    if len(images) >= TYPICAL:
        recalibrate.refit_typicality(file, recalibrate.distances(file, images, args.threads))
    else:
        lines.append(f"Typicality stays that of the training images: to fit it takes {TYPICAL} images.")
    title = f"{model.path.name} on {' + '.join(chosen.chosen_on['hospitals'])}, {len(images)} images"
    curves = {name: reliability_rows(images.labels, p) for name, p in fitted.probabilities.items()}
    stored = {"file": out.name, "calibration": vars(chosen), "before": fitted.before, "after": fitted.after}
    write_json(out.with_suffix(".calibration.json"), stored | {"curves": curves})
    figures.save(figures.calibration_change(curves, title), out.with_suffix(".calibration.png"))
    return lines


def fit_to_prevalence(model: OnnxModel, file: onnx.ModelProto, args) -> list[str]:
    """Correct the offset alone: the lines to print. Raises: UserError where the file's own share is unknown."""
    own = model.calibration
    if not own.chosen_on.get("n"):
        raise UserError(f"{model.path}: does not say its share of malignant images; export the run again")
    trained_share = own.chosen_on["malignant"] / own.chosen_on["n"]
    offset = recalibration.prevalence_offset(args.prevalence, trained_share)
    total = recalibrate.shift(file, 1.0, offset)
    threshold = float(calibrated(logit(own.threshold), 1.0, offset))  # flags the same images
    rule = f"{own.threshold_rule}; moved for a share of {args.prevalence:g} malignant images"
    chosen = replace(own, temperature=total[0], offset=total[1], threshold=threshold, threshold_rule=rule)
    recalibrate.describe(file, chosen, None)
    return [
        f"offset {offset:+.3f}: from a share of {trained_share:.3f} malignant images to {args.prevalence:.3f}",
        f"threshold {own.threshold:.4f} becomes {threshold:.4f}, which flags the same images",
        "This assumes that malignant images, and the others, look as those of training do; only their shares differ. "
        "To see whether that holds, calibrate with --data.",
    ]


def main():
    args = parse_args()
    model = onnxfile.load(args.model, args.threads)
    file, out = onnx.load(args.model), args.out
    kinds = [".json"] + [".calibration.json", ".calibration.png"] * bool(args.data)
    names = [out.name, *(out.with_suffix(kind).name for kind in kinds)]
    with outputs.output(out.parent, names, data.paths(args.data or [])):
        lines = fit_to_images(model, file, args, out) if args.data else fit_to_prevalence(model, file, args)
        with replacing(out) as beside, replacing(sidecar.path_of(out)) as described:
            recalibrate.save(file, beside)
            sidecar.write(beside, described, out.name, args.threads)
    print(*lines, f"written: {out}", sep="\n")


if __name__ == "__main__":
    flags.run(main)
