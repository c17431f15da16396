"""Downloads as they are, from a server on the loopback address that stands in for both hosts, under their real names
and paths; and what train.py does where nothing can be downloaded."""

import hashlib
import http.client
import http.server
import io
import re
import resource
import sys
import threading
import urllib.request
from pathlib import Path

import medmnist
import numpy as np
import pytest
import torch
import torchvision
from conftest import one_line, read_csv, read_json, refusal

from common import data, download, npzfile, weights
from common.errors import UserError

DATA_URL = medmnist.INFO["breastmnist"]["url"]
FILES = {"data": "data/breastmnist.npz", "weights": "hub/checkpoints/resnet18-f37072fd.pth"}
WAYS_OUT = {"data": ("--data-root", "--data phantom --weights none"), "weights": ("--weights FILE", "--weights none")}


class Host(http.server.ThreadingHTTPServer):
    """zenodo.org and download.pytorch.org at once. `files`: {URL: content}; `trouble`: what it does instead."""

    daemon_threads, trouble = True, ""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()  # seconds until it sees its end

    def handle_error(self, request, client_address):
        """Who hangs up, as on a full disk, is no error here."""

    def opener(self):
        """One for urllib that finds every host here."""

        class Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
            def https_open(handler, request):
                return handler.do_open(self.connect, request)

            http_open = https_open

        return urllib.request.build_opener(urllib.request.ProxyHandler({}), Handler)

    def connect(self, host, timeout):
        port = 9 if self.trouble == "refused" else self.server_port  # at 9, nobody answers
        return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)


class Answer(http.server.BaseHTTPRequestHandler):
    server: Host

    def setup(self):
        self.request.settimeout(None)  # `download.limited` sets the time-out of every new socket of this process
        super().setup()

    def do_GET(self):
        url, trouble = f"https://{self.headers['Host']}{self.path}", self.server.trouble
        self.server.asked.append(f"{self.command} {url}")
        if trouble == "silent" or (trouble == "silent after HEAD" and self.command == "GET"):
            self.server.closing.wait()
        elif trouble == "no HTTP":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif trouble.isdigit() or url not in self.server.files:
            self.send_error(int(trouble or 404))
        else:
            self.send(self.server.files[url], trouble)

    do_HEAD = do_GET

    def send(self, content: bytes, trouble: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if trouble == "wrong content":
            content = bytes(len(content))
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if trouble in ("cut", "stalls") else content)
        if self.command == "GET" and trouble == "stalls":
            self.server.closing.wait()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def imagenet() -> bytes:
    """What torchvision publishes, by name, shape and size, with random values."""
    file = io.BytesIO()
    torch.save(torchvision.models.resnet18().state_dict(), file)
    return file.getvalue()


@pytest.fixture
def host(monkeypatch, tmp_path, stored, imagenet):
    """The host, with a few phantoms in the place of BreastMNIST; this machine has downloaded nothing yet."""
    file = io.BytesIO()
    np.savez_compressed(file, **stored)
    md5 = hashlib.md5(file.getvalue()).hexdigest()
    monkeypatch.setitem(medmnist.INFO["breastmnist"], "MD5", md5)
    monkeypatch.setitem(npzfile.OFFICIAL_MD5, 28, md5)
    monkeypatch.setattr(data, "PHANTOM_COUNTS", {"train": 24, "val": 12, "test": 12})  # fewer are as good here
    server = Host()
    server.files = {DATA_URL: file.getvalue(), weights.IMAGENET_URL: imagenet}
    monkeypatch.setattr(weights, "IMAGENET_SHA256", hashlib.sha256(imagenet).hexdigest()[:8])
    monkeypatch.setattr(urllib.request, "_opener", server.opener())
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


def fetch(what: str):
    """Find or download one of FILES, and read it."""
    if what == "weights":
        return weights.read_weights("imagenet")
    return data.load(data.find(["breastmnist"], None, 28), "train")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_weights_address_is_the_published_one_and_holds_their_hash():
    assert weights.IMAGENET_URL == "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert weights.IMAGENET_URL.endswith(f"-{weights.IMAGENET_SHA256}.pth")


@pytest.mark.parametrize("what", FILES)
def test_what_was_downloaded_once_is_kept(host, tmp_path, what, capfd):
    fetch(what)
    asked = len(host.asked)
    fetch(what)
    url = DATA_URL if what == "data" else weights.IMAGENET_URL
    assert (tmp_path / FILES[what]).read_bytes() == host.files[url] and files(tmp_path) == [FILES[what]]
    assert f"GET {url}" in host.asked and len(host.asked) == asked
    assert capfd.readouterr().out == ""


TROUBLES = {
    "refused": "Connection refused",
    "404": "HTTP Error 404",
    "503": "HTTP Error 503",
    "cut": "corrupted|invalid hash",
    "wrong content": "corrupted|invalid hash",
    "no HTTP": "SSH|no HTTP",
    "silent": "no answer in 0.1 seconds",
    "silent after HEAD": "timed out|no answer",
    "stalls": "timed out|no answer",
}
WAITING = ("silent", "silent after HEAD", "stalls")


@pytest.fixture
def make(monkeypatch, host):
    """A function that makes the host's trouble; what would be waited for is, for a tenth of a second."""

    def make(trouble: str) -> None:
        host.trouble = trouble
        monkeypatch.setattr(download, "PATIENCE", 0.1 if trouble in WAITING else 10.0)

    return make


@pytest.mark.parametrize("trouble, reason", TROUBLES.items())
@pytest.mark.parametrize("what", FILES)
def test_in_trouble_it_is_one_line_with_nothing_left_and_a_retry_works(make, tmp_path, what, trouble, reason):
    make(trouble)
    message = refusal(fetch, what)
    assert re.search(f"cannot be downloaded .*({reason})", message), message
    assert files(tmp_path) == [] and not (tmp_path / "data").exists()
    assert all(words in message for words in (FILES[what], "https://", *WAYS_OUT[what]))
    make("")
    fetch(what)
    assert files(tmp_path) == [FILES[what]]


@pytest.mark.parametrize("what", FILES)
def test_a_full_disk(host, tmp_path, what):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # bytes a file, which the system enforces
        with pytest.raises(UserError, match="cannot be downloaded .*File too large"):
            fetch(what)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files(tmp_path) == []
    fetch(what)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_on_a_terminal(host, monkeypatch, capfd, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    fetch("weights")
    err = capfd.readouterr().err
    assert ("100%" in err and "44.7M" in err) if terminal else err.count("\n") == 1


def test_a_damaged_file_in_torch_s_cache_is_one_line(host, tmp_path):
    fetch("weights")
    (tmp_path / FILES["weights"]).write_bytes(b"")
    message = refusal(fetch, "weights")
    assert FILES["weights"] in message and "or is damaged. Delete it, or give --weights" in message


# train.py, without and with flags

FEW = ["--epochs", "1", "--stages", "2", "--threads", "1", "--out", "run"]


def first_run(runs) -> tuple[list[str], str, dict]:
    """train.py to its end: the lines of stdout, stderr, and metrics.json."""
    out, err = runs("train.py", *FEW)
    return out.splitlines(), err, read_json("run/metrics.json")


def frames(lines: list[str]) -> tuple[str, str]:
    """What the frames say that the output begins and ends with."""
    nothing, first, _, last, rest = "\n".join(lines).split("#" * 78)
    assert nothing == rest == ""
    return " ".join(first.replace("\n## ", " ").split()), " ".join(last.replace("\n## ", " ").split())


def test_with_a_network_the_first_command_is_the_real_thing(host, runs):
    lines, err, metrics = first_run(runs)
    assert lines[0].startswith("BreastMNIST 28×28") and lines[-1] == "written to run/" and "PHANTOM" not in err
    assert metrics["config"]["weights"] == "imagenet" and metrics["config"]["data"] == ["breastmnist"]
    assert metrics["provenance"]["data"]["md5"] == npzfile.OFFICIAL_MD5[28]


def test_without_one_it_is_phantoms_said_first_and_last(make, runs, tmp_path):
    make("503")
    lines, err, metrics = first_run(runs)
    first, last = frames(lines)
    assert first == last and first.startswith("PHANTOM DATA.") and TROUBLES["503"] in first
    assert str(tmp_path / FILES["data"]) in first and DATA_URL in first
    assert "PHANTOM data 28×28 (generated, not ultrasound): test AUC" in "\n".join(lines)
    assert metrics["synthetic"].startswith("PHANTOM") and metrics["config"]["weights"] == "none"
    assert metrics["provenance"]["data"]["synthetic"] is True
    assert read_json("run/calibration.json")["synthetic"].startswith("PHANTOM")
    for name in ("history.csv", "predictions.csv"):
        assert {row["synthetic"] for row in read_csv(f"run/{name}")} == {"phantom"}
    assert all("PHANTOM" in line for line in err.splitlines() if "val_auc" in line)
    titles = [line for line in lines if re.search(r"(threshold|point|temperature) \d", line)]
    assert len(titles) == 3 and all(line.startswith("PHANTOM") for line in titles)
    make("")
    runs("train.py", *FEW, "--resume", status=2)  # the network is back: other data than the run's


def test_without_the_weights_it_is_the_real_data_from_scratch(host, runs):
    del host.files[weights.IMAGENET_URL]
    lines, _, metrics = first_run(runs)
    first, last = frames(lines)
    assert first == last and first.startswith("RANDOM WEIGHTS.") and "404" in first and "PHANTOM" not in first
    assert "synthetic" not in metrics and metrics["config"]["weights"] == "none"


def test_a_damaged_file_is_no_table_s_end_either(host, runs, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / FILES["data"]).write_bytes(b"damaged")
    lines, _, metrics = first_run(runs)
    assert "not a readable .npz file" in frames(lines)[0] and metrics["synthetic"]


@pytest.mark.parametrize(
    "command",
    [
        "train.py --data breastmnist", "train.py --data-root .", "train.py --data phantom",
        "train.py --weights imagenet", "train.py --weights none", "train.py --params best.json",
        "crossval.py", "tune.py", "audit.py",
    ],
)  # fmt: skip
def test_a_flag_is_never_replaced_and_other_scripts_insist(make, runs, tmp_path, command):
    (tmp_path / "best.json").write_text('{"weights": "imagenet", "lr": 0.001}')
    make("503")
    out, err = runs(*command.split(), status=2)
    assert TROUBLES["503"] in one_line(err) and out == ""
    assert files(tmp_path) == ["best.json"]
