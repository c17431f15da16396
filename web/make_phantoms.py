"""Make the sample images of the web page: phantoms, larger than the input of every model, and mostly not square.

python -m web.make_phantoms
"""

from pathlib import Path

from PIL import Image

from common import phantom

FOLDER = Path(__file__).parent / "phantoms"
SAMPLES = {  # file: index in the draw, and the part of the image to keep: left, top, right, bottom
    "benign.png": (0, (0, 40, 320, 280)),
    "no_lesion.png": (11, (0, 0, 320, 320)),
    "malignant.png": (6, (0, 0, 320, 240)),
    "malignant_upright.png": (5, (40, 0, 280, 320)),
}


def samples() -> dict[str, Image.Image]:
    """Return {file name: grey image}, cut from phantoms of 320×320 pixels."""
    images, _ = phantom.generate(12, 320, seed=3, malignant_share=0.5)
    return {name: Image.fromarray(images[index]).crop(box) for name, (index, box) in SAMPLES.items()}


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, image in samples().items():
        image.save(FOLDER / name, optimize=True)
        print(f"web/phantoms/{name}: {image.width}×{image.height}")


if __name__ == "__main__":
    main()
