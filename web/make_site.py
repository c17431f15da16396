"""Copy the page, the runtime and a model into one folder that any static host can serve.

python -m web.make_site FOLDER
"""

import re
import shutil
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
RUNTIME = "web/node_modules/onnxruntime-web/dist"
PAGE = ["web/*.html", "web/*.css", "web/*.js", "web/*.svg", "web/phantoms/*.png", "web/examples/*"]
PAGE += [f"{RUNTIME}/ort.wasm.bundle.min.mjs", f"{RUNTIME}/ort-wasm-simd-threaded.wasm"]


def default_model() -> str:
    """The name of the model that the page loads."""
    (name,) = re.findall(r'DEFAULT_MODEL = "(.+)"', (REPO / "web" / "app.js").read_text(encoding="utf-8"))
    return name


def make_site(folder: Path) -> None:
    """Write the page to folder/web, and its model with the JSON that has its checksum to folder/models."""
    model = f"models/{Path(default_model()).stem}"
    for file in [file for pattern in (*PAGE, f"{model}.onnx", f"{model}.json") for file in REPO.glob(pattern)]:
        target = folder / file.relative_to(REPO)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make_site(Path(sys.argv[1]))
