// The page: an image in; P(malignant), what it means and where it comes from out. Nothing is sent anywhere.

import { download, open, parsed, predict } from "./model.js";
import { centreSquare, enlarge, grey, prepare } from "./preparation.js";

const DEFAULT_MODEL = "breast_ultrasound_128.onnx"; // in ../models
const OTHER_HOSPITALS = "At other hospitals the file can miss more: at a third hospital the files of this project " +
  "found 66 to 97 % of the malignant images where 95 % were promised."; // README, “Which model to take”
const MIN_SIDE = 8; // pixels; what the model's graph takes
const MAX_PIXELS = 50e6; // a canvas of more fails in some browsers
const MAX_MAP_SIDE = 512; // pixels of the evidence map, which the browser enlarges to what is on the screen
const [MALIGNANT, BENIGN, FULL, OPACITY] = [[213, 94, 0], [0, 114, 178], 6, 0.65]; // of evidence: common/evidence.py
const NINTHS = "upper left,top,upper right,left,middle,right,lower left,bottom,lower right".split(",");
const AS_STORED = { premultiplyAlpha: "none", colorSpaceConversion: "none" }; // but upright, as EXIF says

const $ = (id) => document.getElementById(id);
// model: a promise; usable: the model whose text is on the page; turn: number of the last choice, which counts
const page = { model: null, usable: null, image: null, turn: 0 };

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

function compared(model, probability) {
  const [p, threshold] = apart(probability, model.threshold);
  const side = p === threshold ? "at" : probability > model.threshold ? "above" : "below";
  return `P(${model.props.positive_class}) = ${p}, ${side} the operating point ${threshold}: `;
}

/** The images that chose the operating point; "" where the file does not say. */
function chosenBy({ chosenOn }) {
  if (!chosenOn?.hospitals) return "";
  return `${chosenOn.n} images of ${chosenOn.hospitals.join(" + ")} chose the operating point, ` +
    `${chosenOn.malignant} of them malignant.`;
}

/** What the operating point achieves on images that did not choose it; "" where the file does not say. */
function expectedRates({ expected, chosenOn, props }) {
  const rates = [measured("sensitivity", expected, "recall"), measured("specificity", expected, "specificity")];
  if (!rates.every(Boolean)) return "";
  const how = chosenOn?.hospital_left_out
    ? "at each hospital with the threshold that the others choose"
    : "by cross-validation within the images that chose the threshold";
  return `Expected at this threshold: ${rates.join(", ")}; 95 % intervals in brackets. The rates were measured ${how}` +
    `${withFile(props)}. Sensitivity is the share of malignant images that are flagged, specificity the share of the ` +
    "others that are not.";
}

/** What the operating point means, with what the file knows of it and what happened at other hospitals. */
function promise(model) {
  const rule = `Operating point: ${model.props.threshold_rule}.`;
  const sentences = [rule, chosenBy(model), expectedRates(model), synthetic(model) ? "" : OTHER_HOSPITALS];
  return sentences.filter(Boolean).join(" ");
}

/** Why there is no call. */
function unlike({ props, rare }, { probability, typicality }) {
  return `Of the images that it was trained on, held out, ${(100 * typicality).toFixed(1)}\u00a0% are as unusual ` +
    `(typicality ${typicality.toFixed(4)}). Below ${100 * rare}\u00a0% nothing is called: ` +
    `P(${props.positive_class}) = ${probability.toFixed(3)} is not to be relied on.`;
}

/** Where in the square the evidence of a sign is strongest. */
function strongest(placed, side, sign, name) {
  const ninths = new Array(9).fill(0);
  const third = (at) => Math.floor((3 * at) / side);
  const ninth = (i) => 3 * third(Math.floor(i / side)) + third(i % side);
  placed.forEach((value, i) => (ninths[ninth(i)] += Math.max(sign * value, 0)));
  const [most, total] = [Math.max(...ninths), ninths.reduce((a, b) => a + b)];
  if (!total) return `Nothing speaks ${name}.`;
  return `What speaks ${name} is strongest in the ${NINTHS[ninths.indexOf(most)]} ninth of the square: ` +
    `${Math.round((100 * most) / total)} % of it.`;
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
  const [value, interval] = [metrics?.[key], metrics?.[`${key}_ci95`]];
  if (!Number.isFinite(value)) return "";
  const limits = interval?.every(Number.isFinite) ? ` (${interval.map((limit) => limit.toFixed(3)).join(" to ")})` : "";
  return `${name} ${value.toFixed(3)}${limits}`;
}

const withFile = ({ metrics_of }) => (metrics_of ? `, with ${metrics_of}` : ""); // whose figures these are

function about({ props, size, name, tested }) {
  const figures = [measured("AUC", tested, "auc"), measured("accuracy", tested, "accuracy")].filter(Boolean);
  const onTest = figures.length
    ? ` On ${tested.n} test images${withFile(props)}: ${figures.join(", ")}; 95 % intervals in brackets.`
    : "";
  return `${name}, ${props.intended_use}. It takes any grey image, cuts out the middle square and reads it at ` +
    `${size}×${size} pixels. Trained on ${props.dataset}.${onTest}`;
}

// ---- onto the page

/** JSON on several lines, each list on one. */
function indented(json) {
  return JSON.stringify(json, null, 2).replace(/\[[^[\]{]*\]/g, (list) => list.replace(/\s+/g, " "));
}

/** A text such as fingerprints, of which nobody reads all. */
const shortened = (text) => (text.length > 2000 ? `${text.slice(0, 80)}… (${text.length} characters)` : text);

function metadataRow([key, text]) {
  const row = document.createElement("tr");
  const [name, value] = [document.createElement("th"), document.createElement("td")];
  name.scope = "row";
  name.textContent = key;
  const json = parsed(text);
  value.textContent = json ? indented(json) : shortened(text);
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
  $("crop").classList.toggle("whole", width === height);
  const outlined = width === height ? [] : ["the model’s square outlined"];
  $("given-caption").textContent = [`${name}: ${width}×${height}`, ...notes, ...outlined].join(", ");
}

function paint(canvas, side, colours) {
  const image = new ImageData(side, side);
  colours.forEach((rgba, i) => image.data.set(rgba, 4 * i));
  Object.assign(canvas, { width: side, height: side }).getContext("2d").putImageData(image, 0, 0);
}

/** The image as it reaches the network. */
function showSeen(image, size) {
  const canvas = $("seen");
  paint(canvas, size, Array.from(prepare(image, size).pixels, (level) => [level, level, level, 255]));
  canvas.setAttribute("aria-label", `The same at ${size}×${size} pixels`);
  $("seen-caption").textContent = `As the model sees it: ${size}×${size}`;
}

/** The evidence over the square, its legend and where most of it is, where the file gives it. */
function showEvidence({ evidence, logit }, { width, height }, { positive_class }) {
  $("evidence").hidden = !evidence;
  $("overlay").hidden = !evidence || !$("overlaid").checked;
  $("where").textContent = "";
  if (!evidence) return;
  const side = Math.min(width, height, MAX_MAP_SIDE);
  const placed = enlarge(evidence, side);
  const opacity = (value) => 255 * OPACITY * Math.min(Math.abs(value) / FULL, 1);
  paint($("overlay"), side, Array.from(placed, (value) => [...(value > 0 ? MALIGNANT : BENIGN), opacity(value)]));
  $("mean").textContent = logit.toFixed(2).replace("-", "−");
  const signs = [[1, `for ${positive_class}`], [-1, `against ${positive_class}`]];
  $("where").textContent = signs.map((sign) => strongest(placed, side, ...sign)).join(" ");
}

function showResult(model, image, given) {
  const { probability, typicality } = given;
  const unusual = typicality < Math.fround(model.rare); // false where either is not known
  const [p, threshold] = apart(probability, model.threshold);
  $("probability").value = probability;
  $("probability").textContent = p;
  $("mark-label").textContent = `operating point ${threshold}`;
  $("bar").style.setProperty("--probability", probability);
  $("bar").style.setProperty("--threshold", model.threshold);
  $("result").classList.toggle("positive", probability >= model.threshold);
  $("result").classList.toggle("unlike", unusual);
  showGiven(image);
  showSeen(image, model.size);
  showEvidence(given, image, model.props);
  $("result").hidden = false;
  $("compared").textContent = unusual ? "" : compared(model, probability);
  const call = probability >= model.threshold ? "flagged for review." : "not flagged.";
  const none = "This picture is unlike the images that the model was trained on: no call.";
  $("called").textContent = unusual ? none : call;
  $("promise").textContent = unusual ? unlike(model, given) : promise(model);
  $("caution").textContent = caution(model, image);
  $("calibrated").textContent = unusual || $("caution").textContent ? "" : calibrated(model, probability);
  const said = ["statement", ...(unusual ? ["promise"] : []), "caution", "where"];
  $("announced").textContent = said.map((id) => $(id).textContent).join(" ");
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
  const given = await predict(model, image);
  return () => {
    showResult(model, image, given);
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
  const opening = (page.model = bytes.then((array) => open(array, name)));
  opening.then(
    (model) => page.model === opening && showModel((page.usable = model)),
    () => page.model === opening && page.usable && (page.model = page.usable),
  );
  say(`Loading ${name}…`);
  take(++page.turn, async () => {
    await opening;
    return page.image ? answer(page.image) : () => say(`${name} is ready.`);
  });
}

const isModel = (file) => /\.onnx$/i.test(file.name);

function chooseFile(file) {
  if (!file) return;
  if (isModel(file)) chooseModel(file.name, file.arrayBuffer().then((buffer) => new Uint8Array(buffer)));
  else chooseImage(file.name, false, file);
}

/** A file that a button was given; the other button's gets a word. */
function chooseBy(input, file) {
  if (!file || isModel(file) === (input === $("model-file"))) return chooseFile(file);
  const word = isModel(file)
    ? "is a model: choose it with “Choose another .onnx file”, below."
    : "is not an .onnx file. An image goes to “Choose a file”; export.py makes a model of a run folder.";
  take(++page.turn, () => Promise.reject(new Error(`${file.name} ${word}`)));
}

function listen() {
  for (const input of [$("file"), $("model-file")]) {
    input.addEventListener("change", () => {
      chooseBy(input, input.files[0]);
      input.value = ""; // the same file can be chosen again
    });
  }
  for (const button of document.querySelectorAll("[data-phantom]")) {
    const name = button.dataset.phantom;
    const fetched = async () => (await fetch(`phantoms/${name}`)).blob();
    button.addEventListener("click", () => chooseImage(name, true, fetched()));
  }
  $("overlaid").addEventListener("change", () => ($("overlay").hidden = !$("overlaid").checked));
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
chooseModel(DEFAULT_MODEL, download(new URL(`../models/${DEFAULT_MODEL}`, import.meta.url)));
