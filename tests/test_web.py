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
from common.deploy.typicality import Typicality
from web import make_phantoms

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -r web/requirements.txt")

(DEFAULT,) = re.findall(r'DEFAULT_MODEL = "(.+)"', (REPO / "web" / "app.js").read_text())
SHIPPED = REPO / "models" / DEFAULT
RUNTIME = REPO / "web" / "node_modules" / "onnxruntime-web"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
THRESHOLD = 0.29
IMAGE, ANOTHER_MODEL = "Choose a file", "Choose another .onnx file"
RULE = "largest threshold with a sensitivity of at least 0.95 on the validation images of BreastMNIST"
CHOSEN_ON = {"on": "val", "hospitals": ["BreastMNIST"], "hospital_left_out": False, "n": 78, "malignant": 21}
TWO_HOSPITALS = {"on": "out_of_fold", "hospitals": ["A", "B, B"], "hospital_left_out": True, "n": 880, "malignant": 266}
RATES = {"recall": 0.952, "recall_ci95": [0.81, 1.0], "specificity": 0.614, "specificity_ci95": [None, None]}
AT_ONE = {"hospital": "B, B", "recall": 0.111, "specificity": 0.222}  # of several hospitals, after the entry of all

expect = playwright.expect
expect.set_options(timeout=30_000)  # milliseconds; a busy machine takes seconds to compile the runtime
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium"),
    pytest.mark.skipif(not RUNTIME.is_dir(), reason="no web/node_modules/onnxruntime-web: run npm ci in web/"),
]

# What graph.py puts between preparation and head, with a filter and a mean in the network's place.
NETWORK = """
standin (uint8[batch, 28, 28] frame_prepared)
  => (float[batch, 26, 26] frame_evidence, float[batch, 28] frame_features) <
  int64[1] channels = {1}, float bias = {-12.2},
  float[2, 1, 3, 3] edges = {0.2, 1, 0.2, 0, 0, 0, -0.2, -1, -0.2, 0.3, 0, -0.3, 1, 0, -1, 0.3, 0, -0.3}
> {
  stored = Cast <to = 1> (frame_prepared)
  grey = Unsqueeze (stored, channels)
  contrast = Conv (grey, edges)
  strength = Relu (contrast)
  mean = ReduceMean <keepdims = 0> (strength, channels)
  frame_evidence = Add (mean, bias)
  frame_features = ReduceMean <keepdims = 0> (stored, channels)
}
"""


def standin(earlier: bool = False, unusual: bool = False, **changed) -> bytes:
    """The file of a stand-in model, with some metadata changed (None leaves a key out). earlier: without evidence and
    typicality; unusual: every image is more unusual than the 405 held-out ones, where else none is."""
    held_out = np.full(405, 0 if unusual else np.inf, np.float32)
    fitted = Typicality(np.zeros(28, np.float32), np.eye(28, dtype=np.float32), held_out)
    model = graph.assemble({"frame": onnx.parser.parse_model(graph.VERSIONS + NETWORK)}, 28, "square", fitted)
    if earlier:
        del model.graph.output[2:]
    metrics = {"test": {"n": 156, "auc": 0.92, "auc_ci95": [0.86, 0.96], "accuracy": None}}
    props = {
        "classes": '["normal or benign", "malignant"]', "positive_class": "malignant", "threshold": str(THRESHOLD),
        "threshold_rule": RULE, "input_size": "28", "dataset": "BreastMNIST", "metrics": json.dumps(metrics),
        "intended_use": "research only, not a medical device", "chosen_on": json.dumps(CHOSEN_ON),
        "typicality_threshold": "0.01", "achieved": json.dumps([RATES, AT_ONE]),
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


def grey_levels(name: str) -> np.ndarray:
    """A picture, uint8 [h, w], as Pillow reads it."""
    return np.asarray(Image.open(io.BytesIO(pictures()[name])).convert("L"))


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
        page = browser.new_page(**options)
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.add_init_script(
            "window.refused = []; addEventListener('securitypolicyviolation', (e) => refused.push(e.blockedURI))"
        )
        if model != SHIPPED:
            answer = {"status": 404} if model is None else {"body": model}
            page.route(f"**/models/{DEFAULT}", lambda route: route.fulfill(**answer))
        page.goto(site)
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        assert all(url.startswith(site.removesuffix("web/")) for url in page.requested), page.requested
        page.close()


def says(page, place: str, text: str):
    """Wait until a text stands in a place of the page, a CSS selector."""
    expect(page.locator(place)).to_contain_text(text)


def give(page, name: str, content: bytes, label: str = IMAGE):
    page.get_by_label(label).set_input_files({"name": name, "mimeType": "", "buffer": content})


def choose(page, name: str, content: bytes | None = None):
    """Give the page a file, of `pictures` where its content is not given, and wait for its answer."""
    give(page, name, pictures()[name] if content is None else content)
    says(page, "#given-caption", name)


def pixels(page, canvas: str) -> np.ndarray:
    """Colours and opacity of a canvas, uint8 [height, width, 4]."""
    script = "(c) => [c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    width, *rgba = page.locator(canvas).evaluate(script)
    return np.uint8(rgba).reshape(-1, width, 4)


@pytest.mark.parametrize("shipped", [False, True], ids=["stand-in", "shipped"])
def test_answers_are_those_of_onnxruntime_and_pillow_in_python(shipped, visit):
    """The page's number, words and small image, for every picture."""
    model = SHIPPED if shipped else standin()
    page, session = visit(model), onnxruntime.InferenceSession(model)
    about, sides = session.get_modelmeta().custom_metadata_map, set()
    size, threshold = int(about["input_size"]), float(about["threshold"])
    for name in pictures():
        grey = grey_levels(name)
        (expected,), (typicality,) = session.run(["probability", "typicality"], {"image": grey[np.newaxis]})
        choose(page, name)
        shown = float(page.locator("#probability").get_attribute("value"))
        assert shown == pytest.approx(expected, abs=1e-4), name
        assert np.array_equal(pixels(page, "#seen")[:, :, 0], imagefile.prepare(grey, size)), name
        words = page.locator("#statement").inner_text()
        if typicality < 0.01:
            assert words.endswith("no call."), words
            continue
        side, called = ("above", "flagged for review") if expected >= threshold else ("below", "not flagged")
        ((p, point),) = re.findall(rf"^P\(malignant\) = ([\d.]+), {side} the operating point ([\d.]+): ", words)
        assert [float(p), float(point)] == pytest.approx([expected, threshold], abs=6e-4), words
        assert words.endswith(f": {called}."), words
        assert page.locator("#promise").inner_text().startswith(f"Operating point: {about['threshold_rule']}.")
        sides.add(side)
    assert shipped or sides == {"above", "below"}
    assert page.evaluate("refused") == [] and any(url.endswith(".wasm") for url in page.requested)


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
            says(page, "#given-caption", reached[-1])
    assert reached == ["file", *make_phantoms.SAMPLES, "overlaid", "model-file"]
    says(page, "#caution", "phantom: generated, not ultrasound")
    with page.expect_file_chooser():
        page.get_by_label(IMAGE).press("Space")
    page.locator("summary").press("Enter")
    expect(page.get_by_role("row", name="threshold_rule")).to_contain_text(RULE)


def hand_over(page, kind: str, files: dict[str, bytes]):
    """Paste or drop files, all at the same moment."""
    script = """([kind, files]) => {
      for (const [name, bytes] of Object.entries(files)) {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name));
        const Kind = { paste: ClipboardEvent, drop: DragEvent }[kind];
        document.body.dispatchEvent(new Kind(kind, { clipboardData: data, dataTransfer: data, bubbles: true }));
      }
    }"""
    page.evaluate(script, [kind, {name: list(content) for name, content in files.items()}])


def test_phone_and_desktop_light_and_dark(visit):
    page = visit(standin(), color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == "rgb(21, 24, 27)"
    hand_over(page, "drop", {"wide.png": pictures()["wide.png"]})
    says(page, "#given-caption", "wide.png")
    page.locator("summary").click()
    for width in (320, 360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing to scroll to sideways


def test_evidence_lies_over_the_picture_as_predict_draws_it(visit):
    session, page = onnxruntime.InferenceSession(standin()), visit(standin())
    for name in ("landscape.png", "own_size.png", "smallest.png"):
        grey = grey_levels(name)
        choose(page, name)
        logit, values = session.run(["logit", "evidence"], {"image": grey[np.newaxis]})
        square = imagefile.centre(*grey.shape)
        expected, stored = np.asarray(evidence.overlay(grey, values[0]))[square], grey[square][:, :, np.newaxis]
        colours, opacity = np.split(pixels(page, "#overlay"), [3], axis=2)
        over = stored * (1 - opacity / 255) + colours * (opacity / 255)
        assert np.abs(over - expected).max() < 4, name  # a browser keeps colours multiplied by their opacity
        assert np.abs(expected - stored).max() > 50  # it was not empty
        shown = page.locator("#mean").inner_text().replace("−", "-")
        assert float(shown) == pytest.approx(logit[0], abs=0.006)
        frame, crop, map_ = (page.locator(part).bounding_box() for part in ("#given", "#crop", "#overlay"))
        assert map_ == pytest.approx(crop, abs=1.5)  # pixels; the page may move between the two questions
        left = (map_["x"] - frame["x"]) / frame["width"]
        assert left == pytest.approx(square[1].start / grey.shape[1], abs=0.01)
    page.get_by_label("Show where the answer comes from").uncheck()
    expect(page.locator("#overlay")).to_be_hidden()
    choose(page, "portrait.png")
    expect(page.locator("#overlay")).to_be_hidden()  # until it is asked for again
    page.get_by_label("Show where the answer comes from").check()
    expect(page.locator("#overlay")).to_be_visible()


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
    says(page, "#where", "Nothing speaks for malignant. What speaks against")


def test_an_earlier_file_answers_without_evidence_or_typicality(visit):
    page = visit(standin(earlier=True))
    choose(page, "portrait.png")
    for part in ("#evidence", "#overlay"):
        expect(page.locator(part)).to_be_hidden()
    says(page, "#called", "flagged")
    assert page.locator("#where").text_content() == ""


def test_a_picture_unlike_those_of_training_gets_no_call(visit):
    page = visit(standin(unusual=True))
    choose(page, "portrait.png")
    words = "This picture is unlike the images that the model was trained on: no call."
    expect(page.locator("#statement")).to_have_text(words)
    says(page, "#promise", "0.2\u00a0% are as unusual (typicality 0.0025). Below 1\u00a0% nothing is called")
    for part in (".number", ".scale", "#calibrated"):
        expect(page.locator(part)).to_be_hidden()
    result = page.locator("#result").inner_text()
    assert "flagged" not in result and "calibrated" not in result
    assert page.get_by_role("status").last.inner_text().startswith(f"{words} Of the images")
    give(page, "own.onnx", standin(unusual=True, typicality_threshold="0.002"), ANOTHER_MODEL)
    says(page, "#called", "flagged")
    expect(page.locator(".number")).to_be_visible()


WITHIN = "by cross-validation within the images that chose the threshold"
AT_EACH = "at each hospital with the threshold that the others choose"


@pytest.mark.parametrize(
    "changed, chose, measured",
    [
        ({}, "78 images of BreastMNIST chose the operating point, 21", WITHIN),
        ({"chosen_on": json.dumps(TWO_HOSPITALS)}, "880 images of A + B, B chose the operating point, 266", AT_EACH),
        ({"metrics_of": "the fp32 file"}, "78 images of BreastMNIST chose", f"{WITHIN}, with the fp32 file"),
    ],
    ids=["one hospital", "two hospitals", "int8"],
)
def test_who_chose_the_operating_point_and_what_it_achieves_on_other_images(changed, chose, measured, visit):
    page = visit(standin(**changed))
    says(page, "#about", f"On 156 test images{', with the fp32 file' * bool('metrics_of' in changed)}: AUC 0.920")
    choose(page, "portrait.png")
    promise = page.locator("#promise").inner_text()
    assert promise.startswith(f"Operating point: {RULE}. {chose}")
    rates = "sensitivity 0.952 (0.810 to 1.000), specificity 0.614; 95 % intervals in brackets"
    assert f" Expected at this threshold: {rates}. The rates were measured {measured}. " in promise
    assert "0.111" not in promise and "a third hospital" in promise


@pytest.mark.parametrize(
    "changed",
    [
        {"achieved": None, "chosen_on": None, "metrics_at_threshold": json.dumps({"out_of_fold, X": RATES})},
        {"achieved": "[]", "chosen_on": "{}"},
        {"achieved": json.dumps([RATES | {"recall": None}]), "chosen_on": "{}"},
    ],
    ids=["of version 1", "too few images", "undefined"],
)
def test_nothing_is_promised_where_the_file_does_not_say_it(changed, visit):
    page = visit(standin(**changed))
    choose(page, "portrait.png")
    promise = page.locator("#promise").inner_text()
    assert promise.startswith(f"Operating point: {RULE}. At other hospitals the file can miss more: ")
    assert "Expected" not in promise and "X" not in promise


@pytest.mark.parametrize(
    "key, text",
    [
        ("threshold", "high"), ("threshold", ""), ("threshold", "1.5"), ("input_size", "28.5"), ("input_size", "0"),
        ("typicality_threshold", "rare"), ("chosen_on", "{"), ("chosen_on", '{"hospitals": "A"}'), ("chosen_on", "1"),
        ("achieved", "{}"), ("achieved", "[1, null]"), ("achieved", '[{"recall": "high"}]'),
        ("achieved", '[{"recall": 0.9, "recall_ci95": 0.8}]'), ("achieved", "NaN"), ("metrics", "none"),
        ("metrics", '{"test": {"n": {"toString": 1}, "auc": 0.9}}'), ("metrics", '{"test": {"n": 9, "auc": [0.9]}}'),
    ],
)  # fmt: skip
def test_malformed_metadata_leave_the_former_model_with_its_own_text(key, text, visit):
    page = visit(standin())
    choose(page, "portrait.png")
    shown = [page.locator(place).inner_text() for place in ("#statement", "#promise", "#about")]
    give(page, "other.onnx", standin(**{key: text}), ANOTHER_MODEL)
    says(page, "[role=alert]", f"other.onnx is not a model that export.py wrote (its {key} ")
    expect(page.locator("#result")).to_be_hidden()
    choose(page, "portrait.png")
    assert [page.locator(place).inner_text() for place in ("#statement", "#promise", "#about")] == shown
    expect(page.locator("#model-name")).to_have_text(DEFAULT)


def test_the_text_is_of_the_model_that_answers_when_a_second_choice_fails_first(visit):
    page = visit(standin())
    says(page, "#about", DEFAULT)
    hand_over(page, "drop", {"slow.onnx": standin(threshold="0.5"), "broken.onnx": b"nothing"})
    says(page, "[role=alert]", "broken.onnx is not a model")
    choose(page, "portrait.png")
    says(page, "#compared", f"the operating point {THRESHOLD:.3f}")
    says(page, "#about", f"{DEFAULT}, research only")


def test_long_texts_of_the_metadata_are_cut(visit):
    page = visit(standin(fingerprints_trained_on="ab/+" * 6000))
    page.locator("summary").click()
    row = page.get_by_role("row", name="fingerprints_trained_on")
    expect(row).to_contain_text("ab/+… (24000 characters)")


def test_roles_names_and_disclaimer(visit):
    page = visit(standin())
    expect(page.get_by_role("status").first).to_have_text(f"{DEFAULT} is ready.")
    says(page, "#about", "On 156 test images: AUC 0.920 (0.860 to 0.960);")
    expect(page.get_by_role("banner")).to_contain_text("Research only. Not a medical device.")
    hand_over(page, "paste", {"colour.png": pictures()["colour.png"]})
    says(page, "#given-caption", "colour.png")
    says(page, "#given-caption", "colour turned grey")
    for role, name in (
        ("heading", "Choose an image"),
        ("group", "or a phantom: generated, not ultrasound"),
        ("region", "Result"),
        ("img", "The image colour.png"),
        ("img", "The same at 28×28 pixels"),
    ):
        expect(page.get_by_role(role, name=name)).to_be_visible()
    expect(page.get_by_role("status").last).to_contain_text(page.locator("#statement").inner_text())


def test_errors_name_the_cause_and_the_way_out(visit):
    page, huge = visit(standin()), encoded(Image.new("1", (10000, 5001)))
    choose(page, "portrait.png")
    for name, label, content, message in (
        ("notes.txt", IMAGE, b"no image", "is not an image that this browser can read. PNG, JPEG, WebP and BMP work"),
        ("thin.png", IMAGE, encoded(Image.new("L", (300, 7))), "has 300×7 pixels; the model needs 8×8 or more."),
        ("huge.png", IMAGE, huge, "has 10000×5001 pixels; this page reads up to 50 million."),
        ("OTHER.ONNX", IMAGE, standin(), "is a model: choose it with “Choose another .onnx file”, below."),
        ("a.png", ANOTHER_MODEL, pictures()["opaque.png"], "is not an .onnx file. An image goes to “Choose a file”"),
        ("html.onnx", ANOTHER_MODEL, b"<!DOCTYPE html><p>not found", "is not a model that export.py wrote"),
        ("cut.onnx", ANOTHER_MODEL, standin()[:900], "is not a model that export.py wrote"),
        ("bare.onnx", ANOTHER_MODEL, standin(threshold=None), "is not a model that export.py wrote"),
    ):
        give(page, name, content, label)
        says(page, "[role=alert]", f"{name} {message}")
        expect(page.locator("#result")).to_be_hidden()
    choose(page, "portrait.png")  # the model from before still answers
    expect(page.get_by_role("alert")).to_be_empty()


def test_missing_model_says_how_to_make_one_and_a_model_of_phantoms_says_what_it_is(visit):
    page = visit(None)
    says(page, "[role=alert]", f"models/{DEFAULT} cannot be loaded (404). Make one with “python export.py RUN --out")
    page.get_by_role("button", name="benign").click()
    says(page, "[role=alert]", "cannot be loaded")
    phantoms = "PHANTOM data (generated, not ultrasound)"
    give(page, "own.onnx", standin(threshold="0.0012344", dataset=phantoms), ANOTHER_MODEL)
    says(page, "#given-caption", "benign.png")  # answered after all
    says(page, "#statement", "above the operating point 0.001: ")
    expect(page.locator("#promise")).not_to_contain_text("hospitals")
    says(page, "#about", "own.onnx, research only")
    says(page, "#synthetic", phantoms)
    for place in (page.locator("#caution"), page.get_by_role("alert")):
        expect(place).to_be_empty()
    choose(page, "portrait.png")
    says(page, "#caution", "only seen phantoms")


def test_last_choice_wins_while_the_model_is_on_its_way(visit):
    page = visit(standin())
    waiting = []
    page.route(f"**/models/{DEFAULT}", lambda route: waiting.append(route))
    page.reload()
    for name in ("malignant.png", "benign.png"):
        page.locator(f"[data-phantom='{name}']").click()
        expect(page.locator("#status")).to_have_text("Waiting for the model…")
    waiting[-1].fulfill(body=standin())  # an earlier one is of the page before it was loaded again
    says(page, "#given-caption", "benign.png")
    says(page, "#about", f"{DEFAULT}, research only")


def test_missing_runtime_and_altered_pixels_are_errors(visit):
    page = visit(standin())
    page.add_init_script(
        "const read = OffscreenCanvasRenderingContext2D.prototype.getImageData;"
        "OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...box) {"
        "  const image = read.apply(this, box); image.data[40] ^= 1; return image; }"
    )
    page.reload()
    page.get_by_role("button", name="benign").click()
    says(page, "[role=alert]", "This browser alters the pixels")
    page.route("**/node_modules/**", lambda route: route.fulfill(status=404))
    page.reload()
    says(page, "[role=alert]", "run “npm ci” in the folder web/")
