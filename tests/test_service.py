"""The service of docs/service.md, as it stands there, in a process of its own."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import REPO

from common import imagefile

pytestmark = pytest.mark.slow
PICTURE = REPO / "web/phantoms/malignant.png"
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy that the environment names


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def service(onnx_model, tmp_path_factory):
    """The address of the running service."""
    for needed in ("starlette", "uvicorn"):
        pytest.importorskip(needed)
    folder, port = tmp_path_factory.mktemp("service"), free_port()
    (code,) = re.findall(r"```python\n(.*?)```", (REPO / "docs/service.md").read_text(encoding="utf-8"), re.S)
    (folder / "service.py").write_text(code, encoding="utf-8")
    words = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--app-dir", str(folder)]
    surroundings = os.environ | {"MODEL": str(onnx_model.path), "PYTHONPATH": str(REPO)}
    process = subprocess.Popen(words, env=surroundings, stderr=subprocess.PIPE, encoding="utf-8")
    for line in process.stderr:
        if "Uvicorn running" in line:
            break
    yield f"http://127.0.0.1:{port}/predict"
    process.terminate()
    process.wait(timeout=30)


def send(address: str, content: bytes) -> tuple[int, dict]:
    try:
        with DIRECTLY.open(urllib.request.Request(address, content), timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_it_answers_as_the_file_does_also_many_at_once(service, onnx_model):
    (image,) = imagefile.frames(PICTURE)
    expected = float(onnx_model.probabilities(image[None])[0])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(service, PICTURE.read_bytes()), range(16)))
    assert {status for status, _ in answers} == {200}
    for _, told in answers:
        (page,) = told["pages"]
        assert page["probability"] == pytest.approx(expected, abs=1e-6) and "image" not in page


@pytest.mark.parametrize(
    ("query", "content", "status", "words"),
    [
        ("", b"no picture", 400, "the image is not a readable PNG"),
        ("?box=0.1,0.2,0.3,0.4", PICTURE.read_bytes(), 400, "does not lie in them"),
        ("?box=1,2", PICTURE.read_bytes(), 400, "Use x, y, width and height"),
    ],
)
def test_what_is_wrong_is_said_in_words(service, query, content, status, words):
    code, told = send(service + query, content)
    assert code == status and words in told["error"]


def test_a_large_file_is_refused_before_it_is_sent(service):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(service).netloc, timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "20000001")
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413 and "larger than 20000000 bytes" in json.loads(response.read())["error"]
