"""The web page in headless Chromium, beside onnxruntime and Pillow in Python."""

import io
import json
import re
import shutil
import threading
from collections.abc import Iterator
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import REPO
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from common import evidence, imagefile, phantom
from common.deploy import graph
from web import make_phantoms

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -r web/requirements.txt")

(DEFAULT,) = re.findall(r'DEFAULT_MODEL = "(.+)"', (REPO / "web" / "app.js").read_text())
SHIPPED = REPO / "models" / DEFAULT
RUNTIME = REPO / "web" / "node_modules" / "onnxruntime-web"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
THRESHOLD = 0.29
ANOTHER_MODEL = "Choose another .onnx file"
RULE = "highest threshold with a sensitivity of at least 0.95 on val"

playwright.expect.set_options(timeout=30_000)  # milliseconds; a busy machine takes seconds to compile the runtime
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium"),
    pytest.mark.skipif(not RUNTIME.is_dir(), reason="no web/node_modules/onnxruntime-web: run npm ci in web/"),
]

# What graph.py puts between preparation and head, with a filter and a mean in the network's place.
NETWORK = """
<ir_version: 10, opset_import: ["": 20]>
standin (uint8[batch, 28, 28] prepared) => (float[batch, 26, 26] network_evidence) <
  int64[1] one = {1}, float bias = {-12.2},
  float[2, 1, 3, 3] edges = {0.2, 1, 0.2, 0, 0, 0, -0.2, -1, -0.2, 0.3, 0, -0.3, 1, 0, -1, 0.3, 0, -0.3}
> {
  stored = Cast <to = 1> (prepared)
  grey = Unsqueeze (stored, one)
  contrast = Conv (grey, edges)
  strength = Relu (contrast)
  mean = ReduceMean <keepdims = 0> (strength, one)
  network_evidence = Add (mean, bias)
}
"""


UNUSUAL = """
<ir_version: 10, opset_import: ["": 20]>
unusual (float[batch] logit) => (float[batch] typicality) <float almost_none = {0.00246}> {
  none = Sub (logit, logit)
  typicality = Add (none, almost_none)
}
"""


def standin(earlier: bool = False, unusual: bool = False, **changed) -> bytes:
    """The file of a stand-in model, with some of its metadata changed (None leaves a key out). earlier: it gives no
    evidence; unusual: it finds every image so, where else it does not say."""
    model = graph.assemble(onnx.parser.parse_model(NETWORK), 28)
    if unusual:
        judged, given = onnx.parser.parse_model(UNUSUAL), [output.name for output in model.graph.output]
        model = onnx.compose.merge_models(model, judged, [("logit", "logit")], outputs=[*given, "typicality"])
        changed = {"typicality_threshold": "0.01"} | changed
    if earlier:
        del model.graph.output[2]
    rates = {"n": 78, "recall": 0.952, "recall_ci95": [0.81, 1.0], "specificity": 0.614}
    metrics = {"test": {"n": 156, "auc": 0.92, "auc_ci95": [0.86, 0.96], "accuracy": None}}
    props = {
        "classes": '["normal or benign", "malignant"]', "positive_class": "malignant", "threshold": str(THRESHOLD),
        "threshold_rule": RULE, "input_size": "28", "dataset": "BreastMNIST", "metrics": json.dumps(metrics),
        "intended_use": "research only, not a medical device", "metrics_at_threshold": json.dumps({"val": rates}),
    }  # fmt: skip
    onnx.helper.set_model_props(model, {key: text for key, text in (props | changed).items() if text is not None})
    return model.SerializeToString()


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def pictures() -> dict[str, bytes]:
    """Image files by name: several modes, formats and shapes, the smallest size and the model's own among them."""
    grey = Image.fromarray(phantom.generate(1, 240, seed=5, malignant_share=1)[0][0])
    colour = Image.merge("RGB", [Image.fromarray(np.roll(np.asarray(grey), shift, 0)) for shift in (0, 9, 30)])
    opaque = colour.copy()
    opaque.putalpha(255)
    gamma = PngInfo()
    gamma.add(b"gAMA", (100000).to_bytes(4, "big"))  # asks for other brightness: an image is read as stored
    return {
        "landscape.png": encoded(grey.crop((0, 40, 240, 181))),
        "portrait.png": encoded(grey.crop((31, 0, 160, 240))),
        "wide.png": encoded(grey.resize((1000, 300))),
        "own_size.png": encoded(grey.resize((28, 28))),
        "smallest.png": encoded(grey.resize((8, 8))),
        "strip.png": encoded(grey.resize((9, 70))),
        "colour.png": encoded(colour.crop((0, 0, 200, 240))),
        "opaque.png": encoded(opaque),
        "palette.png": encoded(colour.quantize(64)),
        "one_bit.png": encoded(grey.convert("1")),
        "gamma.png": encoded(grey, pnginfo=gamma),
        "grey.jpg": encoded(grey, "jpeg", quality=90),
        "colour.jpg": encoded(colour, "jpeg", quality=90),
        "colour.bmp": encoded(colour, "bmp"),
    }


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the page, served as docs/web.md says."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=REPO))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/web/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, site):
    """A function that opens the page: `model` is the file in the shipped one's place (None: there is none; SHIPPED:
    itself). In the end the page may have asked for nothing from elsewhere."""
    opened = []

    def open_page(model: bytes | Path | None, **options):
        context = browser.new_context(**options)
        page = context.new_page()
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.add_init_script(
            "window.refused = []; addEventListener('securitypolicyviolation', (e) => refused.push(e.blockedURI))"
        )
        answer = {"status": 404} if model is None else {"body": model}
        if model != SHIPPED:
            page.route(f"**/models/{DEFAULT}", lambda route: route.fulfill(**answer))
        page.goto(site)
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        assert all(url.startswith(site.removesuffix("web/")) for url in page.requested), page.requested
        page.context.close()


def give(page, name: str, content: bytes, label: str = "Choose a file"):
    page.get_by_label(label).set_input_files({"name": name, "mimeType": "", "buffer": content})


def choose(page, name: str, content: bytes | None = None):
    """Give the page a file, of `pictures` where its content is not given, and wait for its answer."""
    give(page, name, pictures()[name] if content is None else content)
    playwright.expect(page.locator("#given-caption")).to_contain_text(name)


def pixels(page, canvas: str) -> np.ndarray:
    """Colours and opacity of a canvas, uint8 [height, width, 4]."""
    script = "(c) => [c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    width, *rgba = page.locator(canvas).evaluate(script)
    return np.uint8(rgba).reshape(-1, width, 4)


def check_answers(page, model: bytes):
    """The page's number, words and small image, for every picture, against onnxruntime and Pillow."""
    session = onnxruntime.InferenceSession(model)
    about, outputs = session.get_modelmeta().custom_metadata_map, {output.name for output in session.get_outputs()}
    size, threshold, sides = int(about["input_size"]), float(about["threshold"]), set()
    for name, content in pictures().items():
        grey = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        (expected,) = session.run(["probability"], {"image": grey[np.newaxis]})[0]
        choose(page, name, content)
        shown = float(page.locator("#probability").get_attribute("value"))
        assert shown == pytest.approx(expected, abs=1e-4), name
        assert np.array_equal(pixels(page, "#seen")[:, :, 0], imagefile.prepare(grey, size)), name
        words = page.locator("#statement").inner_text()
        if "typicality" in outputs and session.run(["typicality"], {"image": grey[np.newaxis]})[0] < 0.01:
            assert words.endswith("no call."), words
            continue
        side, called = ("above", "flagged for review") if expected >= threshold else ("below", "not flagged")
        ((p, point),) = re.findall(rf"^P\(malignant\) = ([\d.]+), {side} the operating point ([\d.]+): ", words)
        assert [float(p), float(point)] == pytest.approx([expected, threshold], abs=6e-4), words
        assert words.endswith(f": {called}."), words
        assert page.locator("#promise").inner_text().startswith(f"Operating point: {about['threshold_rule']}.")
        sides.add(side)
    return sides


def test_answers_are_those_of_onnxruntime_in_python(visit):
    model = standin()
    page = visit(model)
    assert check_answers(page, model) == {"above", "below"}
    assert page.evaluate("refused") == []
    assert any(url.endswith(".wasm") for url in page.requested)


def test_shipped_model_answers_like_onnxruntime_in_python(visit):
    if not SHIPPED.exists():
        pytest.skip(f"no models/{DEFAULT}")
    page = visit(SHIPPED)
    check_answers(page, SHIPPED.read_bytes())
    assert page.evaluate("refused") == []


def test_policy_refuses_other_sites_inline_code_and_eval(visit):
    page = visit(standin())
    page.evaluate("fetch('https://example.org/').catch(() => 0)")
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))")
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    evaluated = "new Promise((done) => setTimeout(() => { try { done(eval('1')) } catch (e) { done(e.name) } }, 100))"
    assert page.evaluate(evaluated) == "EvalError"
    refused = ["https://example.org/", "https://example.org/x.png", "inline"]
    assert set(page.evaluate("refused")) >= set(refused)
    page.requested = [url for url in page.requested if url not in refused]


def test_every_phantom_answers_by_keyboard(visit):
    page = visit(standin(), reduced_motion="reduce")
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        focused = page.evaluate_handle("document.activeElement")
        reached.append(focused.evaluate("(e) => e.dataset.phantom ?? e.id"))
        ringed = focused.evaluate("(e) => getComputedStyle(e.type === 'file' ? e.nextElementSibling : e).outlineStyle")
        assert ringed == "solid", reached
        if reached[-1] in make_phantoms.SAMPLES:
            page.keyboard.press("Enter")
            playwright.expect(page.locator("#given-caption")).to_contain_text(reached[-1])
    assert reached == ["file", *make_phantoms.SAMPLES, "overlaid", "model-file"]
    playwright.expect(page.locator("#caution")).to_contain_text("phantom: generated, not ultrasound")
    with page.expect_file_chooser():
        page.get_by_label("Choose a file").press("Space")
    page.locator("summary").press("Enter")
    row = page.get_by_role("row", name="threshold_rule")
    playwright.expect(row).to_contain_text(RULE)


def hand_over(page, kind: str, name: str):
    """Paste or drop a picture, and wait for its answer."""
    script = """([kind, name, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], name));
      const Kind = { paste: ClipboardEvent, drop: DragEvent }[kind];
      document.body.dispatchEvent(new Kind(kind, { clipboardData: data, dataTransfer: data, bubbles: true }));
    }"""
    page.evaluate(script, [kind, name, list(pictures()[name])])
    playwright.expect(page.locator("#given-caption")).to_contain_text(name)


def test_phone_and_desktop_light_and_dark(visit):
    page = visit(standin(), color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == "rgb(21, 24, 27)"
    hand_over(page, "drop", "wide.png")
    page.locator("summary").click()
    for width in (320, 360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing to scroll to sideways


def test_evidence_lies_over_the_picture_as_predict_draws_it(visit):
    model = standin()
    session, page = onnxruntime.InferenceSession(model), visit(model)
    for name in ("landscape.png", "own_size.png", "smallest.png"):
        grey = np.asarray(Image.open(io.BytesIO(pictures()[name])).convert("L"))
        choose(page, name)
        logit, values = session.run(["logit", "evidence"], {"image": grey[np.newaxis]})
        left, side = (grey.shape[1] - min(grey.shape)) // 2, min(grey.shape)
        colours, opacity = np.split(pixels(page, "#overlay"), [3], axis=2)
        over = grey[:, left : left + side, np.newaxis] * (1 - opacity / 255) + colours * (opacity / 255)
        expected = np.asarray(evidence.overlay(grey, values[0]))[:, left : left + side]
        assert np.abs(over - expected).max() < 4, name  # a browser keeps colours multiplied by their opacity
        assert np.abs(expected - grey[:, left : left + side, np.newaxis]).max() > 50  # it was not empty
        shown = page.locator("#mean").inner_text().replace("−", "-")
        assert float(shown) == pytest.approx(logit[0], abs=0.006)
        frame, crop, map_ = (page.locator(part).bounding_box() for part in ("#given", "#crop", "#overlay"))
        assert map_ == pytest.approx(crop, abs=1.5)  # pixels; the page may move between the two questions
        assert (map_["x"] - frame["x"]) / frame["width"] == pytest.approx(left / grey.shape[1], abs=0.01)
    page.get_by_label("Show where the answer comes from").uncheck()
    playwright.expect(page.locator("#overlay")).to_be_hidden()
    choose(page, "portrait.png")
    playwright.expect(page.locator("#overlay")).to_be_hidden()  # until it is asked for again
    page.get_by_label("Show where the answer comes from").check()
    playwright.expect(page.locator("#overlay")).to_be_visible()


def test_where_the_evidence_is_strongest_is_said_in_words(visit):
    page = visit(standin())
    corner = np.zeros((90, 150), np.uint8)
    corner[60:, 90:120] = np.random.default_rng(0).integers(0, 256, (30, 30))  # the lower right ninth of the square
    choose(page, "corner.png", encoded(Image.fromarray(corner)))
    words = page.locator("#where").inner_text()
    assert words.startswith("What speaks for malignant is strongest in the lower right ninth of the square: ")
    assert page.get_by_role("status").last.inner_text().endswith(words)
    described = page.get_by_role("img", name="Evidence over the image").get_attribute("aria-describedby")
    assert page.locator(f"#{described}").inner_text() == words
    choose(page, "black.png", encoded(Image.new("L", (60, 60))))
    playwright.expect(page.locator("#where")).to_contain_text("Nothing speaks for malignant. What speaks against")


def test_an_earlier_file_answers_without_evidence(visit):
    page = visit(standin(earlier=True))
    choose(page, "portrait.png")
    for part in ("#evidence", "#overlay"):
        playwright.expect(page.locator(part)).to_be_hidden()
    playwright.expect(page.locator("#called")).to_have_text(re.compile("flagged"))
    assert page.locator("#where").text_content() == ""


def test_a_picture_unlike_those_of_training_gets_no_call(visit):
    page = visit(standin(unusual=True))
    choose(page, "portrait.png")
    words = "This picture is unlike the images that the model was trained on: no call."
    playwright.expect(page.locator("#statement")).to_have_text(words)
    reason = "0.2\u00a0% are as unusual (typicality 0.0025). Below 1\u00a0% nothing is called"
    playwright.expect(page.locator("#promise")).to_contain_text(reason)
    for part in (".number", ".scale", "#calibrated"):
        playwright.expect(page.locator(part)).to_be_hidden()
    result = page.locator("#result").inner_text()
    assert "flagged" not in result and "calibrated" not in result
    assert page.get_by_role("status").last.inner_text().startswith(f"{words} Of the images")
    give(page, "own.onnx", standin(unusual=True, typicality_threshold="0.002"), ANOTHER_MODEL)
    playwright.expect(page.locator("#called")).to_have_text(re.compile("flagged"))
    playwright.expect(page.locator(".number")).to_be_visible()


def test_what_the_operating_point_means_and_of_which_file_it_is_stands_beside_the_call(visit):
    page = visit(standin(metrics_of="the fp32 file"))
    about = playwright.expect(page.locator("#about"))
    about.to_contain_text("On 156 test images, with the fp32 file: AUC 0.920")
    choose(page, "portrait.png")
    promise = page.locator("#promise").inner_text()
    held = "On 78 held-out images, with the fp32 file: sensitivity 0.952 (0.810 to 1.000), the share of malignant"
    assert promise.startswith(f"Operating point: {RULE}. {held}")
    assert "; specificity 0.614, the share of the others" in promise and "a third hospital" in promise


def test_roles_names_and_disclaimer(visit):
    page = visit(standin())
    for role, name in (("heading", "Choose an image"), ("group", "or a phantom: generated, not ultrasound")):
        playwright.expect(page.get_by_role(role, name=name)).to_be_visible()
    playwright.expect(page.get_by_role("banner")).to_contain_text("Research only. Not a medical device.")
    playwright.expect(page.get_by_role("status").first).to_have_text(f"{DEFAULT} is ready.")
    playwright.expect(page.locator("#about")).to_contain_text("On 156 test images: AUC 0.920 (0.860 to 0.960);")
    hand_over(page, "paste", "colour.png")
    playwright.expect(page.get_by_role("region", name="Result")).to_be_visible()
    playwright.expect(page.get_by_role("img", name="The image colour.png")).to_be_visible()
    playwright.expect(page.get_by_role("img", name="The same at 28×28 pixels")).to_be_visible()
    playwright.expect(page.get_by_role("status").last).to_contain_text(page.locator("#statement").inner_text())
    assert "colour turned grey" in page.locator("#given-caption").inner_text()


def test_errors_name_the_cause_and_the_way_out(visit):
    page = visit(standin())
    error = playwright.expect(page.get_by_role("alert"))
    choose(page, "portrait.png")
    give(page, "notes.txt", b"no image")
    error.to_contain_text("notes.txt is not an image that this browser can read. PNG, JPEG, WebP and BMP work")
    playwright.expect(page.locator("#result")).to_be_hidden()
    give(page, "thin.png", encoded(Image.new("L", (300, 7))))
    error.to_contain_text("thin.png has 300×7 pixels; the model needs 8×8 or more.")
    give(page, "huge.png", encoded(Image.new("1", (10000, 5001))))
    error.to_contain_text("huge.png has 10000×5001 pixels; this page reads up to 50 million.")
    give(page, "portrait.png", pictures()["portrait.png"], ANOTHER_MODEL)
    error.to_contain_text("portrait.png is not an .onnx file. An image goes to “Choose a file”")
    give(page, "OTHER.ONNX", standin())
    error.to_contain_text("OTHER.ONNX is a model: choose it with “Choose another .onnx file”, below.")
    for content in (b"<!DOCTYPE html><p>not found", standin()[:900], standin(threshold=None)):
        give(page, "other.onnx", content, ANOTHER_MODEL)
        error.to_contain_text("other.onnx is not a model that export.py wrote")
    choose(page, "portrait.png")  # the model from before still answers
    error.to_be_empty()


def test_missing_model_says_how_to_make_one_and_a_model_of_phantoms_says_what_it_is(visit):
    page = visit(None)
    error = playwright.expect(page.get_by_role("alert"))
    error.to_contain_text(f"models/{DEFAULT} cannot be loaded (404). Make one with “python export.py RUN --out")
    page.get_by_role("button", name="benign").click()
    error.to_contain_text("cannot be loaded")
    phantoms = "PHANTOM data (generated, not ultrasound)"
    give(page, "own.onnx", standin(threshold="0.0012344", dataset=phantoms), ANOTHER_MODEL)
    playwright.expect(page.locator("#given-caption")).to_contain_text("benign.png")  # answered after all
    playwright.expect(page.locator("#statement")).to_contain_text("above the operating point 0.001: ")
    playwright.expect(page.locator("#promise")).not_to_contain_text("hospitals")
    playwright.expect(page.locator("#about")).to_contain_text("own.onnx, research only")
    playwright.expect(page.locator("#synthetic")).to_contain_text(phantoms)
    playwright.expect(page.locator("#caution")).to_be_empty()
    error.to_be_empty()
    choose(page, "portrait.png")
    playwright.expect(page.locator("#caution")).to_contain_text("only seen phantoms")


def test_last_choice_wins_while_the_model_is_on_its_way(visit):
    page = visit(standin())
    waiting = []
    page.route(f"**/models/{DEFAULT}", lambda route: waiting.append(route))
    page.reload()
    for name in ("malignant.png", "benign.png"):
        page.locator(f"[data-phantom='{name}']").click()
        playwright.expect(page.locator("#status")).to_have_text("Waiting for the model…")
    waiting[-1].fulfill(body=standin())  # an earlier one is of the page before it was loaded again
    playwright.expect(page.locator("#given-caption")).to_contain_text("benign.png")
    playwright.expect(page.locator("#about")).to_contain_text(f"{DEFAULT}, research only")


def test_missing_runtime_and_altered_pixels_are_errors(visit):
    page = visit(standin())
    page.add_init_script(
        "const read = OffscreenCanvasRenderingContext2D.prototype.getImageData;"
        "OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...box) {"
        "  const image = read.apply(this, box); image.data[40] ^= 1; return image; }"
    )
    page.reload()
    page.get_by_role("button", name="benign").click()
    playwright.expect(page.get_by_role("alert")).to_contain_text("This browser alters the pixels")
    page.route("**/node_modules/**", lambda route: route.fulfill(status=404))
    page.reload()
    playwright.expect(page.get_by_role("alert")).to_contain_text("run “npm ci” in the folder web/")
