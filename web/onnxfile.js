// An .onnx file of this project: its metadata, checked as a whole before anything of it is shown, and its answers, checked too.

const NEWEST = 4; // version of the files that this page knows: VERSION in common/deploy/graph.py
const NEEDED = ["threshold", "threshold_rule", "input_size", "positive_class", "dataset", "intended_use"];
const VIEWS = ["square", "frame", "lesion"];
const MAX_SIZE = 4096; // pixels a side of what the network takes
const RANKS = { probability: 1, logit: 1, evidence: 3, evidence_frame: 3, typicality: 1, window: 2, found: 1 };
const OUTPUTS = { all: ["probability", "logit"], 4: ["evidence", "typicality", "window", "found"] };

// ---- protocol buffers

const [VARINT, EIGHT_BYTES, DELIMITED, FOUR_BYTES] = [0, 1, 2, 5]; // wire types
const [GRAPH, METADATA_PROPS, KEY, VALUE] = [7, 14, 1, 2]; // fields of ModelProto and StringStringEntryProto (onnx.proto)
const text = (bytes) => new TextDecoder().decode(bytes);

/** The fields of a message: {number, content: bytes of a delimited one, raw: the bytes of all of it}. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      if (at >= bytes.length) throw new RangeError("the file ends too early");
      value += (bytes[at] & 127) * scale;
      if (bytes[at++] < 128) return value;
    }
  };
  while (at < bytes.length) {
    const start = at;
    const key = varint();
    const type = key % 8;
    const length = { [EIGHT_BYTES]: () => 8, [FOUR_BYTES]: () => 4, [DELIMITED]: varint, [VARINT]: () => varint() && 0 }[type];
    if (!length) throw new RangeError("it is no .onnx file");
    const size = length();
    if (at + size > bytes.length) throw new RangeError("the file ends too early");
    const content = type === DELIMITED ? bytes.subarray(at, at + size) : undefined;
    at += size;
    yield { number: Math.floor(key / 8), content, raw: bytes.subarray(start, at) };
  }
}

const delimited = (bytes) => [...fields(bytes)].filter(({ content }) => content);

/** The metadata_props of an ONNX file, which onnxruntime-web does not give: {key: text}. */
function metadata(bytes) {
  const entries = delimited(bytes).filter(({ number }) => number === METADATA_PROPS);
  return Object.fromEntries(entries.map(({ content }) => {
    const pair = Object.fromEntries(delimited(content).map((field) => [field.number, field.content]));
    return [text(pair[KEY]), text(pair[VALUE])];
  }));
}

/** A file without the default of its input `box`, which is its first message (common/deploy/modelfile.py):
 *  onnxruntime-web takes no input that has a default. */
export function withBoxNeeded(bytes) {
  const [{ number, raw }] = fields(bytes);
  return number === GRAPH ? bytes.subarray(raw.length) : bytes;
}

// ---- metadata

/** The value of a JSON object or array in the metadata; undefined for other text. */
export function parsed(json) {
  try {
    return /^[[{]/.test(json) ? JSON.parse(json) : undefined;
  } catch {
    return undefined;
  }
}

const isShare = (value) => value >= 0 && value <= 1;
const isCount = (value) => Number.isInteger(value) && value >= 0;
const isRate = (value) => value === null || (typeof value === "number" && isShare(value)); // null: undefined for these images
const isInterval = (value) => Array.isArray(value) && value.length === 2 && value.every(isRate);
const isAchieved = (value) => Array.isArray(value) && value.every((entry) => entry &&
  ["recall", "specificity"].every((rate) => isRate(entry[rate]) && isInterval(entry[`${rate}_ci95`])));
const isChosenOn = (value) => value && (!Object.keys(value).length || // {}: nothing was chosen
  (isCount(value.n) && isCount(value.malignant) && value.malignant <= value.n));

/** A number of the metadata. Throws: RangeError where it is none that fits. */
function number(props, key, fits) {
  const value = props[key]?.trim() ? Number(props[key]) : NaN;
  if (!fits(value)) throw new RangeError(key in props ? `its ${key} is “${props[key]}”` : `it has no ${key}`);
  return value;
}

/** JSON of the metadata; undefined where an earlier file has none. Throws: RangeError where it does not fit. */
function json(props, key, fits) {
  const value = parsed(props[key]);
  if (key in props && !fits(value)) throw new RangeError(`its ${key} cannot be read`);
  return value;
}

/** What this page says of a file. Returns: {props: all metadata as text, version, view, size, threshold, rare and
 *  leastFound: there is no call below this typicality and this certainty of a lesion, chosenOn: the images that chose
 *  the threshold, achieved: what it achieves on other images}. Throws: RangeError that says what is wrong. */
export function described(bytes) {
  const props = metadata(bytes);
  const missing = NEEDED.filter((key) => !(key in props));
  if (missing.length) throw new RangeError(`it has no ${missing.join(", ")}`);
  const { view = "square", positive_class } = props;
  if (!VIEWS.includes(view)) throw new RangeError(`its view is “${view}”`);
  if (positive_class !== "malignant") throw new RangeError(`its positive_class is “${positive_class}”`);
  return {
    props,
    view,
    version: "version" in props ? number(props, "version", (value) => isCount(value) && value <= NEWEST) : 1,
    size: number(props, "input_size", (value) => isCount(value) && value >= 8 && value <= MAX_SIZE),
    threshold: number(props, "threshold", isShare),
    rare: "typicality_threshold" in props ? number(props, "typicality_threshold", isShare) : undefined,
    leastFound: view === "lesion" ? number(props, "found_threshold", isShare) : 0,
    chosenOn: json(props, "chosen_on", isChosenOn) ?? {},
    achieved: json(props, "achieved", isAchieved) ?? [],
  };
}

const fits = (value, type, rank) => value?.isTensor && value.type === type && value.shape.length === rank;
const named = (values) => Object.fromEntries(values.map((value) => [value.name, value]));

/** Throws: RangeError where an open file does not take and give what its metadata promise. */
export function checkSession(session, { view, version, rare }) {
  const [inputs, outputs] = [named(session.inputMetadata), named(session.outputMetadata)];
  const wanted = { image: fits(inputs.image, "uint8", 3) };
  if (view === "lesion") wanted.box = fits(inputs.box, "float32", 2);
  for (const name of [...Object.keys(wanted), ...Object.keys(inputs)]) {
    if (!wanted[name]) throw new RangeError(`its input ${name} does not fit`);
  }
  const needed = [...OUTPUTS.all, ...(version >= 4 || view !== "square" ? OUTPUTS[4] : [])];
  for (const name of [...needed, ...Object.keys(RANKS).filter((output) => output in outputs)]) {
    if (!fits(outputs[name], "float32", RANKS[name])) throw new RangeError(`its output ${name} is missing or does not fit`);
  }
  if ("typicality" in outputs && rare === undefined) throw new RangeError("it has no typicality_threshold");
}

// ---- answers

const map = (tensor) => tensor && { values: tensor.data, rows: tensor.dims[1], columns: tensor.dims[2] };

/** The answer for one image, of the outputs of a session. Returns: {probability, logit, typicality, found, window:
 *  [x, y, width, height] in pixels, evidence and evidenceFrame: {values, rows, columns}}; what an earlier file does not
 *  give is undefined. Throws: RangeError where a number is none that fits. */
export function answerOf(given) {
  const [probability, logit, typicality, found] = ["probability", "logit", "typicality", "found"].map((name) => given[name]?.data[0]);
  const window = given.window && Array.from(given.window.data);
  const numbers = [logit, ...(window ?? []), ...(given.evidence?.data ?? []), ...(given.evidence_frame?.data ?? [])];
  const shares = [probability, typicality ?? 0, found ?? 0];
  if (!numbers.every(Number.isFinite) || !shares.every(isShare) || (window && !(window[2] > 0 && window[3] > 0))) {
    throw new RangeError("its answer is not a number that fits");
  }
  return { probability, logit, typicality, found, window, evidence: map(given.evidence), evidenceFrame: map(given.evidence_frame) };
}
