// A model file for the page: fetched, compared with its checksum where there is one, and opened in a worker.

const asIs = { createScriptURL: (url) => url };
const trusted = globalThis.trustedTypes?.createPolicy("worker", asIs) ?? asIs; // the policy of index.html allows this one
const NO_RUNTIME = "A part of this page could not be loaded. Check your connection, then try again.";
const NO_MODEL = "The model could not be loaded. Check your connection, then try again.";

/** The sha256 of bytes in hexadecimal digits; undefined on a page that is served without https. */
async function sha256(bytes) {
  const digest = await globalThis.crypto.subtle?.digest("SHA-256", bytes);
  return digest && Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Throws: Error where a file NAME.json beside NAME.onnx holds another sha256. */
async function checkSum(url, bytes) {
  const beside = await fetch(url.href.replace(/\.onnx$/, ".json")).catch(() => ({}));
  const expected = beside.ok && (await beside.json().catch(() => ({}))).sha256;
  const found = expected && (await sha256(bytes));
  if (found && found !== expected) throw new Error("The model arrived damaged: its checksum differs. Try again.");
}

/** Fetch an .onnx file. progress: called with bytes so far and bytes in all, NaN where the server does not say.
 *  Returns: its bytes. Throws: Error with a message for the user. */
export async function download(url, progress) {
  const response = await fetch(url).catch(() => ({}));
  if (!response.ok) throw new Error(NO_MODEL);
  const compressed = response.headers.has("Content-Encoding"); // then the length is that of the compressed file
  const total = compressed ? NaN : Number(response.headers.get("Content-Length") ?? NaN);
  const [parts, reader] = [[], response.body.getReader()];
  for (let size = 0; ; ) {
    progress(size, total);
    const { done, value } = await reader.read().catch(() => {
      throw new Error(NO_MODEL);
    });
    if (done) break;
    parts.push(value);
    size += value.length;
  }
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  await checkSum(url, bytes);
  return bytes;
}

/** A worker that the page's content-security-policy holds for too: that of a file would be only what its server sends. */
function startWorker() {
  const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  return new Worker(trusted.createScriptURL(url), { type: "module" });
}

/** Open the bytes of an .onnx file, which the caller can no longer read.
 *  Returns: {name, predict, close, and all of `described` in onnxfile.js}. Throws: Error with a message for the user. */
export async function open(bytes, name) {
  const [worker, waiting] = [startWorker(), new Map()];
  let [last, closed] = [0, false];
  const close = (message = "") => {
    closed = true;
    worker.terminate();
    for (const { reject } of waiting.values()) reject(new Error(message));
  };
  const ask = (job, given, transferred = []) => new Promise((resolve, reject) => {
    if (closed) return reject(new Error("The model is closed."));
    waiting.set(++last, { resolve, reject });
    worker.postMessage([last, job, ...given], transferred);
  });
  worker.onerror = () => close("runtime");
  worker.onmessage = ({ data: [number, result, message] }) => {
    const { resolve, reject } = waiting.get(number);
    waiting.delete(number);
    if (message === undefined) resolve(result);
    else reject(new Error(message));
  };
  const about = await ask("open", [bytes], [bytes.buffer]).catch(({ message }) => {
    close();
    if (message === "runtime") throw new Error(NO_RUNTIME);
    throw new Error(`${name} is not a model that this page can use: ${message}.`);
  });
  const predict = (image, box) => ask("predict", [{ ...image, canvas: undefined }, box]).catch(({ message }) => {
    throw new Error(`The model gave no answer for this image: ${message}`);
  });
  return { ...about, name, predict, close };
}
