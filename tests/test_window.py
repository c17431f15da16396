"""The window against Pillow's resize, and as an exported graph."""

import hypothesis
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from common import imagefile
from common.window import frame_box, square_around, square_box, window


def noise(height: int, width: int, n: int = 1) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (n, height, width), dtype=np.uint8)


def by_pillow(image: np.ndarray, side: int, box=None) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box)).astype(int)


def ours(image: np.ndarray, box, side: int, clip: bool = False) -> np.ndarray:
    boxes = torch.as_tensor(box, dtype=torch.float32).reshape(1, 4)
    return window(torch.from_numpy(image)[None], boxes, side, clip)[0].numpy()


SIZES = st.integers(8, 500)


@hypothesis.settings(max_examples=40, derandomize=True, deadline=None, database=None)
@hypothesis.given(SIZES, SIZES, st.sampled_from([28, 64, 128]), st.tuples(*[st.floats(0, 1, width=32)] * 4))
def test_every_view_is_within_a_grey_level_of_pillow(height, width, side, shares):
    image = noise(height, width)[0]
    left, right = sorted(share * width for share in shares[:2])
    top, bottom = sorted(share * height for share in shares[2:])
    if right - left > 1 and bottom - top > 1:
        made = ours(image, (left, top, right - left, bottom - top), side)
        assert np.abs(made - by_pillow(image, side, (left, top, right, bottom))).max() <= 1
    assert np.abs(ours(image, frame_box(height, width), side) - by_pillow(image, side)).max() <= 1
    square = ours(image, square_box(height, width), side, clip=True)
    assert np.abs(square - imagefile.prepare(image, side).astype(int)).max() <= 1


def test_an_ordinary_frame_differs_from_pillow_in_few_pixels():
    image = noise(600, 800)[0]
    made, wanted = ours(image, (130.4, 80.7, 311, 205.3), 128), by_pillow(image, 128, (130.4, 80.7, 441.4, 286))
    assert np.mean(made != wanted) < 0.002


def test_the_middle_square_is_that_of_imagefile():
    for height, width in ((7, 10), (10, 7), (9, 9), (600, 801)):
        rows, columns = imagefile.centre(height, width)
        side = columns.stop - columns.start
        assert square_box(height, width).tolist() == [[columns.start, rows.start, side, side]]


def test_the_square_of_a_lesion_has_its_centre_and_a_multiple_of_its_longer_side():
    boxes = torch.tensor([[10.0, 20, 30, 10], [0, 0, 4, 8]])
    assert square_around(boxes, 2).tolist() == [[-5, -5, 60, 60], [-6, -4, 16, 16]]


def test_each_image_of_a_batch_has_its_own_box():
    images, boxes = torch.from_numpy(noise(60, 90, 2)), torch.tensor([[3.0, 4, 40, 30], [20, 10, 55, 44]])
    both = window(images, boxes, 28)
    for i in range(2):
        torch.testing.assert_close(both[i], window(images[i : i + 1], boxes[i : i + 1], 28)[0], atol=1, rtol=0)
    assert window(images, boxes[:1], 28).shape == (2, 28, 28)


def test_outside_the_frame_is_black_and_inside_is_not_darkened_by_it():
    white = np.full((40, 50), 255, np.uint8)
    made = ours(white, (-25, 10, 50, 20), 20)  # each output pixel is 2.5 pixels wide: the left ten lie outside
    assert (made[:, :10] == 0).all() and (made[:, 10:] == 255).all()
    assert not ours(white, (60, 60, 20, 20), 8).any()
    below = ours(white, (10, 30, 20, 20), 20)
    assert (below[:10] == 255).all() and not below[10:].any()


def test_every_grey_level_survives():
    for grey in range(256):
        assert (ours(np.full((33, 47), grey, np.uint8), (1.3, 2.1, 40, 25.7), 16) == grey).all()


class Views(torch.nn.Module):
    """All views of an image in a graph."""

    def forward(self, image: torch.Tensor, box: torch.Tensor):
        size = image.shape[1:]
        lesion = window(image, square_around(box, 2.0), 64)
        return lesion, window(image, frame_box(*size), 64), window(image, square_box(*size), 64, clip=True)


@pytest.mark.filterwarnings("ignore")
def test_the_exported_graph_takes_any_size_and_gives_the_same_grey_levels():
    n, height, width = (torch.export.Dim(name, min=1 if name == "n" else 8) for name in ("n", "height", "width"))
    example = torch.from_numpy(noise(60, 80, 2)), torch.tensor([[10.0, 10, 30, 20], [5, 5, 60, 40]])
    shapes = ({0: n, 1: height, 2: width}, {0: n})
    names = {"input_names": ["image", "box"], "output_names": ["lesion", "frame", "square"]}
    made = torch.onnx.export(
        Views().eval(), example, dynamo=True, opset_version=18, dynamic_shapes=shapes, verbose=False, **names
    )
    model = made.model_proto
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    assert "Resize" not in {node.op_type for node in model.graph.node}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((1, 600, 800), (3, 333, 512)):
        images, boxes = noise(shape[1], shape[2], shape[0]), np.tile(np.float32([[50, 60, 300, 200]]), (shape[0], 1))
        given = session.run(None, {"image": images, "box": boxes})
        wanted = Views()(torch.from_numpy(images), torch.from_numpy(boxes))
        for one, other in zip(given, wanted):
            assert np.abs(one - other.numpy()).max() <= 1 and np.mean(one != other.numpy()) < 0.001
