// An .onnx file of this project: its metadata, checked as a whole before anything of it is shown, and its answers, checked too.

const VERSION = "4"; // of the files that this page takes: VERSION in common/deploy/graph.py
const NEEDED = ["view", "threshold", "threshold_rule", "found_threshold", "typicality_threshold", "input_size",
  "positive_class", "dataset", "intended_use", "chosen_on", "achieved"];
const VIEWS = ["square", "frame", "lesion"];
const MAX_SIZE = 4096; // pixels a side of what the network takes
// What a file takes and gives: {name: [type, number of dimensions]}.
const INPUTS = { image: ["uint8", 3] };
const OUTPUTS = { evidence: ["float32", 3], window: ["float32", 2] };
for (const name of ["probability", "logit", "typicality", "found"]) OUTPUTS[name] = ["float32", 1];
const INPUTS_OF_LESION = { ...INPUTS, box: ["float32", 2] };
const OUTPUTS_OF_LESION = { ...OUTPUTS, evidence_frame: ["float32", 3] };

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
  (isCount(value.n) && isCount(value.malignant) && value.malignant <= value.n &&
    (value.prevalence === undefined || (value.prevalence > 0 && value.prevalence < 1))));

/** A number of the metadata. Throws: RangeError where it is none that fits. */
function number(props, key, fits) {
  const value = props[key].trim() ? Number(props[key]) : NaN;
  if (!fits(value)) throw new RangeError(`its ${key} is “${props[key]}”`);
  return value;
}

/** JSON of the metadata. Throws: RangeError where it does not fit. */
function json(props, key, fits) {
  const value = parsed(props[key]);
  if (!fits(value)) throw new RangeError(`its ${key} cannot be read`);
  return value;
}

function checkVersion({ version }) {
  if (version === VERSION) return;
  const found = version ? `its version is “${version}”` : "it has no version";
  throw new RangeError(`${found}, and this page takes version ${VERSION}. Ask whoever made the file to export it again`);
}

/** What this page says of a file. Returns: {props: all metadata as text, view, size, threshold, rare and leastFound:
 *  there is no call below this typicality and this certainty of a lesion, chosenOn: the images that chose the threshold,
 *  achieved: what it achieves on other images}. Throws: RangeError that says what is wrong. */
export function described(bytes) {
  const props = metadata(bytes);
  checkVersion(props);
  const missing = NEEDED.filter((key) => !(key in props));
  if (missing.length) throw new RangeError(`it has no ${missing.join(", ")}`);
  const { view, positive_class } = props;
  if (!VIEWS.includes(view)) throw new RangeError(`its view is “${view}”`);
  if (positive_class !== "malignant") throw new RangeError(`its positive_class is “${positive_class}”`);
  return {
    props,
    view,
    size: number(props, "input_size", (value) => isCount(value) && value >= 8 && value <= MAX_SIZE),
    threshold: number(props, "threshold", isShare),
    rare: number(props, "typicality_threshold", isShare),
    leastFound: number(props, "found_threshold", isShare),
    chosenOn: json(props, "chosen_on", isChosenOn),
    achieved: json(props, "achieved", isAchieved),
  };
}

function checkValues(kind, values, wanted) {
  const found = Object.fromEntries(values.map((value) => [value.name, value]));
  for (const name of Object.keys({ ...wanted, ...found })) {
    const [type, rank] = wanted[name] ?? [];
    const fits = found[name]?.isTensor && found[name].type === type && found[name].shape.length === rank;
    if (!fits) throw new RangeError(`its ${kind} ${name} is missing or does not fit`);
  }
}

/** Throws: RangeError where an open file does not take and give what a file of its view does. */
export function checkSession(session, { view }) {
  const ofLesion = view === "lesion";
  checkValues("input", session.inputMetadata, ofLesion ? INPUTS_OF_LESION : INPUTS);
  checkValues("output", session.outputMetadata, ofLesion ? OUTPUTS_OF_LESION : OUTPUTS);
}

// ---- answers

const map = (tensor) => tensor && { values: tensor.data, rows: tensor.dims[1], columns: tensor.dims[2] };

/** The answer for one image, of the outputs of a session. Returns: {probability, typicality, found, window: [x, y,
 *  width, height] in pixels, evidence: {values, rows, columns}, evidenceFrame: the same, of the view lesion only}.
 *  Throws: RangeError where a number is none that fits. */
export function answerOf(given) {
  const [probability, typicality, found] = ["probability", "typicality", "found"].map((name) => given[name].data[0]);
  const window = Array.from(given.window.data);
  const numbers = [...window, ...given.evidence.data, ...(given.evidence_frame?.data ?? [])];
  const shares = [probability, typicality, found];
  if (!numbers.every(Number.isFinite) || !shares.every(isShare) || !(window[2] > 0 && window[3] > 0)) {
    throw new RangeError("its answer is not a number that fits");
  }
  return { probability, typicality, found, window, evidence: map(given.evidence), evidenceFrame: map(given.evidence_frame) };
}
