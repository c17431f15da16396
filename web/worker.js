// Runs an .onnx file beside the page, which stays responsive. Messages: [number, job, ...given] in; [number, result,
// message of an error] out. What is wrong with a file is said without the file's name, which the page adds.

import { answerOf, checkSession, described, withBoxNeeded } from "./onnxfile.js";

const RUNTIME = new URL("node_modules/onnxruntime-web/dist/", import.meta.url).href;
const FOUND_BY_THE_FILE = new Float32Array(4).fill(NaN); // a box
let [ort, session, about, queue] = [null, null, null, Promise.resolve()];

async function startRuntime() {
  ort = await import(`${RUNTIME}ort.wasm.bundle.min.mjs`);
  ort.env.wasm.wasmPaths = { wasm: `${RUNTIME}ort-wasm-simd-threaded.wasm` };
  ort.env.wasm.numThreads = 1; // more would need a cross-origin isolated page, for milliseconds
}

const jobs = {
  /** Returns: what `described` says of the file. */
  async open(bytes) {
    about = described(bytes);
    await startRuntime().catch(() => {
      throw new Error("runtime");
    });
    const graph = about.view === "lesion" ? withBoxNeeded(bytes) : bytes;
    session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
    checkSession(session, about);
    return about;
  },

  /** The answer for a grey image of any size from 8×8, exactly as stored: the graph prepares it itself.
   *  box: [x, y, width, height] of the lesion in pixels; undefined where the file is to find it. */
  async predict({ pixels, width, height }, box) {
    const inputs = { image: new ort.Tensor("uint8", pixels, [1, height, width]) };
    const given = box ? Float32Array.from(box) : FOUND_BY_THE_FILE;
    if (about.view === "lesion") inputs.box = new ort.Tensor("float32", given, [1, 4]);
    return answerOf(await session.run(inputs));
  },
};

onmessage = ({ data: [number, job, ...given] }) => {
  queue = queue.then(() => jobs[job](...given)).then(
    (result) => postMessage([number, result]),
    (error) => postMessage([number, undefined, error.message]),
  );
};
