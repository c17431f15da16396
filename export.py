"""Export a run as one .onnx file that takes a raw image and gives a calibrated probability.

export.py writes the file only if all checks pass. onnxruntime must agree with PyTorch on all images. The preparation
inside the file must agree with Pillow, and the int8 file with the fp32 file.
"""

import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import onnx

from common import data, files
from common.deploy import graph, int8, latency, metadata, modelfile, onnxfile, parity, plain, sidecar, typicality
from common.kinds import not_empty
from common.run import flags, folders, outputs
from common.run.provenance import provenance
from common.seed import set_seed
from common.show import tables


def parse_args():
    parser = flags.Parser(__doc__)
    parser.add_argument("run", metavar="RUN", type=not_empty, help="a run folder of train.py or crossval.py")
    parser.add_argument("--out", metavar="FILE.onnx", help="the file to write (default: model.onnx in RUN)")
    smaller = "smaller and faster. Nothing is written if int8 differs too much from fp32"
    flags.add_switch(parser, "--int8", f"also write FILE.int8.onnx: {smaller}")
    half = "store the weights as fp16: half the size. A probability changes by less than 0.01"
    flags.add_switch(parser, "--fp16", half)
    network_only = "the networks without preparation, for OpenCV, ncnn, TFLite and CoreML. Both files must agree"
    flags.add_switch(parser, "--plain", f"also write FILE.plain.onnx: {network_only}")
    flags.add_switch(parser, "--benchmark", "also measure latency, load time and memory")
    flags.add_data_flags(parser, of_run=True)
    flags.add_machine_flags(parser, device=False)
    args = parser.parse_args()
    if args.out is not None and not args.out.endswith(".onnx"):
        parser.error(f"argument --out: {args.out!r} does not end in .onnx")
    return args


def write_and_load(model: onnx.ModelProto, about: dict, path: Path, threads: int) -> onnxfile.OnnxModel:
    """Write an assembled model, and open the file. Raises: UserError."""
    graph.write(model, about, path)
    return onnxfile.load(path, threads)


def write_int8(networks: dict, fp32: onnxfile.OnnxModel, reference, known, about, path, threads) -> dict:
    """Write the int8 file and check the file. Return the checks for parity.json. Raises: UserError.

    Training images choose the ranges of the activations, and a line from int8 logits to fp32 logits. The images
    `known` fit the typicality. In the view lesion, the network of the frame stays fp32, so that the file finds the
    same windows.
    """
    size, view, train = fp32.data["size"], fp32.view, reference["train"]
    look = "window" if view == "lesion" else "frame"
    pictures = train.look.images.windows if look == "window" else train.look.images.pixels
    quantized = networks | {look: int8.quantize(networks[look], pictures)}
    fitted = typicality.fit_network(quantized["frame"], known, threads)
    rough = write_and_load(graph.assemble(quantized, size, view, fitted), about, path, threads)
    line = int8.straight_line(parity.answer(rough, ["logit"], train)[0], parity.answer(fp32, ["logit"], train)[0])
    model = graph.assemble(quantized, size, view, fitted, *line)
    checked = int8.check(write_and_load(model, about, path, threads), reference, line)
    how = {"quantization": json.dumps(files.as_json(checked)), "metrics_of": "the fp32 file"}
    graph.write(model, about | how, path)
    return checked


def write_fp32(networks: dict, run, known, about, path, threads) -> tuple[onnxfile.OnnxModel, typicality.Typicality]:
    """Write the fp32 file. Return the open file and the typicality, fitted to the images `known`. Raises: UserError.

    A note on stderr says if the images are too few to mark an image.
    """
    fitted = typicality.fit_network(networks["frame"], known, threads)
    if fitted.marks_nothing:
        few = f"{len(fitted.held_out)} training images are too few to mark an image as unlike them"
        print(f"note: typicality: {few}; {typicality.LEAST_IMAGES} are needed", file=sys.stderr)
    line = 1 / run.calibration.temperature, run.calibration.offset
    model = graph.assemble(networks, run.data["size"], run.data["view"], fitted, *line)
    return write_and_load(model, about, path, threads), fitted


def report(label: str, stored: dict) -> str:
    """Return the tables of parity.json as text, each under a title."""
    titled = {f"{label}, PyTorch against onnxruntime": stored["rows"]}
    if "rounding" in stored:
        titled["weights in fp16 against weights in fp32, both in PyTorch"] = stored["rounding"]
    if stored["finders"]:
        titled["share of windows that the file and the run place differently"] = stored["finders"]
    titled["preparation of phantoms of other sizes, the file against Pillow"] = stored["sizes"]
    if "int8" in stored:
        bounds = f"at least {int8.LEAST_AGREEMENT:.0%} of labels agree, AUC loss at most {int8.MOST_AUC_LOSS}"
        titled[f"int8 against fp32; required on {int8.DECIDING}: {bounds}"] = stored["int8"]["rows"]
    if "plain" in stored:
        titled["network-only file against the complete file"] = stored["plain"]["rows"]
    if "benchmark" in stored:
        titled["latency"] = stored["benchmark"]["latency"]
        process = stored["benchmark"]["process"].items()
        titled["load time and memory of a process that only predicts"] = [
            {"model": model} | needs for model, needs in process
        ]
    return "\n\n".join(f"{title}\n{tables.columns(rows)}" for title, rows in titled.items())


def main():
    args = parse_args()
    set_seed(0, args.threads)
    run = folders.load(args.run)
    found = data.find_again(run.data, run.table, args)
    splits = {name: images for name in data.SPLITS if len(images := data.load(found, name, optional=["val", "test"]))}
    about = metadata.describe(run, folders.read_metrics(run.path))
    outputs.refuse_description(sidecar.path_of(out := Path(args.out or run.path / "model.onnx")))
    paths = {"fp32": out, "int8": out.with_suffix(".int8.onnx"), "plain": out.with_suffix(".plain.onnx")}
    wanted = ["fp32", *["int8"] * args.int8, *["plain"] * args.plain]
    parity_path = out.with_suffix(".parity.json")
    written = [path for name in wanted for path in (paths[name], sidecar.path_of(paths[name]))]
    names = [parity_path.name, *(path.name for path in written)]

    with ExitStack() as whole:  # all files are renamed together, after the last check
        whole.enter_context(outputs.output(out.parent, names, found.paths))
        beside = {name: whole.enter_context(files.replacing(paths[name])) for name in wanted}
        described = {name: whole.enter_context(files.replacing(sidecar.path_of(paths[name]))) for name in wanted}
        parity_file = whole.enter_context(files.replacing(parity_path))
        shipped = replace(run, predictor=graph.as_shipped(run.predictor, args.fp16))
        networks = graph.export_networks(shipped.predictor, run.data["size"])
        reference = parity.expect(shipped, splits)
        known = data.concatenate(*(reference[name].look.images for name in splits if name != "test"))  # for typicality
        fp32, fitted = write_fp32(networks, run, known, about, beside["fp32"], args.threads)
        stored = {"model": out.name, "file": modelfile.check(fp32.path)} | parity.check(fp32, reference, fitted)
        if args.fp16:
            stored["rounding"] = parity.compare_rounding(run, reference)
        if args.int8:
            checked = write_int8(networks, fp32, reference, known, about, beside["int8"], args.threads)
            stored["int8"] = {"model": paths["int8"].name, "file": modelfile.check(beside["int8"])} | checked
        if args.plain:
            plain.write(shipped, about, beside["plain"])
            rows = plain.check(beside["plain"], fp32, reference["train"], args.threads)
            stored["plain"] = {"model": paths["plain"].name, "file": modelfile.check(beside["plain"]), "rows": rows}
        if args.benchmark:
            stored["benchmark"] = latency.measure({n: beside[n] for n in wanted if n != "plain"}, run, splits["train"])
        for name in wanted:
            answers = plain.answer_tests if name == "plain" else sidecar.answer_tests
            sidecar.write(beside[name], described[name], paths[name].name, args.threads, answers)
        stored["provenance"] = provenance(found, args.threads)
        files.write_json(parity_file, stored, found.notice)
    for name in [name for name in paths if name not in wanted and paths[name].exists()]:
        print(f"warning: {paths[name]} is from an earlier export. --{name} replaces the file", file=sys.stderr)
    sizes = [f"{paths[name]}: {paths[name].stat().st_size / 1e6:.1f} MB" for name in wanted]
    print(report(found.label, stored), *sizes, sep="\n")


if __name__ == "__main__":
    flags.run(main)
