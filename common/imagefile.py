"""Image files as grey arrays, and MedMNIST's preparation of images. Needs numpy and Pillow; DICOM needs pydicom too.

Nothing here unpickles. An image that declares more pixels than Pillow's decompression-bomb limit is not decoded.
"""

import ctypes
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from common.errors import UserError, one_line
from common.imagefolder import is_bare_dicom, is_dicom, read_start

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "GIF", "WEBP", "JPEG2000", "PPM")  # Pillow's names
PAGED = ("TIFF", "GIF", "WEBP")  # formats whose pictures are all taken; a JPEG's others are previews
NO_IMAGE = "is no PNG, JPEG, BMP, TIFF, GIF, WebP, JPEG 2000, PNM or DICOM image, or a damaged one"
SMALLEST_SIDE = 8
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes
# What Pillow and pydicom raise on damaged files: a decoder's own errors, and those of Python code that trusts the file.
DAMAGE = (
    SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, EOFError,
    MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def centre(height: int, width: int) -> tuple[slice, slice]:
    """The square of the short side, in the middle, that a model sees of an image; of an odd rest, the end is longer."""
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side)


def prepare(image: np.ndarray, size: int) -> np.ndarray:
    """What MedMNIST did to its images, with Pillow: centre crop to the short side, antialiased bilinear resize.

    Args: image: uint8 [h, w]. Returns: uint8 [size, size].
    """
    square = Image.fromarray(np.ascontiguousarray(image[centre(*image.shape)]))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """uint8, uint16 or uint32 to uint8 over the whole range: 65535 becomes 255, with rounding."""
    return scaled(values, np.iinfo(values.dtype).max)


def scaled(values: np.ndarray, white: int) -> np.ndarray:
    """Unsigned integers to uint8: `white` becomes 255, with rounding."""
    return (values * (255 / white)).round().astype(np.uint8)


def white_of(values: np.ndarray) -> int:
    """The white of a picture of 16 bits, by its largest value: scanners store 8 or 12 bits in files of 16, which would
    be nearly black over the whole range. Below 256 white is 255; below 4096 white is 4095; else white is 65535."""
    largest = int(values.max(initial=0))
    return 255 if largest < 256 else 4095 if largest < 4096 else 65535


def to_grey(image: Image.Image) -> np.ndarray:
    """uint8 [h, w]: colour as Pillow's L (ITU-R 601-2 luma), transparent pixels over black, where there is no echo, and
    16 bits by `white_of`. Raises: UserError on pixels of 32 bits: nobody knows what is white."""
    if image.mode in SIXTEEN_BITS:
        return scaled(values := np.asarray(image), white_of(values))
    if image.mode in ("I", "F"):
        raise UserError("has pixels of 32 bits, whose white is not known; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return np.asarray(image.convert("L"))


def check_size(height: int, width: int) -> None:
    """Raises: UserError on an image too small for the model or too large for memory."""
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(f"is {height}×{width}; the model needs at least {SMALLEST_SIDE}×{SMALLEST_SIDE}")
    if height * width > (limit := Image.MAX_IMAGE_PIXELS or math.inf):
        raise UserError(f"declares {height}×{width} pixels, more than Pillow's limit of {limit}")


def silence_libtiff() -> None:
    """libtiff writes on stderr what it finds wrong, beside the error that Pillow raises, and Pillow has no switch for
    it. Where libtiff cannot be reached, as on Windows, it goes on to do so."""
    with suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = (ctypes.c_void_p,), ctypes.c_void_p
        set_handler(None)


def check_directory(page: TiffImageFile) -> None:
    """Raises: UserError where Pillow has read a part of the page's tags, and would show something else in its place."""
    if page.tag_v2.next == page.tag_v2.offset:  # what follows the tags, the next page's place, was not read
        raise UserError("is a damaged TIFF: a page's directory is cut off")


def pillow_frames(path: Path) -> Iterator[np.ndarray]:
    """Every picture of a TIFF, GIF or WebP and the picture of any other format, upright as EXIF's orientation says."""
    silence_libtiff()
    with Image.open(path, formats=FORMATS) as image:
        for page in range(getattr(image, "n_frames", 1) if image.format in PAGED else 1):
            image.seek(page)
            if isinstance(image, TiffImageFile):
                check_directory(image)
            check_size(image.height, image.width)
            picture = ImageOps.exif_transpose(image)
            sixteen = image.format in ("PNG", "PPM") and picture.mode == "I"  # these formats have 16 bits at most
            yield to_grey(picture.convert("I;16") if sixteen else picture)


def dicom_grey(values: np.ndarray, dataset) -> np.ndarray:
    """A decoded frame of a DICOM image as a screen shows it: modality rescale, window, MONOCHROME1 inverted. Without a
    window, the stored bits' whole range becomes black to white. Returns: uint8 [h, w]."""
    from pydicom.pixels import apply_color_lut, apply_rescale, apply_voi_lut

    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.ndim == 3:
        return to_grey(Image.fromarray(to_eight_bits(values)))
    windowed = "WindowCenter" in dataset or "VOILUTSequence" in dataset
    lowest = -(1 << dataset.BitsStored - 1) if dataset.PixelRepresentation else 0
    ends = np.array([[lowest, lowest + (1 << dataset.BitsStored) - 1]])
    values, ends = (apply_rescale(array, dataset) for array in (values, ends))
    if windowed:
        values, ends = (apply_voi_lut(array, dataset) for array in (values, ends))
    low, high = float(ends.min()), float(ends.max())
    grey = ((values.astype(float) - low) * 255 / max(high - low, 1e-12)).round().clip(0, 255).astype(np.uint8)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def drop_empty(dataset) -> None:
    """Delete a rescale slope or intercept, and a window, that has no value or no width: they mean nothing."""
    for name in ("RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction"):
        if dataset.get(name) in (None, ""):
            dataset.pop(name, None)
    if not dataset.get("RescaleSlope"):
        dataset.pop("RescaleSlope", None)
    width = float(np.ravel(dataset.get("WindowWidth", math.inf))[0])
    if width <= 0 or width < 1 and dataset.get("VOILUTFunction", "LINEAR") == "LINEAR":
        del dataset.WindowWidth
        dataset.pop("WindowCenter", None)


def read_dicom(path: Path):
    """The dataset of a DICOM file, without its pixels if the file has a preamble."""
    import pydicom

    if not is_bare_dicom(read_start(path)):
        return pydicom.dcmread(path, stop_before_pixels=True)
    dataset = pydicom.dcmread(path, force=True)
    implicit, little = dataset.original_encoding
    ours = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.setdefault("TransferSyntaxUID", ours if little else pydicom.uid.ExplicitVRBigEndian)
    return dataset


def dicom_pixels(path: Path, dataset) -> Iterator[np.ndarray]:
    """Every frame of a DICOM image as stored, one at a time. Raises: UserError where another decoder may help."""
    from pydicom import dcmread
    from pydicom.pixels import get_decoder, iter_pixels

    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    whole = "PixelData" in dataset  # `read_dicom` has read all of a file without preamble
    source = dataset if whole else dcmread(path) if decoder.UID.is_deflated else path  # pydicom 3 inflates no parts
    frames = range(int(dataset.get("NumberOfFrames") or 1))  # by number, or pydicom 3 writes into read-only memory
    try:
        yield from iter_pixels(source, indices=frames)
    except RuntimeError as error:
        if not any(line.startswith("pylibjpeg") for line in decoder.missing_dependencies):
            raise
        what, why = "needs pylibjpeg", decoder.UID.name
        if decoder.is_available:
            what, why = "is damaged, or needs pylibjpeg", str(error).splitlines()[-1].strip()
        raise UserError(f"{what} ({why}); pip install 'pylibjpeg[all]'") from None


def dicom_frames(path: Path) -> Iterator[np.ndarray]:
    """Every frame of a DICOM image, one at a time. Raises: UserError without pydicom."""
    try:
        import pydicom.pixels  # noqa: F401  # which pydicom has from version 3 on
        from pydicom.errors import BytesLengthException, InvalidDicomError
    except ImportError:
        raise UserError("is DICOM, which needs pydicom; pip install 'pydicom>=3', or save it as PNG") from None
    warnings.filterwarnings("ignore", module="pydicom")  # about what it reads all the same, or what an error says too
    try:
        dataset = read_dicom(path)
        drop_empty(dataset)
        check_size(dataset.Rows, dataset.Columns)
        for values in dicom_pixels(path, dataset):
            yield dicom_grey(values, dataset)
    except AttributeError:  # of an element that it lacks
        raise UserError("is DICOM without an image, or without what describes it") from None
    except (BytesLengthException, InvalidDicomError) as error:
        raise ValueError(str(error)) from None


def frames(path: str | Path) -> Iterator[np.ndarray]:
    """The images in a file, uint8 [h, w]: every page of a TIFF, GIF or WebP, every frame of a DICOM, one of any other.

    Raises: UserError, without the path, on a file that is absent, no image, damaged, too small or too large. Frames
    before the fault have been given by then.
    """
    path = Path(path)
    try:
        yield from dicom_frames(path) if is_dicom(read_start(path)) else pillow_frames(path)
    except UserError:
        raise
    except Image.UnidentifiedImageError:
        raise UserError(NO_IMAGE) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})") from None
    except DAMAGE as error:
        raise UserError(f"cannot be decoded ({one_line(str(error)) or type(error).__name__})") from None
