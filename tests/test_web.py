"""The web page in headless Chromium, beside onnxruntime in Python."""

import csv
import io
import json
import queue
import re
import shutil
import threading
from collections.abc import Iterator
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import REPO
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from common import evidence, imagefile, phantom
from common.deploy import graph, modelfile
from common.deploy.typicality import Typicality
from web import make_site

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -r web/requirements.txt")

DEFAULT = make_site.default_model()
SHIPPED = REPO / "models" / DEFAULT
MODULES = REPO / "web" / "node_modules"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
THRESHOLD, LEAST_FOUND, FULL = 0.29, 0.5, 4.0
IMAGES, ANOTHER_MODEL = "Choose files", "Choose another model file (.onnx)"
CHOSEN_ON = {"on": "out_of_fold", "hospitals": ["A", "B, B"], "hospital_left_out": True, "n": 880, "malignant": 264}
RATES = {"recall": 0.952, "recall_ci95": [0.81, 1.0], "specificity": 0.614, "specificity_ci95": [0.5, 0.7]}
WORST = RATES | {"hospital": "B, B", "recall": 0.87}
NBSP = "\u00a0"

expect = playwright.expect
expect.set_options(timeout=30_000)  # milliseconds; a busy machine takes seconds to compile the runtime
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium"),
    pytest.mark.skipif(not (MODULES / "axe-core").is_dir(), reason="no web/node_modules: run npm ci in web/"),
]

# Stand-ins for networks: what graph.py puts between preparation and head, with a filter and means in their place.
NETWORK = """
standin (uint8[batch, 28, 28] LOOK_prepared)
    => (float[batch, 26, 26] LOOK_evidence, float[batch, 28] LOOK_features, float[batch, 14, 14] LOOK_heat) <
  int64[1] channels = {1}, float bias = {-12.2}, float white = {255.0},
  float[2, 1, 3, 3] edges = {0.2, 1, 0.2, 0, 0, 0, -0.2, -1, -0.2, 0.3, 0, -0.3, 1, 0, -1, 0.3, 0, -0.3}
> {
  stored = Cast <to = 1> (LOOK_prepared)
  grey = Unsqueeze (stored, channels)
  contrast = Conv (grey, edges)
  strength = Relu (contrast)
  mean = ReduceMean <keepdims = 0> (strength, channels)
  LOOK_evidence = Add (mean, bias)
  LOOK_features = ReduceMean <keepdims = 0> (stored, channels)
  coarse = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (grey)
  flat = Squeeze (coarse, channels)
  LOOK_heat = Div (flat, white)
}
"""
# The stand-in for the logistic regression of the box.
BOX = """
standin (float[batch, 2] extents) => (float[batch, 1, 1] box_evidence) <
  float[2, 1] weights = {-0.1, 0.2}, int64[1] positions = {2}
> {
  logits = MatMul (extents, weights)
  box_evidence = Unsqueeze (logits, positions)
}
"""


def network(look: str, finds: bool) -> onnx.ModelProto:
    """A stand-in that looks at the frame or the window. Of one that finds lesions, heat is brightness."""
    model = onnx.parser.parse_model(graph.VERSIONS + NETWORK.replace("LOOK", look))
    if not finds:
        del model.graph.output[2:]
    return model


@cache
def assembled(view: str, unusual: bool) -> bytes:
    """A stand-in model without metadata. unusual: every image is more unusual than the 405 held-out ones, where else
    none is."""
    looks = ["frame", "window"] if view == "lesion" else ["frame"]
    held_out = np.full(405, 0 if unusual else np.inf, np.float32)
    fitted = Typicality(np.zeros((1, 1, 28), np.float32), np.eye(28, dtype=np.float32)[np.newaxis], held_out)
    networks = {look: network(look, view == "lesion" and look == "frame") for look in looks}
    networks["box"] = onnx.parser.parse_model(graph.VERSIONS + BOX)  # only the view lesion uses it
    return graph.assemble(networks, 28, view, fitted).SerializeToString()


def standin(view="square", unusual=False, lacks="", says="", **changed) -> bytes:
    """The file of a stand-in model, with some metadata changed (None leaves a key out). lacks: an output that is left
    out; says: another view, which its metadata claim."""
    model = onnx.load_model_from_string(assembled(view, unusual))
    kept = [output for output in model.graph.output if output.name != lacks]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    props = {
        "positive_class": "malignant", "threshold": str(THRESHOLD), "threshold_rule": "a rule", "input_size": "28",
        "dataset": "A + B, B", "intended_use": "research only, not a medical device", "version": "4",
        "view": says or view, "found_threshold": str(LEAST_FOUND), "typicality_threshold": "0.01",
        "chosen_on": json.dumps(CHOSEN_ON), "achieved": json.dumps([RATES, RATES | {"hospital": "A"}, WORST]),
    }  # fmt: skip
    onnx.helper.set_model_props(model, {key: text for key, text in (props | changed).items() if text is not None})
    return modelfile.serialized(model)


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
        "wide.png": encoded(grey.resize((990, 310))),
        "own_size.png": encoded(grey.resize((28, 28))),
        "smallest.png": encoded(grey.resize((8, 8))),
        "strip.png": encoded(grey.resize((9, 70))),
        "dark.png": encoded(grey.point(lambda level: level // 8)),
        "opaque.png": encoded(opaque),
        "palette.png": encoded(colour.quantize(64)),
        "one_bit.png": encoded(grey.convert("1")),
        "gamma.png": encoded(grey, pnginfo=gamma),
        "grey.jpg": encoded(grey, "jpeg", quality=90),
        "colour.jpg": encoded(colour, "jpeg", quality=90),
        "colour.bmp": encoded(colour, "bmp"),
    }


@cache
def spot() -> bytes:
    """A dark picture of 200×150 with a bright oval, which a stand-in takes for a lesion: 30 to 70 across, 60 to 90
    down."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 60, (150, 200), np.uint8))
    ImageDraw.Draw(picture).ellipse((30, 60, 70, 90), fill=250)
    return encoded(picture)


def grey_levels(content: bytes) -> np.ndarray:
    """A picture, uint8 [1, h, w], as Pillow reads it."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))[np.newaxis]


@cache
def session_of(model: bytes | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options)


def in_python(model: bytes | Path, content: bytes, box=None) -> dict[str, np.ndarray]:
    """What a model says of a picture, by name, without the batch."""
    session = session_of(model)
    inputs: dict[str, np.ndarray] = {"image": grey_levels(content)}
    inputs |= {"box": np.array([box], np.float32)} if box else {}
    names = [output.name for output in session.get_outputs()]
    return {name: values[0] for name, values in zip(names, session.run(None, inputs))}


class Handler(SimpleHTTPRequestHandler):
    """Serves files. Where `quarters` is a queue, each quarter of the model waits for a word in it: True sends it, False
    breaks the download off."""

    quarters: queue.Queue[bool] | None = None

    def copyfile(self, source, outputfile):
        if Handler.quarters is None or not self.path.endswith(DEFAULT):
            return super().copyfile(source, outputfile)
        content = source.read()
        edges = [len(content) * i // 4 for i in range(5)]
        for start, end in pairwise(edges):
            if not Handler.quarters.get(timeout=60):
                return
            outputfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[str]:
    """The address of the page, served from the folder that web/make_site.py writes."""
    folder = tmp_path_factory.mktemp("site")
    make_site.make_site(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
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
    """A function that opens the page: `model` is the file in the shipped one's place (SHIPPED: itself). In the end the
    page may have asked for nothing from elsewhere."""
    opened = []

    def open_page(model: bytes | Path, ready: bool = True, before=lambda page: None, **options):
        page = browser.new_page(**options)
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.add_init_script(
            "window.refused = []; addEventListener('securitypolicyviolation', (e) => refused.push(e.blockedURI))"
        )
        if model != SHIPPED:
            page.route("**/models/*.json", lambda route: route.fulfill(status=404))
            page.route(f"**/models/{DEFAULT}", lambda route: route.fulfill(body=model))
        before(page)
        page.goto(site)
        opened.append(page)
        if ready:
            expect(page.locator("#status")).to_have_text("Ready.")
        return page

    yield open_page
    for page in opened:
        own = (site.removesuffix("web/"), "blob:", "data:")
        assert all(url.startswith(own) for url in page.requested), page.requested
        page.close()


def says(page, place: str, text: str | re.Pattern):
    """Wait until a text stands in a place of the page, a CSS selector."""
    expect(page.locator(place)).to_contain_text(text)


def give(page, files: dict[str, bytes], label: str = IMAGES):
    given = [{"name": name, "mimeType": "", "buffer": content} for name, content in files.items()]
    page.get_by_label(label).set_input_files(given)


def choose(page, name: str, content: bytes | None = None):
    """Give the page a picture, of `pictures` where its content is not given, and wait for its answer."""
    give(page, {name: pictures()[name] if content is None else content})
    says(page, "#caption", name)
    answered(page)


def answered(page):
    """Wait until nothing is due."""
    expect(page.locator("#status")).to_have_text(re.compile(r"^(\d+) of \1 images? answered\.$"))


def saved(page, button: str) -> bytes:
    """A file that the page lets the browser save."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path()).read_bytes()


def table(page) -> list[dict]:
    return list(csv.DictReader(io.StringIO(saved(page, "Download as CSV").decode("utf-8-sig"))))


@pytest.mark.parametrize("view", ["square", "lesion", "shipped"])
def test_several_images_get_the_answers_of_onnxruntime_in_python(view, visit):
    """Number, call, window and certainty of every picture, by the table that the page saves."""
    model = SHIPPED if view == "shipped" else standin(view)
    page, calls = visit(model), set()
    about = session_of(model).get_modelmeta().custom_metadata_map
    give(page, pictures())
    answered(page)
    rows = table(page)
    assert [row["image"] for row in rows] == list(pictures())
    for row, content in zip(rows, pictures().values()):
        expected = in_python(model, content)
        call = "flagged for review" if expected["probability"] >= float(about["threshold"]) else "not flagged"
        if expected["typicality"] < 0.01:
            call = "unlike the training images"
        elif view == "lesion" and expected["found"] < LEAST_FOUND:
            call = "no lesion found"
        assert row["call"] == call, row
        if "flagged" in call:
            assert float(row["probability_uncorrected"]) == pytest.approx(expected["probability"], abs=1e-4), row
        else:
            assert row["probability"] == row["probability_uncorrected"] == ""
        calls.add(call)
        assert float(row["typicality"]) == pytest.approx(expected["typicality"], abs=0.01)
        window = [float(row[f"window_{side}"]) for side in ("x", "y", "width", "height")]
        if "window" in expected:
            assert window == pytest.approx(expected["window"].tolist()), row
            assert float(row["found"]) == pytest.approx(expected["found"], abs=1e-5)
        else:
            rows_, columns = imagefile.centre(*grey_levels(content).shape[1:])
            assert window == [columns.start, rows_.start, *[columns.stop - columns.start] * 2]
    assert calls >= ({"no lesion found"} if view == "lesion" else {"flagged for review"}), calls
    assert page.evaluate("refused") == [] and any(url.endswith(".wasm") for url in page.requested)


def test_policy_refuses_other_sites_inline_code_and_eval_also_in_the_worker(visit):
    page = visit(standin())
    page.evaluate("fetch('https://example.org/').catch(() => 0)")
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))")
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    evaluated = "new Promise((done) => setTimeout(() => { try { done(eval('1')) } catch (e) { done(e.name) } }, 100))"
    assert page.evaluate(evaluated) == "EvalError"
    assert page.evaluate("try { new Worker('worker.js') } catch (e) { e.name }") == "TypeError"
    refused = ["https://example.org/", "https://example.org/x.png", "inline"]
    assert set(page.evaluate("refused")) >= set(refused)
    (worker,) = page.workers
    assert worker.evaluate("fetch('https://example.org/w').then(() => 'sent', () => 'refused')") == "refused"
    page.requested = [url for url in page.requested if "example.org" not in url]


def test_a_page_inside_another_page_shows_nothing_to_click(site, browser):
    page = browser.new_page()
    page.goto(f"{site}examples/README.md")  # a page without a policy
    page.evaluate("document.body.append(Object.assign(document.createElement('iframe'), {src: '../'}))")
    inner = page.frame_locator("iframe")
    expect(inner.locator("#framed")).to_be_visible()
    expect(inner.locator("#main")).to_be_hidden()
    page.close()


def rectangle(page) -> list[int]:
    """x, y, width and height of the user's rectangle, as read aloud."""
    return [int(number) for number in re.findall(r"\d+", page.locator("#box").get_attribute("aria-label"))]


def shown_window(page) -> list[float]:
    """Where the window is drawn, in shares of the picture."""
    frame, window = (page.locator(part).bounding_box() for part in ("#frame", "#window"))
    scale = [frame["width"], frame["height"]] * 2
    place = [window["x"] - frame["x"], window["y"] - frame["y"], window["width"], window["height"]]
    return [length / side for length, side in zip(place, scale)]


def point(page, x: float, y: float) -> tuple[float, float]:
    """A place of the picture, given in its pixels, on the screen."""
    page.locator("#frame").scroll_into_view_if_needed()
    frame = page.locator("#frame").bounding_box()
    return frame["x"] + x * frame["width"] / 200, frame["y"] + y * frame["height"] / 150


def drag(page, start: tuple[float, float], end: tuple[float, float]):
    page.mouse.move(*point(page, *start))
    page.mouse.down()
    page.mouse.move(*point(page, *end), steps=5)
    page.mouse.up()


def check_answer(page, model: bytes, box):
    """The page's table and drawn window are those of the file for this box."""
    answered(page)
    expected, (row,) = in_python(model, spot(), box), table(page)
    window = [float(row[f"window_{side}"]) for side in ("x", "y", "width", "height")]
    assert window == pytest.approx(expected["window"].tolist()), row
    assert shown_window(page) == pytest.approx((expected["window"] / [200, 150, 200, 150]).tolist(), abs=0.01)
    drawn = [row[side] for side in ("x", "y", "width", "height")]
    assert drawn == [""] * 4 if box is None else [float(side) for side in drawn] == pytest.approx(box, abs=1)
    probability = expected["probability"]
    assert not row["probability"] or float(row["probability"]) == pytest.approx(probability, abs=1e-4)


def test_the_found_window_is_corrected_by_mouse_and_keyboard_and_the_answer_follows(visit):
    model = standin("lesion")
    page = visit(model, viewport={"width": 1280, "height": 900})
    choose(page, "spot.png", spot())
    check_answer(page, model, None)
    x, y, width, height = found = rectangle(page)
    assert 30 < x + width / 2 < 70 and 60 < y + height / 2 < 90
    drag(page, (100, 20), (160, 70))  # a new one
    assert rectangle(page) == pytest.approx([100, 20, 60, 50], abs=1)
    check_answer(page, model, rectangle(page))
    drag(page, (130, 40), (120, 60))  # moved
    assert rectangle(page) == pytest.approx([90, 40, 60, 50], abs=2)
    drag(page, (150, 90), (130, 110))  # by a corner
    assert rectangle(page) == pytest.approx([90, 40, 40, 70], abs=3)
    check_answer(page, model, rectangle(page))
    page.mouse.click(*point(page, 50, 75))  # the lesion is here
    x, y, width, height = rectangle(page)
    assert [x + width / 2, y + height / 2] == pytest.approx([50, 75], abs=2)
    for key, change in (("ArrowRight", [2, 0, 0, 0]), ("ArrowUp", [0, -2, 0, 0]), ("Shift+ArrowRight", [0, 0, 2, 0]),
                        ("Shift+ArrowUp", [0, 0, 0, -2])):  # fmt: skip
        before = rectangle(page)
        page.keyboard.press(key)
        assert rectangle(page) == np.add(before, change).tolist(), key
    check_answer(page, model, rectangle(page))
    says(page, "#announced", page.locator("#headline").inner_text())
    page.get_by_role("button", name="Back to what the model found").click()
    check_answer(page, model, None)
    assert rectangle(page) == found
    expect(page.get_by_role("button", name="Back to what the model found")).to_be_disabled()


def test_a_tap_marks_the_lesion_where_none_was_found(visit):
    model = standin("lesion")
    page = visit(model, has_touch=True, viewport={"width": 390, "height": 844})
    choose(page, "dark.png", encoded(Image.open(io.BytesIO(spot())).point(lambda level: level // 3)))
    expect(page.locator("#headline")).to_have_text("No answer.")
    says(page, "#estimate", "The model found no lesion in this image.")
    for part in ("#scale", "#shares"):
        expect(page.locator(part)).to_be_hidden()
    page.touchscreen.tap(*point(page, 50, 75))
    says(page, "#estimate", "Estimated probability of malignancy")
    x, y, width, height = rectangle(page)
    assert [x + width / 2, y + height / 2] == pytest.approx([50, 75], abs=3)
    picture = np.asarray(Image.open(io.BytesIO(saved(page, "Download the picture"))).convert("RGB")).astype(int)
    yellow = np.argwhere((np.abs(picture - [255, 224, 102]) < 30).all(2))[:, ::-1] / (640 / 200)
    assert [*yellow.min(0), *yellow.max(0)] == pytest.approx([x, y, x + width, y + height], abs=1)


def test_evidence_lies_where_predict_draws_it(visit):
    model = standin("lesion")
    page = visit(model, viewport={"width": 1280, "height": 900})
    choose(page, "spot.png", spot())
    given = in_python(model, spot())
    script = "(c) => [c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    for look, window, values in (
        (None, given["window"], given["evidence"]),
        ("the whole picture", [0, 0, 200, 150], given["evidence_frame"]),
    ):
        if look:
            page.get_by_label(look).check()
        width, *rgba = page.locator("#overlay").evaluate(script)
        painted = np.uint8(rgba).reshape(-1, width, 4)
        x, y, across, down = np.rint(window).astype(int)
        placed = evidence.place(values, down, across, [0, 0, across, down])
        assert painted.shape[:2] == placed.shape
        opacity = 255 * np.clip(np.abs(placed) / FULL, 0, 1)
        assert np.abs(painted[:, :, 3] - opacity).max() <= 1.5
        strong = opacity > 100
        assert np.array_equal((painted[:, :, 0] > painted[:, :, 2])[strong], (placed > 0)[strong]) and strong.any()
    page.get_by_label("Strength of the colours").fill("100")
    assert page.locator("#overlay").evaluate("(c) => getComputedStyle(c).opacity") == "1"
    says(page, "#where", re.compile("strongest in the .* part of the picture"))
    picture = Image.open(io.BytesIO(saved(page, "Download the picture")))
    assert picture.width == 640 and picture.height > 480  # the picture enlarged, and words below
    assert np.asarray(picture.convert("L"))[:480].std() > 10


def test_a_file_that_chose_nothing_answers_for_its_middle_square(visit):
    page = visit(standin(chosen_on="{}", achieved="[]"))
    choose(page, "landscape.png")
    assert shown_window(page) == pytest.approx([(99 // 2) / 240, 0, 141 / 240, 1], abs=0.01)
    says(page, "#looked", f"The model did not look outside the square: 41{NBSP}% of the picture.")
    says(page, "#estimate", "if cancer is as common among your patients as in the model’s own images.")
    says(page, "#rates", "is not known")
    for part in ("#looks", "#correct", "#shares"):
        expect(page.locator(part)).to_be_hidden()


def test_words_of_an_answer_and_the_share_of_cancers(visit):
    model = standin("frame")
    page, probability = visit(model), float(in_python(model, pictures()["portrait.png"])["probability"])
    choose(page, "portrait.png")
    assert probability > THRESHOLD
    expect(page.locator("#headline")).to_have_text("Flagged for review.")
    words = f"Estimated probability of malignancy {probability:.0%}, if about 30 of 100 of your patients have cancer."
    expect(page.locator("#estimate")).to_have_text(words.replace("%", f"{NBSP}%"))
    rates = page.locator("#rates").inner_text()
    assert rates.startswith(f"At hospitals that it had not seen, the model missed 5 of 100 malignant images (95{NBSP}%")
    assert "interval 0 to 19). It flagged 39 of 100 other images by mistake (95" in rates
    assert rates.endswith("At the worst of these 2 hospitals it missed 13 of 100.")
    says(page, "#announced", "Flagged for review. Estimated probability")
    level = page.locator("#result").get_attribute("data-level")
    page.get_by_label("Of 100 of your patients").fill("0.7")
    odds = probability / (1 - probability) * (0.007 / 0.993) / (0.3 / 0.7)
    says(page, "#estimate", "if about 7 of 1000 of your patients have cancer.")
    (row,) = table(page)
    assert float(row["probability"]) == pytest.approx(odds / (1 + odds), abs=1e-4)
    assert row["call"] == "flagged for review" and row["share_of_cancers"] == "0.007"
    page.get_by_label("Of 100 of your patients").fill("100")
    says(page, "#share-error", "Enter a number from 0.1 to 99.")
    says(page, "#estimate", "30 of 100")
    assert level in ("low", "high")
    answer = page.locator(".answer").inner_text()
    assert not re.search("log-odds|threshold|\\.png|\\.onnx|a rule|P\\(|B, B", answer), answer


def test_a_file_for_another_share_of_cancers_says_this_share(visit):
    page = visit(standin("frame", chosen_on=json.dumps(CHOSEN_ON | {"prevalence": 0.05})))
    choose(page, "portrait.png")
    says(page, "#estimate", "if about 5 of 100 of your patients have cancer.")


def test_an_image_unlike_those_of_training_or_not_flagged(visit):
    page = visit(standin(unusual=True))
    choose(page, "portrait.png")
    expect(page.locator("#headline")).to_have_text("No answer.")
    says(page, "#estimate", "This image is unlike the images that the model learned from.")
    for part in ("#scale", "#rates", "#meaning", "#shares"):
        expect(page.locator(part)).to_be_hidden()
    assert "%" not in page.locator(".answer").inner_text()
    within = json.dumps(CHOSEN_ON | {"hospital_left_out": False})
    give(page, {"other.onnx": standin(threshold="1", chosen_on=within)}, ANOTHER_MODEL)
    expect(page.locator("#headline")).to_have_text("Not flagged.")
    expect(page.locator("#result")).to_have_attribute("data-level", "none")
    says(page, "#meaning", "Not flagged does not mean that there is no cancer.")
    says(page, "#rates", "At a hospital that it has not seen, it can be wrong more often.")
    fitted = json.dumps(CHOSEN_ON | {"on": "calibration", "hospital_left_out": False, "unit": "patient"})
    give(page, {"mine.onnx": standin(threshold="1", chosen_on=fitted)}, ANOTHER_MODEL)
    says(page, "#rates", "At the hospital that the file was fitted to, the model missed 5 of 100 patients with cancer")
    says(page, "#rates", "At another hospital, it can be wrong more often.")


def test_phantoms_and_models_of_phantoms_say_what_they_are(visit):
    page = visit(standin())
    page.get_by_role("button", name="no lesion").click()
    says(page, "#caution", "generated, not ultrasound. The answer means nothing.")
    page.locator("[data-image='examples/benign.png']").click()
    expect(page.locator("#caution")).to_be_empty()
    page.locator("[data-image='examples/benign.png']").click()  # is not added again
    answered(page)
    assert [row["image"] for row in table(page)] == ["phantom no_lesion.png", "example benign.png"]
    give(page, {"own.onnx": standin(dataset="PHANTOM data (generated, not ultrasound)")}, ANOTHER_MODEL)
    says(page, "#synthetic", "learned from generated pictures")
    says(page, "#caution", "The model has only seen generated pictures.")


BAD = {
    "its threshold is “high”": {"threshold": "high"}, "its threshold is “1.5”": {"threshold": "1.5"},
    "its threshold is “”": {"threshold": ""}, "its threshold is “NaN”": {"threshold": "NaN"},
    "it has no threshold": {"threshold": None}, "its input_size is “100000”": {"input_size": "100000"},
    "its input_size is “28.5”": {"input_size": "28.5"}, "its view is “whole”": {"says": "whole"},
    "its version is “3”, and this page takes version 4. Ask whoever made the file to export it again.": {
        "version": "3", "achieved": None},
    "its version is “5”": {"version": "5"}, "it has no version, and": {"version": None, "view": None},
    "its positive_class is “benign”": {"positive_class": "benign"},
    "its typicality_threshold is “rare”": {"typicality_threshold": "rare"},
    "it has no typicality_threshold": {"typicality_threshold": None},
    "its chosen_on cannot be read": {"chosen_on": '{"n": 3, "malignant": 4}'},
    "its achieved cannot be read": {"achieved": json.dumps([RATES | {"recall": 95}])},
}  # fmt: skip


def test_a_bad_model_file_is_refused_as_a_whole(visit):
    page = visit(standin())
    choose(page, "portrait.png")
    files = {message: standin(**changed) for message, changed in BAD.items()}
    files |= {
        "it has no found_threshold": standin("lesion", found_threshold=None),
        "its output window is missing": standin("lesion", lacks="window"),
        "its output found is missing": standin(lacks="found"),
        "its input box is missing": standin(says="lesion"),
        "its output evidence_frame is missing": standin("lesion", lacks="evidence_frame"),
        "its output evidence_frame is missing or does not fit": standin("lesion", says="square"),
        "it has no chosen_on, achieved": standin(chosen_on=None, achieved=None),
        "it is no .onnx file": b"<!DOCTYPE html><p>not found",
        "the file ends too early": standin()[:900],
    }
    for message, content in files.items():
        give(page, {"bad.onnx": content}, ANOTHER_MODEL)
        says(page, "[role=alert]#error", f"bad.onnx is not a model that this page can use: {message}")
        expect(page.locator("#result")).to_be_hidden()
        expect(page.locator("#details")).to_be_hidden()
        assert page.locator("#about").inner_text() == "No model is loaded."
        assert page.locator("#rows").inner_text().split("\t")[1] == "waiting"
    page.get_by_role("button", name="Use this page’s own model").click()
    says(page, "#estimate", "Estimated probability")  # of the image that waited
    expect(page.get_by_role("alert").first).to_be_empty()


def test_files_that_hold_no_single_image_are_answered_in_words(visit):
    page, grey = visit(standin()), Image.new("L", (30, 30))
    frames = {"save_all": True, "append_images": [Image.new("L", (30, 30), 99)]}
    deep = Image.fromarray(np.full((30, 30), 4095, np.uint16))
    wrong = {
        "film.gif": (encoded(grey, "gif"), "is a GIF, which can hold several frames. Save the image"),
        "scan": (b"\0" * 128 + b"DICM" + b"\0" * 99, "is a DICOM file that is damaged, or that begins without"),
        "pages.tif": (encoded(grey, "tiff"), "is a TIFF file, which can hold several pages."),
        "moving.png": (encoded(grey, "png", **frames), "holds several frames."),
        "moving.webp": (encoded(grey.convert("RGB"), "webp", **frames), "holds several frames."),
        "deep.png": (encoded(deep), "holds 16 bits per pixel"),
        "notes.txt": (b"no image", "is not an image that this browser can read. PNG, JPEG, WebP, BMP and DICOM work."),
        "thin.png": (encoded(Image.new("L", (300, 7))), "has 300×7 pixels; the model needs 8×8 or more."),
        "huge.png": (
            encoded(Image.new("1", (10000, 5001))),
            "has 10000×5001 pixels; this page reads up to 50 million.",
        ),
    }
    give(page, {name: content for name, (content, _) in wrong.items()} | {"=1+1.png": pictures()["portrait.png"]})
    answered(page)
    for name, (_, message) in wrong.items():
        page.get_by_role("button", name=name).click()
        expect(page.locator("#problem")).to_contain_text(f"{name} {message}")
        expect(page.locator("#result")).to_be_hidden()
    page.get_by_role("button", name="=1+1.png").click()
    says(page, "#estimate", "Estimated probability")
    assert {row["call"] for row in table(page)[:-1]} == {"cannot be read"} and table(page)[-1]["image"] == "'=1+1.png"
    page.get_by_role("button", name="Empty the list").click()
    expect(page.locator("#list")).to_be_hidden()


def dicom(pixels: bytes, grey: np.ndarray, jpeg: bool = False, implicit: bool = False, **elements) -> bytes:
    """A DICOM file of 8 bits. grey: an array of the picture's height and width."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install pydicom")
    uid, dataset = pydicom.uid, pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    plain = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit if jpeg else plain
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.UltrasoundImageStorage, uid.generate_uid()
    dataset.Rows, dataset.Columns = grey.shape
    about = {"PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1, "PixelRepresentation": 0}
    about |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7} | elements
    for name, value in about.items():
        setattr(dataset, name, value)
    dataset.PixelData = pydicom.encaps.encapsulate([pixels]) if jpeg else pixels
    dataset["PixelData"].is_undefined_length = jpeg
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def test_dicom_files_get_the_answers_of_python(visit, tmp_path):
    """One picture of 8 bits, uncompressed or as JPEG; every other file is answered in words."""
    grey = np.asarray(Image.open(io.BytesIO(pictures()["portrait.png"])))
    colour = np.asarray(Image.open(io.BytesIO(pictures()["colour.jpg"])).convert("RGB"))
    rgb = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}
    window = {"WindowCenter": "100", "WindowWidth": "150"}
    files = {
        "grey": dicom(grey.tobytes(), grey),
        "implicit": dicom(grey.tobytes(), grey, implicit=True),
        "also TIFF": b"II*\0" + dicom(grey.tobytes(), grey)[4:],
        "inverted": dicom((255 - grey).tobytes(), grey, PhotometricInterpretation="MONOCHROME1"),
        "windowed": dicom(grey.tobytes(), grey, **window),
        "rgb": dicom(colour.tobytes(), colour[..., 0], PlanarConfiguration=0, **rgb),
        "planes": dicom(colour.transpose(2, 0, 1).tobytes(), colour[..., 0], PlanarConfiguration=1, **rgb),
        "jpeg": dicom(encoded(Image.fromarray(grey), "jpeg", quality=95), grey, jpeg=True),
        "jpeg colour": dicom(
            pictures()["colour.jpg"], colour[..., 0], jpeg=True,
            **rgb | {"PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0},
        ),
    }  # fmt: skip
    refused = {
        "film": (
            dicom(grey.tobytes() * 2, grey, NumberOfFrames=2),
            "is a DICOM file that holds 2 frames. Save the",
        ),
        "deep": (
            dicom(grey.astype(np.uint16).tobytes(), grey, BitsAllocated=16, BitsStored=12, HighBit=11),
            "is a DICOM file that does not hold 8 bits per pixel.",
        ),
        "palette": (
            dicom(grey.tobytes(), grey, PhotometricInterpretation="PALETTE COLOR"),
            "is a DICOM file that is stored in a way that this page does not read.",
        ),
        "windowed jpeg": (
            dicom(encoded(Image.fromarray(grey), "jpeg"), grey, jpeg=True, **window),
            "is a DICOM file that has grey levels that this page cannot show.",
        ),
        "short": (dicom(grey.tobytes()[:-400], grey), "is a DICOM file that ends too early."),
        "cut.dcm": (files["grey"][128:], "is a DICOM file that is damaged, or that begins without its preamble."),
    }
    model = standin("lesion")
    page = visit(model)
    give(page, files | {name: content for name, (content, _) in refused.items()})
    answered(page)
    rows = {row["image"]: row for row in table(page)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        expected = in_python(model, encoded(Image.fromarray(next(imagefile.frames(tmp_path / name)))))
        row, tolerance = rows[name], 5e-3 if "jpeg" in name else 1e-4  # decoders of JPEG differ by a grey level
        assert float(row["found"]) == pytest.approx(expected["found"], abs=tolerance), name
        if row["probability_uncorrected"]:
            assert float(row["probability_uncorrected"]) == pytest.approx(expected["probability"], abs=tolerance), name
    assert sum(bool(rows[name]["probability_uncorrected"]) for name in files) >= 5
    for name, (_, message) in refused.items():
        assert rows[name]["call"] == "cannot be read"
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.locator("#problem")).to_contain_text(f"{name} {message}")


def test_a_model_that_does_not_arrive_can_be_fetched_again(visit):
    answers = [{"status": 404}, {"body": standin()}, {"body": standin()}]
    sums = [{"body": json.dumps({"sha256": "0" * 64})}, {"status": 404}]

    def before(page):
        page.route(f"**/models/{DEFAULT}", lambda route: route.fulfill(**answers.pop(0)))
        page.route("**/models/*.json", lambda route: route.fulfill(**sums.pop(0)))

    page = visit(standin(), ready=False, before=before)
    says(page, "#error", "The model could not be loaded. Check your connection, then try again.")
    give(page, {"portrait.png": pictures()["portrait.png"]})
    expect(page.get_by_role("row", name="portrait.png")).to_contain_text("waiting")
    page.get_by_role("button", name="Try again").click()
    says(page, "#error", "The model arrived damaged: its checksum differs.")
    page.get_by_role("button", name="Try again").click()
    says(page, "#estimate", "Estimated probability")
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    page.route("**/node_modules/**", lambda route: route.fulfill(status=404))
    answers.append({"body": standin()})
    sums.append({"status": 404})
    page.reload()
    says(page, "#error", "A part of this page could not be loaded. Check your connection, then try again.")


def test_a_slow_download_shows_how_much_has_arrived_and_starts_again_after_it_broke_off(visit, monkeypatch):
    monkeypatch.setattr(Handler, "quarters", sent := queue.Queue())
    page, size = visit(SHIPPED, ready=False), SHIPPED.stat().st_size

    def arrives(quarters: int):
        says(page, "#loaded", f"{quarters * size // 4 / 1e6:.1f} of {size / 1e6:.1f} MB")
        bar = page.get_by_role("progressbar", name="Loading the model")
        assert bar.evaluate("(bar) => bar.position") == pytest.approx(quarters / 4, abs=1e-3)

    expect(page.locator("#status")).to_have_text("Loading the model…")
    arrives(0)
    for quarter in (1, 2):
        sent.put(True)
        arrives(quarter)
    sent.put(False)
    says(page, "#error", "The model could not be loaded. Check your connection, then try again.")
    expect(page.locator("#loading")).to_be_hidden()
    page.get_by_role("button", name="Try again").click()
    arrives(0)
    for quarter in (1, 2, 3):
        sent.put(True)
        arrives(quarter)
    sent.put(True)
    expect(page.locator("#status")).to_have_text("Ready.")
    expect(page.locator("#loading")).to_be_hidden()
    expect(page.get_by_role("alert").first).to_be_empty()


def test_of_two_models_the_one_chosen_last_is_used(visit):
    waiting = []
    page = visit(
        standin(),
        ready=False,
        before=lambda page: page.route(f"**/models/{DEFAULT}", lambda route: waiting.append(route)),
    )
    expect(page.locator("#status")).to_have_text("Loading the model…")
    give(page, {"other.onnx": standin(threshold="0.5", dataset="busi + mine")}, ANOTHER_MODEL)
    choose(page, "portrait.png")
    waiting.pop().fulfill(body=standin())
    page.wait_for_timeout(300)
    says(page, "#about", "other.onnx: research only")
    says(page, "#about", "learned from BUSI (Egypt), mine.")


def test_the_page_works_on_while_the_model_computes(visit):
    """Timers of the page fire between the question to the worker and its answer."""
    script = """window.ticks = 0;
      window.between = [];
      setInterval(() => ticks++, 1);
      const post = Worker.prototype.postMessage;
      Worker.prototype.postMessage = function (message, ...rest) {
        const asked = ticks;
        const answered = () => between.push(ticks - asked);
        if (message[1] === "predict") this.addEventListener("message", answered, { once: true });
        post.call(this, message, ...rest);
      };"""
    page = visit(SHIPPED, before=lambda page: page.add_init_script(script))
    give(page, {name: pictures()[name] for name in ("landscape.png", "wide.png")})
    answered(page)
    ticks = page.evaluate("between")
    assert len(ticks) == 2 and min(ticks) > 0, ticks


def test_altered_pixels_are_an_error(visit):
    page = visit(standin(), before=lambda page: page.add_init_script(
        "const read = OffscreenCanvasRenderingContext2D.prototype.getImageData;"
        "OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...box) {"
        "  const image = read.apply(this, box); image.data[40] ^= 1; return image; }"
    ))  # fmt: skip
    give(page, {"portrait.png": pictures()["portrait.png"]})
    says(page, "#problem", "This browser alters the pixels")


def test_names_of_rows_in_a_report_are_not_broken_into_letters_on_a_phone(browser):
    (style,) = re.findall("<style>.*</style>", (REPO / "common/show/report.html").read_text(encoding="utf-8"), re.S)
    page = browser.new_page(viewport={"width": 390, "height": 844})
    cells = "<td>0.7375\n[.731 .750]</td>" * 8
    page.set_content(f'{style}<div class="scroll"><table><tr><th scope="row">clean test</th>{cells}</tr></table></div>')
    assert page.locator("th").bounding_box()["height"] < 60  # pixels: two lines
    page.close()


def hand_over(page, kind: str, name: str, content: bytes):
    """Paste or drop a file."""
    script = """([kind, name, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], name));
      const Kind = { paste: ClipboardEvent, drop: DragEvent }[kind];
      document.body.dispatchEvent(new Kind(kind, { clipboardData: data, dataTransfer: data, bubbles: true }));
    }"""
    page.evaluate(script, [kind, name, list(content)])


def test_everyone_can_use_it(visit):
    """axe-core finds nothing in light and dark; no width needs scrolling sideways; the keyboard reaches everything."""
    axe = (MODULES / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    page = visit(standin("lesion"), before=lambda page: page.add_init_script(axe), reduced_motion="reduce")
    hand_over(page, "paste", "pasted.png", spot())
    hand_over(page, "drop", "dropped.png", pictures()["wide.png"])
    says(page, "#caption", "dropped.png")
    answered(page)
    page.locator("summary").click()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for picture in ("pasted.png", "dropped.png"):
            page.get_by_role("button", name=picture).click()
            says(page, "#caption", picture)
            found = page.evaluate(
                "axe.run().then(({violations}) => violations.map(({id, nodes}) => [id, nodes[0].html]))"
            )
            assert found == []
    for width in (320, 390, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
    page.locator("#file").focus()
    reached = ["file"]
    while reached[-1] != "model-file" and len(reached) < 40:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.image || ''"))
        ring = "(e) => getComputedStyle(e.type === 'file' ? e.nextElementSibling : e).outlineStyle"
        assert page.evaluate_handle("document.activeElement").evaluate(ring) == "solid", reached
    assert {"csv", "share", "box", "opacity", "png", "examples/normal.png", "phantoms/benign.png"} <= set(reached)
