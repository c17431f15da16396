// The page: an image in, P(malignant) and what it means out. Nothing is sent anywhere.

import { download, open, predict } from "./model.js";
import { centreSquare, grey, prepare } from "./preparation.js";

const DEFAULT_MODEL = new URL("../models/breastmnist.onnx", import.meta.url);
const MIN_SIDE = 8; // pixels; what the model's graph takes
const MAX_PIXELS = 50e6; // a canvas of more fails in some browsers
const AS_STORED = { premultiplyAlpha: "none", colorSpaceConversion: "none" }; // but upright, as EXIF says

const $ = (id) => document.getElementById(id);
const page = { model: null, image: null, turn: 0 }; // model: a promise; turn: number of the last choice, which counts

// ---- an image file to grey pixels

/** Throws where the browser alters what a page reads from a canvas, as some do against fingerprinting. */
function checkReadback() {
  const context = new OffscreenCanvas(32, 32).getContext("2d");
  const written = new ImageData(Uint8ClampedArray.from({ length: 4096 }, (_, i) => (i % 4 === 3 ? 255 : i * 7)), 32);
  context.putImageData(written, 0, 0);
  const read = context.getImageData(0, 0, 32, 32).data;
  if (read.some((value, i) => value !== written.data[i])) {
    throw new Error("This browser alters the pixels that a page reads, as a protection against tracking; the result " +
      "would be wrong. Allow canvas access for this page, or use another browser.");
  }
}

function checkSize(name, { width, height }) {
  const size = `${name} has ${width}×${height} pixels`;
  if (Math.min(width, height) < MIN_SIDE) throw new Error(`${size}; the model needs ${MIN_SIDE}×${MIN_SIDE} or more.`);
  if (width * height > MAX_PIXELS) throw new Error(`${size}; this page reads up to ${MAX_PIXELS / 1e6} million.`);
}

/** Decode an image file. Returns: {name, canvas, pixels, width, height, notes, phantom}. Throws: Error for the user. */
async function read(blob, name, phantom) {
  const bitmap = await createImageBitmap(blob, AS_STORED).catch(() => {
    throw new Error(`${name} is not an image that this browser can read. PNG, JPEG, WebP and BMP work; for TIFF and ` +
      "DICOM there is predict.py.");
  });
  const { width, height } = bitmap;
  checkSize(name, bitmap);
  checkReadback();
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const pixels = grey(rgba);
  const colour = pixels.some((value, i) => rgba[4 * i] !== value || rgba[4 * i + 2] !== value);
  const transparent = pixels.some((_, i) => rgba[4 * i + 3] < 255);
  const notes = [colour && "colour turned grey", transparent && "transparency ignored"].filter(Boolean);
  return { name, canvas, pixels, width, height, notes, phantom };
}

// ---- words

/** Both numbers with as few decimals, three or more, as tell them apart. */
function apart(a, b) {
  for (let digits = 3; ; digits++) {
    const texts = [a.toFixed(digits), b.toFixed(digits)];
    if (texts[0] !== texts[1] || digits === 8) return texts;
  }
}

function called({ classes, props, threshold }, probability) {
  return classes.find((name) => (name === props.positive_class) === (probability >= threshold));
}

function compared(model, probability) {
  const [p, threshold] = apart(probability, model.threshold);
  const side = p === threshold ? "at" : probability > model.threshold ? "above" : "below";
  return `P(${model.props.positive_class}) = ${p}, ${side} the operating point ${threshold} ` +
    `(${model.props.threshold_rule}): `;
}

function calibrated({ props }, probability) {
  const percent = Math.round(100 * probability);
  const share = percent < 1 ? "fewer than 1" : percent > 99 ? "more than 99" : `about ${percent}`;
  const on = props.calibrated_on ? ` on ${props.calibrated_on}` : "";
  return `The probability is calibrated${on}: of 100 images like those with this probability, ${share} ` +
    `${percent > 1 ? "are" : "is"} ${props.positive_class}.`;
}

const synthetic = ({ props }) => props.dataset.startsWith("PHANTOM");

function caution(model, image) {
  if (image.phantom === synthetic(model)) return "";
  if (image.phantom) return "This image is a phantom: generated, not ultrasound. The number means nothing.";
  return "The model has only seen phantoms: its number means nothing for ultrasound.";
}

/** A figure of the model's stored metrics with its interval, or "" where it is not stored. */
function measured(name, metrics, key) {
  if (typeof metrics[key] !== "number") return "";
  const interval = metrics[`${key}_ci95`]?.map((value) => value.toFixed(3)).join(" to ");
  return `${name} ${metrics[key].toFixed(3)}${interval ? ` (${interval})` : ""}`;
}

function about({ props, size, name }) {
  const test = parsed(props.metrics)?.test ?? {};
  const figures = [measured("AUC", test, "auc"), measured("accuracy", test, "accuracy")].filter(Boolean);
  const whose = props.metrics_of ? `, with ${props.metrics_of}` : "";
  const tested = figures.length
    ? ` On ${test.n} test images${whose}: ${figures.join(", ")}; 95 % intervals in brackets.`
    : "";
  return `${name}, ${props.intended_use}. It takes any grey image, cuts out the middle square and reads it at ` +
    `${size}×${size} pixels. Trained on ${props.dataset}.${tested}`;
}

// ---- onto the page

/** The value of a JSON object or array in the metadata; undefined for other text. */
function parsed(text = "") {
  try {
    return /^[[{]/.test(text) ? JSON.parse(text) : undefined;
  } catch {
    return undefined;
  }
}

/** JSON on several lines, each list on one. */
function indented(json) {
  return JSON.stringify(json, null, 2).replace(/\[[^[\]{]*\]/g, (list) => list.replace(/\s+/g, " "));
}

function metadataRow([key, text]) {
  const row = document.createElement("tr");
  const [name, value] = [document.createElement("th"), document.createElement("td")];
  name.scope = "row";
  name.textContent = key;
  const json = parsed(text);
  value.textContent = json ? indented(json) : text;
  row.append(name, value);
  return row;
}

function showModel(model) {
  const phantoms = `Trained on ${model.props.dataset}: a model to try the page with, no more.`;
  $("synthetic").textContent = synthetic(model) ? phantoms : "";
  $("about").textContent = about(model);
  $("model-name").textContent = model.name;
  $("metadata").replaceChildren(...Object.entries(model.props).map(metadataRow));
  $("details").hidden = false;
}

/** The image as given, with the square that the model reads outlined. */
function showGiven({ name, canvas, width, height, notes }) {
  const { left, top, side } = centreSquare({ width, height });
  const crop = { left: left / width, top: top / height, across: side / width, down: side / height };
  const shares = Object.entries({ ratio: width / height, ...crop });
  for (const [key, share] of shares) $("given").style.setProperty(`--${key}`, share);
  canvas.className = side < 100 ? "pixels" : "";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `The image ${name}`);
  $("given").replaceChildren(canvas, $("crop"));
  $("crop").hidden = width === height;
  const outlined = width === height ? [] : ["the model’s square outlined"];
  $("given-caption").textContent = [`${name}: ${width}×${height}`, ...notes, ...outlined].join(", ");
}

/** The image as it reaches the network. */
function showSeen(image, size) {
  const { pixels } = prepare(image, size);
  const rgba = Uint8ClampedArray.from({ length: 4 * pixels.length }, (_, i) => (i % 4 === 3 ? 255 : pixels[i >> 2]));
  const canvas = Object.assign($("seen"), { width: size, height: size });
  canvas.getContext("2d").putImageData(new ImageData(rgba, size), 0, 0);
  canvas.setAttribute("aria-label", `The same at ${size}×${size} pixels`);
  $("seen-caption").textContent = `As the model sees it: ${size}×${size}`;
}

function showResult(model, image, probability) {
  const [p, threshold] = apart(probability, model.threshold);
  $("probability").value = probability;
  $("probability").textContent = p;
  $("mark-label").textContent = `operating point ${threshold}`;
  $("bar").style.setProperty("--probability", probability);
  $("bar").style.setProperty("--threshold", model.threshold);
  $("result").classList.toggle("positive", probability >= model.threshold);
  showGiven(image);
  showSeen(image, model.size);
  $("result").hidden = false;
  $("compared").textContent = compared(model, probability);
  $("called").textContent = `called ${called(model, probability)}.`;
  $("caution").textContent = caution(model, image);
  $("calibrated").textContent = $("caution").textContent ? "" : calibrated(model, probability);
  $("announced").textContent = `${$("statement").textContent} ${$("caution").textContent}`;
}

function say(status, error = "") {
  $("status").textContent = status;
  $("error").textContent = error;
}

// ---- what the user does

/** Run what the user chose last: its errors and its result are shown unless something newer was chosen meanwhile. */
async function take(turn, job) {
  try {
    const show = await job();
    if (turn === page.turn) show();
  } catch (error) {
    if (turn !== page.turn) return;
    $("result").hidden = true;
    say("", error.message);
  }
}

/** Answer for the image on the page, once the model is there. */
async function answer(image) {
  const model = await page.model;
  const probability = await predict(model, image);
  return () => {
    showResult(model, image, probability);
    say("");
    $("result").scrollIntoView({ block: "nearest" });
  };
}

function chooseImage(name, phantom, blob) {
  const turn = ++page.turn;
  page.image = null;
  say(`Reading ${name}…`);
  take(turn, async () => {
    const image = await read(await blob, name, phantom);
    if (turn === page.turn) {
      page.image = image; // for another model, if this one fails
      say("Waiting for the model…");
    }
    return answer(image);
  });
}

function chooseModel(name, bytes) {
  const [previous, opening] = [page.model, bytes.then((array) => open(array, name))];
  page.model = opening;
  opening.then(
    (model) => page.model === opening && showModel(model),
    () => page.model === opening && previous && (page.model = previous),
  );
  say(`Loading ${name}…`);
  take(++page.turn, async () => {
    await opening;
    return page.image ? answer(page.image) : () => say(`${name} is ready.`);
  });
}

function chooseFile(file) {
  if (!file) return;
  if (file.name.endsWith(".onnx")) chooseModel(file.name, file.arrayBuffer().then((buffer) => new Uint8Array(buffer)));
  else chooseImage(file.name, false, file);
}

function listen() {
  for (const input of [$("file"), $("model-file")]) {
    input.addEventListener("change", () => {
      chooseFile(input.files[0]);
      input.value = ""; // the same file can be chosen again
    });
  }
  for (const button of document.querySelectorAll("[data-phantom]")) {
    const name = button.dataset.phantom;
    const fetched = async () => (await fetch(`phantoms/${name}`)).blob();
    button.addEventListener("click", () => chooseImage(name, true, fetched()));
  }
  addEventListener("paste", (event) => chooseFile(event.clipboardData.files[0]));
  addEventListener("dragover", (event) => {
    event.preventDefault(); // says that a drop is welcome
    $("drop").classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    chooseFile(event.dataTransfer.files[0]);
  });
}

$("unstarted").remove();
listen();
chooseModel("breastmnist.onnx", download(DEFAULT_MODEL));
