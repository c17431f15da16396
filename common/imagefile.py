"""Read image files as grey arrays, and prepare images as MedMNIST did. Needs numpy and Pillow; DICOM needs pydicom.

No function here unpickles. An image with more pixels than Pillow's decompression-bomb limit is not decoded.
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
PAGED = ("TIFF", "GIF", "WEBP")  # formats with several pictures; more pictures in a JPEG are previews
NO_IMAGE = "is not a readable PNG, JPEG, BMP, TIFF, GIF, WebP, JPEG 2000, PNM or DICOM image"
SMALLEST_SIDE = 8
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and its value where white is stored as 0
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes
# Exceptions of Pillow and pydicom on damaged files: errors of a decoder, and of Python code that trusts the file.
DAMAGE = (
    SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, EOFError,
    MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def centre(height: int, width: int) -> tuple[slice, slice]:
    """Return the slices of the middle square of an image. If an odd number of pixels is cut, the end loses one more."""
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side)


def prepare(image: np.ndarray, size: int) -> np.ndarray:
    """Prepare an image as MedMNIST did, with Pillow: crop to the middle square, antialiased bilinear resize.

    Args: image: uint8 [h, w]. Returns: uint8 [size, size].
    """
    square = Image.fromarray(np.ascontiguousarray(image[centre(*image.shape)]))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))


def scaled(values: np.ndarray, white: int) -> np.ndarray:
    """Convert unsigned integers to uint8: `white` becomes 255, with rounding."""
    return (values * (255 / white)).round().astype(np.uint8)


def white_of(values: np.ndarray) -> int:
    """Return the white of a picture of 16 bits: 255 if all values are below 256, 4095 if below 4096, otherwise 65535.

    Scanners store 8 or 12 bits in files of 16 bits. Over the full range, such pictures would be nearly black.
    """
    largest = int(values.max(initial=0))
    return 255 if largest < 256 else 4095 if largest < 4096 else 65535


def to_grey(image: Image.Image) -> np.ndarray:
    """Convert a picture to grey, uint8 [h, w].

    Colour becomes Pillow's L (ITU-R 601-2 luma). Transparent pixels become black, like places without an echo. 16 bits
    become 8 bits by `white_of`. Raises: UserError on pixels of 32 bits, because their white is unknown.
    """
    if image.mode in SIXTEEN_BITS:
        return scaled(values := np.asarray(image), white_of(values))
    if image.mode in ("I", "F"):
        raise UserError("has pixels of 32 bits, so its white level is unknown. Save the image with 8 or 16 bits.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return np.asarray(image.convert("L"))


def check_size(height: int, width: int) -> None:
    """Raise a `UserError` if an image is too small for the model or too large for the memory."""
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(f"is {height}×{width}. The model needs at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels.")
    if height * width > (limit := Image.MAX_IMAGE_PIXELS or math.inf):
        raise UserError(f"has {height}×{width} pixels, more than the limit of {limit}. Save a smaller image.")


def silence_libtiff() -> None:
    """Stop libtiff from printing errors on stderr, because Pillow raises the same errors.

    If libtiff cannot be reached, as on Windows, libtiff still prints its errors.
    """
    with suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = (ctypes.c_void_p,), ctypes.c_void_p
        set_handler(None)


def check_directory(page: TiffImageFile) -> None:
    """Raise a `UserError` if Pillow has read only a part of the tags of a page, and would show a wrong picture."""
    if page.tag_v2.next == page.tag_v2.offset:  # the offset of the next page, which follows the tags, was not read
        raise UserError("is a damaged TIFF: the directory of a page is incomplete")


def pillow_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the pictures of a file, turned by the orientation in EXIF. Only a TIFF, GIF or WebP gives several."""
    silence_libtiff()
    with Image.open(path, formats=FORMATS) as image:
        for page in range(getattr(image, "n_frames", 1) if image.format in PAGED else 1):
            image.seek(page)
            if isinstance(image, TiffImageFile):
                check_directory(image)
            check_size(image.height, image.width)
            deep_colour = (
                any(";16" in str(tile) and "BGR;16" not in str(tile) for tile in image.tile)
                and image.mode not in SIXTEEN_BITS
            )
            picture = ImageOps.exif_transpose(image)
            inverted = isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
            sixteen = image.format in ("PNG", "PPM") and picture.mode == "I"  # these formats have 16 bits at most
            grey = to_grey(picture.convert("I;16") if sixteen else picture)
            if deep_colour and grey.max() < 16:
                raise UserError("has dark colours of 16 bits, so its white is unknown. Save the image with 8 bits.")
            yield 255 - grey if inverted and picture.mode in SIXTEEN_BITS else grey  # Pillow inverts 8 bits itself


def dicom_grey(values: np.ndarray, dataset) -> np.ndarray:
    """Return a decoded frame of a DICOM image as a screen shows it, uint8 [h, w].

    The steps are modality rescale, window, and inversion of MONOCHROME1. Without a window, black to white is the full
    range of the stored bits.
    """
    from pydicom.pixels import apply_color_lut, apply_rescale, apply_voi_lut

    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.ndim == 3:
        return to_grey(Image.fromarray(scaled(values, np.iinfo(values.dtype).max)))
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
    """Delete a rescale slope, an intercept or a window without a value, and a window without a width."""
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
    """Read the dataset of a DICOM file, without its pixels if the file has a preamble."""
    import pydicom

    if not is_bare_dicom(read_start(path)):
        return pydicom.dcmread(path, stop_before_pixels=True)
    dataset = pydicom.dcmread(path, force=True)
    implicit, little = dataset.original_encoding
    ours = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.setdefault("TransferSyntaxUID", ours if little else pydicom.uid.ExplicitVRBigEndian)
    return dataset


def dicom_pixels(path: Path, dataset) -> Iterator[np.ndarray]:
    """Yield every frame of a DICOM image as stored. Raises: UserError when another decoder may help."""
    from pydicom import dcmread
    from pydicom.pixels import get_decoder, iter_pixels

    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    whole = "PixelData" in dataset  # `read_dicom` has read all of a file without preamble
    source = dataset if whole else dcmread(path) if decoder.UID.is_deflated else path  # pydicom 3 cannot inflate parts
    frames = range(int(dataset.get("NumberOfFrames") or 1))  # without indices, pydicom 3 writes into read-only memory
    try:
        yield from iter_pixels(source, indices=frames)
    except RuntimeError as error:
        if not any(line.startswith("pylibjpeg") for line in decoder.missing_dependencies):
            raise
        what, why = "needs pylibjpeg", decoder.UID.name
        if decoder.is_available:
            what, why = "is damaged, or needs pylibjpeg", str(error).splitlines()[-1].strip()
        raise UserError(f"{what} ({why}). Run: pip install 'pylibjpeg[all]'") from None


def dicom_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield every frame of a DICOM image, uint8 [h, w]. Raises: UserError, for example without pydicom."""
    try:
        import pydicom.pixels  # noqa: F401  # pydicom has this module from version 3 on
        from pydicom.errors import BytesLengthException, InvalidDicomError
    except ImportError:
        raise UserError(
            "is a DICOM file, which needs pydicom. Save the image as PNG, or run: pip install 'pydicom>=3'"
        ) from None
    warnings.filterwarnings("ignore", module="pydicom")  # pydicom reads the file anyway, or raises an error
    try:
        dataset = read_dicom(path)
        drop_empty(dataset)
        check_size(dataset.Rows, dataset.Columns)
        for values in dicom_pixels(path, dataset):
            yield dicom_grey(values, dataset)
    except AttributeError:  # an element is missing
        raise UserError("is a DICOM file without an image, or without the description of its image") from None
    except (BytesLengthException, InvalidDicomError) as error:
        raise ValueError(str(error)) from None


def frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yield the images in a file, uint8 [h, w]: every page of a TIFF, GIF or WebP, every frame of a DICOM file.

    A file of any other format gives one image.
    Raises: UserError, without the path, if the file is absent, not an image, damaged, too small or too large. Frames
    before the damage come first.
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
