"""Copy the page, the runtime and a model into one folder that any static host can serve.

python -m web.make_site FOLDER
"""

import re
import shutil
import sys
from itertools import chain
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
RUNTIME = "web/node_modules/onnxruntime-web/dist"
PAGE = ["web/*.html", "web/*.css", "web/*.js", "web/*.svg", "web/phantoms/*.png", "web/examples/*"]
PAGE += ["web/node_modules/dicom-parser/dist/dicomParser.min.js"]
PAGE += [f"{RUNTIME}/ort.wasm.bundle.min.mjs", f"{RUNTIME}/ort-wasm-simd-threaded.wasm"]


def default_model() -> str:
    """Return the file name of the model that the page loads."""
    (name,) = re.findall(r'DEFAULT_MODEL = "(.+)"', (REPO / "web" / "app.js").read_text(encoding="utf-8"))
    return name


def make_site(folder: Path) -> None:
    """Write the page to folder/web. Write the model and the JSON with the checksum of the model to folder/models."""
    model = Path("models", default_model())
    found = {pattern: list(REPO.glob(pattern)) for pattern in map(str, (*PAGE, model, model.with_suffix(".json")))}
    if missing := [pattern for pattern, matches in found.items() if not matches]:
        sys.exit(f"{missing[0]} is missing." + " Run: npm --prefix web ci" * ("node_modules" in missing[0]))
    for file in chain.from_iterable(found.values()):
        target = folder / file.relative_to(REPO)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    make_site(Path(sys.argv[1]))
