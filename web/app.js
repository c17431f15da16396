// The page: images in; for each an answer, what it means and where it comes from out. Nothing is sent anywhere.

import { paint, strongest } from "./evidence.js";
import { read } from "./image.js";
import { download, open } from "./model.js";
import { parsed } from "./onnxfile.js";
import { csv, png, save } from "./save.js";
import { makeEditor, place, rectangleIn, windowOf } from "./window.js";
import * as words from "./words.js";

const DEFAULT_MODEL = "breast_ultrasound.onnx"; // in ../models
const QUIET = 700; // milliseconds without a change before an answer is read aloud

const $ = (id) => document.getElementById(id);
/** items: {name, url of an example, blob: a Blob or a promise of it, box: what the user drew, window: what the file found,
 *  answer, failed: a message, due: whether it waits for an answer, cells of its row}; decoded: {item, image} of the
 *  current item; share: of cancers, as the user gave it; turn: number of the last model chosen, which counts. */
const page = { model: null, items: [], current: null, decoded: null, share: undefined, turn: 0, busy: false, timer: 0 };

// ---- answers, one after another

async function decoded(item) {
  if (page.decoded?.item === item) return page.decoded.image;
  const image = await read(await item.blob, item.name);
  if (item === page.current) page.decoded = { item, image };
  return image;
}

async function answer(item, model) {
  const { box } = item;
  item.due = false;
  try {
    const image = await decoded(item);
    const found = await model.predict(image, box);
    if (page.model !== model) return;
    if (!box) item.window = found.window;
    Object.assign(item, { answer: found, failed: undefined });
  } catch (error) {
    if (page.model !== model) return;
    Object.assign(item, { answer: undefined, failed: error.message });
  }
  showRow(item);
  if (item === page.current) await showCurrent();
}

/** Answer all that is due, what is on the page first. */
async function work() {
  if (page.busy) return;
  page.busy = true;
  const next = () => [page.current, ...page.items].find((item) => item?.due);
  for (let item; page.model && (item = next()); ) await answer(item, page.model);
  page.busy = false;
  showProgress();
}

// ---- onto the page

function say(status, error = "", again = "") {
  $("status").textContent = status;
  $("error").textContent = error;
  $("again").textContent = again;
  $("again").hidden = !again;
}

function showProgress() {
  if (!page.model) return;
  const [done, all] = [page.items.filter(({ due }) => !due).length, page.items.length];
  say(all ? `${done} of ${all} ${all === 1 ? "image" : "images"} answered.` : "Ready.");
}

const isGenerated = ({ url }) => Boolean(url?.startsWith("phantoms/"));

/** What is said of an item that has an answer: {call, probability, share}, the last two for the user's patients. */
function result({ answer: given }) {
  const own = words.ownShare(page.model);
  const share = own && (page.share ?? own);
  return { call: words.callOf(page.model, given), probability: words.corrected(given.probability, own, share), share };
}

function showRow(item) {
  const [button, said, number] = item.cells;
  const { call, probability } = item.answer ? result(item) : {};
  button.setAttribute("aria-current", item === page.current);
  said.textContent = item.failed ? "cannot be read" : call ? words.CALLS[call] : "waiting";
  number.textContent = words.isCall(call) ? words.percent(probability) : "";
}

function addRow(item) {
  const row = $("rows").insertRow();
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: item.name });
  button.addEventListener("click", () => select(item));
  row.insertCell().append(button);
  item.cells = [button, row.insertCell(), row.insertCell()];
  showRow(item);
}

/** The place of the map that is shown, and the map: of the window, or of the whole picture. */
function shownMap({ answer: given }, { width, height }) {
  const frame = given.evidenceFrame && $("of-frame").checked;
  return frame ? [given.evidenceFrame, [0, 0, width, height]] : [given.evidence, given.window.map(Math.round)];
}

function showMap(item, image) {
  const [map, over] = shownMap(item, image);
  $("looks").hidden = !item.answer.evidenceFrame;
  paint($("overlay"), map, over);
  place($("overlay"), over, image);
  $("where").textContent = strongest(map, over[2] === image.width && over[3] === image.height ? "the picture" : "the square");
}

/** The picture, its window and the user's rectangle. */
function showPicture(item, image) {
  const { canvas, width, height, notes } = image;
  canvas.id = "image";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `The image ${item.name}`);
  if (canvas !== $("image")) $("image").replaceWith(canvas);
  canvas.classList.toggle("pixels", Math.min(width, height) < 100);
  $("frame").style.setProperty("--ratio", width / height);
  $("caption").textContent = [`${item.name}: ${width}×${height}`, ...notes].join(", ");
  const editable = page.model.view === "lesion";
  edit(editable ? (item.box ?? rectangleIn(item.window, image)) : null, image);
  $("correct").hidden = !editable;
  $("found").disabled = !item.box;
}

/** Returns: the share of the picture that lies in the window. */
function showWindow(window, image) {
  const [x, y, across, down] = window;
  const inside = (from, length, all) => Math.max(0, Math.min(from + length, all) - Math.max(from, 0)) / all;
  const share = inside(x, across, image.width) * inside(y, down, image.height);
  place($("window"), window, image);
  $("window").hidden = share > 0.999;
  return share;
}

function showAnswer(item, image) {
  const { call, probability, share } = result(item);
  const own = words.ownShare(page.model);
  const threshold = words.corrected(page.model.threshold, own, share);
  const level = call !== "flagged" ? "none" : probability < 0.5 ? "low" : "high";
  $("result").dataset.level = level;
  $("headline").textContent = words.headline(call);
  $("estimate").textContent = words.estimate(call, probability, share);
  $("scale").hidden = !words.isCall(call);
  $("bar").style.setProperty("--probability", probability);
  $("bar").style.setProperty("--threshold", threshold);
  $("mark-label").textContent = `flagged from ${words.percent(threshold)}`;
  $("meaning").textContent = words.meaning(call);
  $("rates").textContent = words.isCall(call) && !words.isSynthetic(page.model) ? words.rates(page.model) : "";
  $("caution").textContent = words.caution(page.model, isGenerated(item));
  $("shares").hidden = own === undefined || !words.isCall(call);
  const window = item.due && item.box ? windowOf(item.box) : item.answer.window; // a later answer is on its way
  $("looked").textContent = words.looked(page.model, showWindow(window, image));
  clearTimeout(page.timer);
  const said = ["caution", "headline", "estimate", "looked", "where"].map((id) => $(id).textContent).join(" ");
  page.timer = setTimeout(() => ($("announced").textContent = said), QUIET);
}

/** What is known of the current item. */
async function showCurrent() {
  const item = page.current;
  for (const one of page.items) one.cells[0].setAttribute("aria-current", one === item);
  $("list").hidden = !page.items.length;
  $("problem").textContent = item?.failed ?? "";
  $("result").hidden = !item?.answer;
  if (!item?.answer) return;
  const image = await decoded(item);
  if (item !== page.current || !item.answer) return;
  showPicture(item, image);
  showMap(item, image);
  showAnswer(item, image);
}

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

/** The text of a model, or of none: nothing of a former one stays. */
function showModel(model) {
  const phantoms = "This model learned from generated pictures. It shows how the page works, no more.";
  $("synthetic").textContent = model && words.isSynthetic(model) ? phantoms : "";
  $("about").textContent = model ? words.about(model) : "No model is loaded.";
  $("details").hidden = !model;
  $("metadata").replaceChildren(...Object.entries(model?.props ?? {}).map(metadataRow));
  const own = model && words.ownShare(model);
  if (page.share === undefined && own) $("share").value = Number((100 * own).toPrecision(2));
  $("assumed").textContent = own ? `The model’s own numbers come from images of which ${Math.round(100 * own)} of 100 were malignant.` : "";
}

// ---- what the user does

/** Close the model in use, then load another one. Where that fails, the page has none. load: gives the bytes. */
async function useModel(name, load) {
  const turn = ++page.turn;
  page.model?.close();
  page.model = null;
  for (const item of page.items) Object.assign(item, { answer: undefined, failed: undefined, due: true });
  showModel(null);
  page.items.forEach(showRow);
  showCurrent();
  try {
    const bytes = await load();
    if (turn !== page.turn) return;
    say("Starting the model…");
    const model = await open(bytes, name);
    if (turn !== page.turn) return model.close();
    page.model = model;
    showModel(model);
    showProgress();
    work();
  } catch (error) {
    if (turn === page.turn) say("", error.message, name === DEFAULT_MODEL ? "Try again" : "Use this page’s own model");
  } finally {
    if (turn === page.turn) $("loading").hidden = true;
  }
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

function useOwnModel() {
  const turn = page.turn + 1;
  const progress = (size, total) => {
    if (turn !== page.turn) return;
    $("loading").hidden = false;
    $("loaded").textContent = total ? `${megabytes(size)} of ${megabytes(total)} MB` : `${megabytes(size)} MB`;
    if (total) Object.assign($("bytes"), { max: total, value: size });
  };
  say("Loading the model…");
  useModel(DEFAULT_MODEL, () => download(new URL(`../models/${DEFAULT_MODEL}`, import.meta.url), progress));
}

function select(item) {
  page.current = item;
  $("announced").textContent = "";
  showCurrent().then(() => $("result").scrollIntoView({ block: "nearest" }));
  work();
}

/** Add images. The first of them becomes the current one. */
function add(images) {
  const items = images.map((image) => ({ ...image, due: true }));
  page.items.push(...items);
  items.forEach(addRow);
  if (page.model) say(`${items.length === 1 ? items[0].name : `${items.length} images`}: reading…`);
  if (items.length) select(items[0]);
}

/** Take files that were chosen, dropped or pasted: images, or a model. */
function take(files) {
  const isModel = ({ name }) => /\.onnx$/i.test(name);
  const [model, images] = [files.find(isModel), files.filter((file) => !isModel(file))];
  if (model) {
    say("Loading the model…");
    useModel(model.name, async () => new Uint8Array(await model.arrayBuffer()));
  }
  add(images.map((file) => ({ name: file.name, blob: file })));
}

/** An example of the page. url: relative to it. */
function takeExample(url) {
  const known = page.items.find((item) => item.url === url);
  if (known) return select(known);
  const blob = fetch(url).then((response) => response.blob());
  add([{ name: url.replace("s/", " "), url, blob }]); // examples/normal.png is “example normal.png”
}

/** The rectangle that the user drew, or null where the model takes none. */
const boxOf = ({ box }) => (page.model.view === "lesion" ? (box ?? null) : null);

function row(item) {
  const base = { image: item.name, model: page.model.name };
  if (!item.answer || item.due) return { ...base, call: item.failed ? "cannot be read" : "waiting" };
  const [{ call, probability, share }, { answer: given }] = [result(item), item];
  const numbers = words.isCall(call) && { probability, share_of_cancers: share, probability_uncorrected: given.probability };
  const [window_x, window_y, window_width, window_height] = given.window;
  const [x, y, width, height] = boxOf(item) ?? [];
  return { ...base, ...numbers, call: words.CALLS[call], typicality: given.typicality, found: given.found,
    window_x, window_y, window_width, window_height, x, y, width, height };
}

async function savePicture() {
  const [item, image] = [page.current, await decoded(page.current)];
  const [map, over] = shownMap(item, image);
  const shown = { canvas: $("overlay"), place: over, opacity: $("opacity").value / 100 };
  const texts = ["caution", "headline", "estimate", "meaning", "looked"].map((id) => $(id).textContent);
  const last = `${item.name}. Research only, not a medical device.`;
  save(await png(image, shown, item.answer.window, boxOf(item), [...texts, last]), `${item.name.replace(/\.\w+$/, "")}_answer.png`);
}

const edit = makeEditor($("frame"), $("box"), (rectangle) => {
  Object.assign(page.current, { box: rectangle, due: true });
  $("found").disabled = false;
  showWindow(windowOf(rectangle), page.decoded.image); // at once; the answer follows
  work();
});

function listenToFiles() {
  for (const input of [$("file"), $("model-file")]) {
    input.addEventListener("change", () => {
      take([...input.files]);
      input.value = ""; // the same file can be chosen again
    });
  }
  for (const button of document.querySelectorAll("[data-image]")) {
    button.addEventListener("click", () => takeExample(button.dataset.image));
  }
  addEventListener("paste", (event) => take([...event.clipboardData.files]));
  addEventListener("dragover", (event) => {
    event.preventDefault(); // says that a drop is welcome
    $("drop").classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    take([...event.dataTransfer.files]);
  });
}

function listen() {
  listenToFiles();
  $("again").addEventListener("click", useOwnModel);
  $("csv").addEventListener("click", () => page.model && save(csv(page.items.map(row)), "answers.csv"));
  $("png").addEventListener("click", savePicture);
  $("clear").addEventListener("click", () => {
    Object.assign(page, { items: [], current: null, decoded: null });
    $("rows").replaceChildren();
    showCurrent();
    showProgress();
    $("file").focus();
  });
  $("found").addEventListener("click", () => {
    Object.assign(page.current, { box: undefined, due: true });
    work();
    $("box").focus();
  });
  $("share").addEventListener("input", () => {
    const [{ value, validity }, number] = [$("share"), $("share").valueAsNumber / 100];
    const valid = value !== "" && validity.valid;
    $("share").setAttribute("aria-invalid", !valid);
    $("share-error").textContent = valid ? "" : "Enter a number from 0.1 to 99.";
    page.share = valid ? number : undefined;
    page.items.forEach(showRow);
    showCurrent();
  });
  $("opacity").addEventListener("input", () => $("overlay").style.setProperty("opacity", $("opacity").value / 100));
  for (const radio of [$("of-window"), $("of-frame")]) radio.addEventListener("change", showCurrent);
}

$("unstarted").remove();
if (window.top === window.self) {
  $("main").hidden = false;
  listen();
  useOwnModel();
} else {
  $("framed").hidden = false; // another site could lay its own pictures and buttons over the page
}
