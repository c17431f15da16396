import re
from pathlib import Path

import pytest
import torch
import torchvision
from common_fixtures import forget
from conftest import refusal
from torch import nn

from common import model, weights
from common.errors import UserError
from common.model import BreastResNet
from common.settings import Settings

COLOUR_MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)  # torchvision's ImageNet preset
COLOUR_STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)


@pytest.fixture(autouse=True)
def forget_weights():
    forget()


def begin(file, stages: int = 2) -> BreastResNet:
    """A model of 28×28 pixels that starts with a file of weights."""
    torch.manual_seed(0)
    return weights.initial_model(28, Settings(weights=str(file), stages=stages))


def test_grey_stem_answers_as_the_colour_stem_up_to_a_constant_of_each_filter():
    """Colour filters see a grey image in three equal channels, each normalised as torchvision does."""
    torch.manual_seed(0)
    images, filters = torch.rand(3, 1, 20, 20).double(), torch.randn(64, 3, 7, 7).double()
    colour = nn.functional.conv2d((images - COLOUR_MEAN[:, None, None]) / COLOUR_STD[:, None, None], filters)
    grey = nn.functional.conv2d((images - model.GREY_MEAN) / model.GREY_STD, weights.grey_stem(filters))
    offset = torch.einsum("ochw,c->o", filters, (model.GREY_MEAN - COLOUR_MEAN) / COLOUR_STD)
    torch.testing.assert_close(colour, grey + offset[:, None, None], rtol=0, atol=1e-10)
    assert model.GREY_MEAN == pytest.approx(float(COLOUR_MEAN.mean()), abs=1e-3)
    assert model.GREY_STD == pytest.approx(float(COLOUR_STD.mean()), abs=1e-3)


@pytest.mark.parametrize(
    "whole, stages, lacking", [(False, 2, "fc"), (False, 3, "fc"), (False, 4, "fc, layer4"), (True, 4, "fc")]
)
def test_a_file_fills_what_it_holds_and_names_the_rest(imagenet_trunk, tmp_path, capsys, whole, stages, lacking):
    """A file without the fourth stage, and one with it and with the classifier of ImageNet's 1000 classes."""
    file, stored = imagenet_trunk, torch.load(imagenet_trunk)
    if whole:
        torch.save(stored := torchvision.models.resnet18().state_dict(), file := tmp_path / "whole.pth")
    network, random = begin(file, stages), begin("none", stages).trunk.state_dict()
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1  # a random start says nothing
    assert printed.err.endswith(f"the layers {lacking} start at random\n") and str(file) in printed.err
    for name, tensor in network.trunk.state_dict().items():
        expected = random[name] if name.split(".")[0] in lacking else stored[name]
        assert torch.equal(tensor, weights.grey_stem(expected) if name == "conv1.weight" else expected), name


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_wrapped_files_are_taken(imagenet_trunk, tmp_path, wrapper, prefix):
    """As Lightning, DataParallel and many a script save them."""
    stored = {prefix + name: tensor for name, tensor in torch.load(imagenet_trunk).items()}
    torch.save({wrapper: stored, "epoch": 3} if wrapper else stored, tmp_path / "wrapped.pth")
    expected = begin(imagenet_trunk).state_dict()
    for name, tensor in begin(tmp_path / "wrapped.pth").state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_stem_of_one_channel_is_taken_as_it_is(tmp_path):
    filters = torch.rand(64, 1, 7, 7)
    torch.save({"conv1.weight": filters}, tmp_path / "grey.pth")
    assert torch.equal(begin(tmp_path / "grey.pth").trunk.conv1.weight, filters)


def test_training_one_model_does_not_change_the_next_one_s_start(imagenet_trunk):
    first = begin(imagenet_trunk)
    start = {name: tensor.clone() for name, tensor in first.trunk.state_dict().items()}
    with torch.no_grad():
        for tensor in first.state_dict().values():
            tensor.fill_(7)
    after = begin(imagenet_trunk).trunk.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in start.items())


NO_TENSORS = "is not a file of plain tensors saved by torch, or is damaged"
BAD_FILES = {  # what is saved, or the bytes; test_bad_input.py has others
    "another network's name": ({"features.0.weight": torch.zeros(1)}, "'features.0.weight' of shape .* is no layer"),
    "another shape": ({"conv1.weight": torch.zeros(64, 2, 7, 7)}, r"conv1.weight' of shape \[64, 2, 7, 7\] is no"),
    "numbered": ({1: torch.zeros(3)}, r"'1' of shape \[3\] is no layer"),
    "no numbers": ({"bn1.bias": torch.full((64,), torch.nan)}, "'bn1.bias' holds values that are no numbers"),
    "sparse": ({"bn1.weight": torch.ones(64).to_sparse()}, "'bn1.weight' holds values that are no numbers"),
    "terabytes, four bytes in the file": ({"conv1.weight": torch.zeros(1).expand(2**40)}, "is no layer"),
    "no layer": ({}, "holds no layer"),
    "classifier only": ({"fc.weight": torch.zeros(1000, 512)}, "holds no layer"),
    "layers left off only": ({"layer4.0.bn1.bias": torch.zeros(512)}, "holds no layer"),
    "tensor": (torch.zeros(3), "not a state dict"),
    "values": ({"conv1.weight": 3}, "not a state dict"),
    "wrapped values": ({"state_dict": {"conv1.weight": [3]}}, "not a state dict"),
    "network": (nn.Linear(1, 1), NO_TENSORS),
    "text": (b"text", NO_TENSORS),
    "a zip file's mark": (b"PK\x03\x04 cut off", NO_TENSORS),
    "a pickle's mark": (b"\x80\x02", NO_TENSORS),
}


def refused(file: Path, reason: str) -> None:
    """A file is refused in one line that names it and both ways out."""
    message = refusal(begin, file)
    assert re.search(reason, message) and all(way in message for way in (str(file), "--weights FILE", "--weights none"))


@pytest.mark.parametrize("content, reason", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files(tmp_path, content, reason):
    path = tmp_path / "weights.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    refused(path, reason)


def test_damaged_files(tmp_path, imagenet_trunk):
    whole = imagenet_trunk.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (flipped, whole[:-10]):
        (tmp_path / "weights.pth").write_bytes(content)
        refused(tmp_path / "weights.pth", NO_TENSORS)


@pytest.mark.parametrize("name", ["absent.pth", "."])
def test_files_that_cannot_be_read(tmp_path, name):
    refused(tmp_path / name, "cannot be read")
    assert "cannot be read" in refusal(weights.weights_md5, str(tmp_path / name))


def test_a_file_is_known_by_its_md5_as_it_was_when_training_began(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"abc")
    assert weights.weights_md5(str(path)) == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321, appendix A.5
    path.unlink()
    assert weights.weights_md5(str(path)) == "900150983cd24fb0d6963f7d28e17f72"
    assert weights.weights_md5("imagenet") is weights.weights_md5("none") is None


def test_torch_s_own_words_for_a_full_disk(tmp_path, monkeypatch):
    def fail(content, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file\nframe #0: c10")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match="failed writing file.. Check [^\n]*$"):
        weights.write_tensors(tmp_path / "model.pt", {})
    assert list(tmp_path.iterdir()) == []
