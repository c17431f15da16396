// An ONNX file of this project: its metadata, and its answer for one grey image.

const RUNTIME = new URL("node_modules/onnxruntime-web/dist/", import.meta.url).href;
const NEEDED = ["threshold", "threshold_rule", "input_size", "positive_class", "dataset", "intended_use"];
const [VARINT, EIGHT_BYTES, DELIMITED, FOUR_BYTES] = [0, 1, 2, 5]; // wire types of protocol buffers
const [METADATA_PROPS, KEY, VALUE] = [14, 1, 2]; // field numbers in ModelProto and StringStringEntryProto (onnx.proto)

/** The delimited fields of a protocol-buffer message, as [number, bytes]; fields of fixed width are skipped. */
function* delimitedFields(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      if (at >= bytes.length) throw new RangeError("the message ends within a field");
      value += (bytes[at] & 127) * scale;
      if (bytes[at++] < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const [number, type] = [Math.floor(key / 8), key % 8];
    if (type === VARINT) varint();
    else if (type === EIGHT_BYTES) at += 8;
    else if (type === FOUR_BYTES) at += 4;
    else if (type === DELIMITED) {
      const length = varint();
      if (at + length > bytes.length) throw new RangeError("the message ends within a field");
      yield [number, bytes.subarray(at, (at += length))];
    } else throw new RangeError(`no wire type ${type}`);
  }
}

/** The metadata_props of an ONNX file, which onnxruntime-web does not give: {key: text}. */
export function metadata(bytes) {
  const text = new TextDecoder();
  const props = {};
  for (const [number, entry] of delimitedFields(bytes)) {
    if (number !== METADATA_PROPS) continue;
    const pair = Object.fromEntries(delimitedFields(entry));
    props[text.decode(pair[KEY])] = text.decode(pair[VALUE]);
  }
  return props;
}

/** The value of a JSON object or array in the metadata; undefined for other text. */
export function parsed(text) {
  try {
    return /^[[{]/.test(text) ? JSON.parse(text) : undefined;
  } catch {
    return undefined;
  }
}

/** A number of the metadata. Throws: RangeError where it is none that fits. */
function number(props, key, fits) {
  const value = props[key].trim() ? Number(props[key]) : NaN;
  if (!fits(value)) throw new RangeError(`its ${key} is “${props[key]}”`);
  return value;
}

/** JSON of the metadata; undefined where an earlier export has none. Throws: RangeError where it does not fit. */
function json(props, key, fits) {
  const value = parsed(props[key]);
  if (key in props && !fits(value)) throw new RangeError(`its ${key} cannot be read`);
  return value;
}

const isShare = (value) => value >= 0 && value <= 1;
const isSide = (value) => Number.isInteger(value) && value > 0;
const isFigure = (value) => value == null || typeof value === "number"; // null: undefined for these images
const isInterval = (value) => value == null || (Array.isArray(value) && value.length === 2 && value.every(isFigure));
const areFigures = (entry, ...keys) => keys.every((key) => isFigure(entry[key]) && isInterval(entry[`${key}_ci95`]));
const areCounts = (...values) => values.every(Number.isInteger);
const isTexts = (value) => Array.isArray(value) && value.every((text) => typeof text === "string");
const areSplits = (value) =>
  value && (!value.test || (areCounts(value.test.n) && areFigures(value.test, "auc", "accuracy")));
const isChosenOn = (value) => // {}: nothing was chosen
  value && (!Object.keys(value).length || (isTexts(value.hospitals) && areCounts(value.n, value.malignant)));
const isAchieved = (value) =>
  Array.isArray(value) && value.every((entry) => entry && areFigures(entry, "recall", "specificity"));

/** What this page explains of a file. Throws: Error with a message for the user. */
function explained(bytes, name) {
  try {
    const props = metadata(bytes);
    const missing = NEEDED.filter((key) => !(key in props));
    if (missing.length) throw new RangeError(`it has no ${missing.join(", ")}`);
    return {
      props,
      threshold: number(props, "threshold", isShare),
      rare: "typicality_threshold" in props ? number(props, "typicality_threshold", isShare) : NaN,
      size: number(props, "input_size", isSide),
      tested: json(props, "metrics", areSplits)?.test,
      chosenOn: json(props, "chosen_on", isChosenOn),
      expected: json(props, "achieved", isAchieved)?.[0],
    };
  } catch (error) {
    throw new Error(`${name} is not a model that export.py wrote (${error.message}). Choose another .onnx file.`);
  }
}

async function runtime() {
  try {
    const ort = await import(`${RUNTIME}ort.wasm.bundle.min.mjs`);
    ort.env.wasm.wasmPaths = { wasm: `${RUNTIME}ort-wasm-simd-threaded.wasm` };
    ort.env.wasm.numThreads = 1; // more would need a cross-origin isolated page, for milliseconds
    return ort;
  } catch {
    throw new Error("onnxruntime-web is not installed: run “npm ci” in the folder web/, then load this page again.");
  }
}

/** Fetch an .onnx file. Returns: its bytes. Throws: Error with a message for the user. */
export async function download(url) {
  const name = url.pathname.split("/").pop();
  const response = await fetch(url).catch((error) => ({ status: error.message }));
  if (response.ok) return new Uint8Array(await response.arrayBuffer());
  throw new Error(`models/${name} cannot be loaded (${response.status}). Make one with “python export.py RUN --out ` +
    `models/${name}”, or choose an .onnx file below.`);
}

/** Open the bytes of an .onnx file.
 *  Returns: {name, session, ort, props: its metadata as text, threshold, size;
 *    rare: the typicality below which an image is unlike those of training, NaN where the file does not say;
 *    tested: metrics on test; chosenOn: the images that chose the threshold; expected: what the threshold achieves on
 *    images that did not choose it; each of the three undefined where the file does not say}.
 *  Throws: Error with a message for the user. */
export async function open(bytes, name) {
  const told = explained(bytes, name);
  const ort = await runtime();
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] }).catch((error) => {
    throw new Error(`${name} cannot be opened by onnxruntime-web: ${error.message}`);
  });
  return { name, session, ort, ...told };
}

/** What the file says of a grey image of any size from 8×8, exactly as stored: the graph prepares it itself.
 *  Returns: {probability, logit, typicality, evidence: {values, rows, columns}}, the probability calibrated; of an
 *  earlier file the last two are undefined. Throws: Error with a message for the user. */
export async function predict({ session, ort }, { pixels, width, height }) {
  const image = new ort.Tensor("uint8", pixels, [1, height, width]);
  const given = await session.run({ image }).catch((error) => {
    throw new Error(`The model does not take an image of ${width}×${height} pixels: ${error.message}`);
  });
  const [probability, logit, typicality] = ["probability", "logit", "typicality"].map((name) => given[name]?.data[0]);
  const [, rows, columns] = given.evidence?.dims ?? [];
  return { probability, logit, typicality, evidence: rows && { values: given.evidence.data, rows, columns } };
}
