"""Fit an .onnx file to a hospital, with images of known outcome from the hospital.

The new file has the same network, and a calibration and a threshold for the hospital. From 100 images on, the file also
has a typicality for the hospital. calibrate.py prints the performance to expect on new images of the hospital. With
--prevalence instead of --data, calibrate.py uses only the share of malignant images at the hospital. calibrate.py needs
onnx and onnxruntime, but no torch. Research only, not a medical device.
"""

from pathlib import Path

import numpy as np
import onnx

from common import data, fingerprints, recalibration
from common.calibration import CHOSEN, Calibration, calibrated, logit, reliability_rows
from common.data import Found, Images
from common.deploy import onnxfile, recalibrate, sidecar
from common.deploy.onnxfile import OnnxModel
from common.deploy.typicality import LEAST_IMAGES, compared
from common.errors import UserError
from common.files import replacing, write_json
from common.kinds import FILE, INNER_SHARE, not_empty, one_of
from common.recalibration import Fitted, Unit
from common.run import flags, outputs
from common.show import figures, tables
from common.thresholds import Rule

MEASURED = (".calibration.json", ".calibration.png")  # files of a calibration on images


def parse_args():
    parser = flags.Parser(__doc__)
    parser.add_argument("model", metavar="MODEL.onnx", type=not_empty, help="an .onnx file of export.py")
    rules = parser.add_argument_group("threshold (give at most one flag)")
    flags.add(rules, "--sensitivity", INNER_SHARE, "largest threshold with at least this sensitivity", shown="0.95")
    flags.add(rules, "--specificity", INNER_SHARE, "smallest threshold with at least this specificity", shown="none")
    flags.add(
        rules, "--flag-rate", INNER_SHARE, "smallest threshold that flags at most this share of images", shown="none"
    )
    unit = "choose the threshold on images, or on patients; the highest probability of their images counts"
    flags.add(parser, "--unit", one_of("image", "patient"), unit, "image")
    share = "share of malignant images at the hospital; give this flag instead of --data"
    flags.add(parser, "--prevalence", INNER_SHARE, share, shown="none")
    flags.add(parser, "--out", FILE, "the file to write", shown="NAME.local.onnx in the folder of MODEL.onnx")
    flags.add_data_flags(parser, of_run=True, default="none; give --data or --prevalence")
    flags.add_machine_flags(parser, device=False)
    args = parser.parse_args()
    given = [(kind, value) for kind in ("sensitivity", "specificity", "flag_rate") if (value := getattr(args, kind))]
    if len(given) > 1:
        parser.error("give only one of --sensitivity, --specificity and --flag-rate")
    if bool(args.data) == bool(args.prevalence):
        parser.error("give --data with images of known outcome, or --prevalence, but not both")
    if args.prevalence and (given or args.unit != "image"):
        parser.error(
            "--prevalence moves the threshold of the file. --sensitivity, --specificity, --flag-rate and --unit "
            "need --data"
        )
    kind, value = given[0] if given else ("sensitivity", 0.95)
    args.rule = Rule(kind.replace("_", "-"), value)
    args.out = Path(args.out or Path(args.model).with_suffix(".local.onnx"))
    if args.out.suffix != ".onnx":
        parser.error(f"argument --out: {args.out} does not end in .onnx")
    if args.out.resolve() == Path(args.model).resolve():
        parser.error(f"argument --out: {args.out} is the file to calibrate. Choose another name")
    return args


def read_images(model: OnnxModel, found: Found) -> tuple[Images, str]:
    """Return the images to calibrate on, and a sentence on what the model has seen. Raises: UserError.

    Training images of the model, and near-duplicates of training images, are not returned.
    """
    data.require_apart(found)
    images = data.load(found, *found.splits, optional=found.splits)
    seen = fingerprints.distance(images.squares, model.trained_on) <= fingerprints.NEAR
    if seen.all():
        raise UserError(f"--data: the model was trained on all of these {len(images)} images. Give other images.")
    left_out = f"{seen.sum()} of {len(images)} images are not used: the model was trained on them or near-duplicates."
    return images[~seen], left_out if seen.any() else "The model has seen none of these images."


def calibration_of(
    images: Images, unit: Unit, fitted: Fitted, total: tuple[float, float], found_threshold: float, args
) -> Calibration:
    """Return the calibration of the new file. total: the temperature and offset for the logits of the network."""
    hospitals = list(dict.fromkeys(images.hospitals))
    about = {"n": len(unit.labels), "malignant": int(unit.labels.sum())}
    chosen_on = {"on": "calibration", "hospitals": hospitals, "hospital_left_out": False, "chose": list(CHOSEN)}
    chosen_on |= {"unit": args.unit, "prevalence": float(images.labels.mean())} | about
    said = f"{about['n']} {args.unit}s of {' + '.join(hospitals)}"
    rates = {name: value for name, value in fitted.after.items() if name.startswith(("recall", "specificity"))}
    achieved = {"hospital": " + ".join(hospitals), "held_out": True} | about | rates
    achieved["how"] = f"computed for new {args.unit}s of this kind"
    return Calibration(*total, fitted.threshold, args.rule.describe(said), chosen_on, [achieved], found_threshold)


def remarks(model: OnnxModel, images: Images, without_call: np.ndarray, found: Found, out: Path) -> list[str]:
    """Return sentences on what the new file assumes. without_call: bool [n], images that predict.py gives no call."""
    share, hospitals = images.labels.mean(), len(set(images.hospitals))
    said = [
        f"The probabilities are for a share of {share:.3f} malignant images, as here. If your share is another, run "
        f"calibrate.py {out} --prevalence SHARE."
    ]
    if without_call.any():
        counts = f"{without_call.sum()} of {len(images)} images ({images.labels[without_call].sum()} malignant)"
        said.append(f"predict.py gives no call for {counts}. The rates count them by their probability.")
    if model.view == "lesion" and images.boxed.any():
        said.append("The boxes are not used: the threshold is for lesions that the file finds.")
    if hospitals > 1:
        said.append(
            f"The {hospitals} hospitals share one threshold. To fit the file to one of them, give its images alone."
        )
    if {"test"} < set(found.splits):
        said.append("All splits are used, also test. Evaluate the new file on other images.")
    return said


def fit_to_images(model: OnnxModel, file: onnx.ModelProto, found: Found, args, out: Path) -> list[str]:
    """Calibrate the file on images. Return the lines to print, with the performance to expect. Raises: UserError.

    The folder of `out` also gets a .calibration.json and a .calibration.png.
    """
    images, seen = read_images(model, found)
    logits, typicality, sure = model.run_images(["logit", "typicality", "found"], images)
    logits = logits.astype(float)
    by_image, unit = (recalibration.units(images, logits, unit) for unit in ("image", args.unit))
    recalibration.require_enough(unit, args.unit, seen)
    fitted = recalibration.fit(unit, by_image, model.calibration.threshold, args.rule)
    total = recalibrate.shift(file, fitted.temperature, fitted.offset)
    chosen = calibration_of(images, unit, fitted, total, model.calibration.found_threshold, args)
    recalibrate.describe(file, chosen, images)
    label = found.notice or " + ".join(chosen.chosen_on["hospitals"])
    lines = [tables.recalibration_text(fitted, model.calibration, chosen, label), seen]
    lines.append(recalibration.halving(unit, args.unit, fitted))
    if len(images) >= LEAST_IMAGES:
        unusual = recalibrate.distances(file, images, args.threads)
        recalibrate.refit_typicality(file, unusual)
        typicality = compared(unusual, unusual)  # as the new file gives
    else:
        lines.append(
            f"Typicality still refers to the training images. To fit typicality, give {LEAST_IMAGES} images or more."
        )
    without_call = (sure < model.calibration.found_threshold) | (typicality < model.typicality_threshold)
    lines += remarks(model, images, without_call, found, out)
    title = f"{model.path.name} on {label}, {len(images)} images"
    curves = {name: reliability_rows(images.labels, p) for name, p in fitted.probabilities.items()}
    stored = {"file": out.name, "calibration": vars(chosen), "before": fitted.before, "after": fitted.after}
    write_json(out.with_suffix(".calibration.json"), stored | {"curves": curves}, found.notice)
    figures.save(figures.calibration_change(curves, title), out.with_suffix(".calibration.png"))
    return lines


def fit_to_prevalence(model: OnnxModel, file: onnx.ModelProto, args) -> list[str]:
    """Correct the offset for a share of malignant images. Return the lines to print.

    Raises: UserError when the file does not state the share of malignant images in training.
    """
    own = model.calibration
    if not own.chosen_on.get("n"):
        raise UserError(f"{model.path}: the file does not state its share of malignant images. Export the run again.")
    earlier_share = own.chosen_on.get("prevalence", own.chosen_on["malignant"] / own.chosen_on["n"])
    offset = recalibration.prevalence_offset(args.prevalence, earlier_share)
    total = recalibrate.shift(file, 1.0, offset)
    threshold = float(calibrated(logit(own.threshold), 1.0, offset))  # flags the same images
    rule = f"{own.threshold_rule}; moved for a share of {args.prevalence:g} malignant images"
    chosen_on = own.chosen_on | {"prevalence": args.prevalence}
    kept = [{key: rate for key, rate in one.items() if not key.startswith("precision")} for one in own.achieved]
    chosen = Calibration(*total, threshold, rule, chosen_on, kept, own.found_threshold)
    recalibrate.describe(file, chosen, None)
    return [
        f"offset {offset:+.3f}: the share of malignant images is {args.prevalence:.3f} instead of {earlier_share:.3f}",
        f"threshold {own.threshold:.4f} becomes {threshold:.4f}. The new threshold flags the same images",
        "The correction is right if only the share of malignant images differs. To check, calibrate with --data.",
    ]


def main():
    args = parse_args()
    model = onnxfile.load(args.model, args.threads)
    file, out = onnx.load(args.model), args.out
    outputs.refuse_description(sidecar.path_of(out))
    found = data.find_again(model.data | {"view": "square"}, None, args, undivided="all") if args.data else None
    names = [out.name, *(out.with_suffix(kind).name for kind in (".json", *MEASURED))]
    with outputs.output(out.parent, names, found.paths if found else []):
        lines = fit_to_images(model, file, found, args, out) if found else fit_to_prevalence(model, file, args)
        for kind in MEASURED * (not args.data):  # an earlier calibration on images is not of this file
            out.with_suffix(kind).unlink(missing_ok=True)
        with replacing(out) as beside, replacing(sidecar.path_of(out)) as described:
            recalibrate.save(file, beside)
            sidecar.write(beside, described, out.name, args.threads)
    print(*lines, f"written: {out}", sep="\n")


if __name__ == "__main__":
    flags.run(main)
