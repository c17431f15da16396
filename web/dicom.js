// The picture of a DICOM file, if it is one picture of 8 bits, uncompressed or as JPEG. index.html loads dicomParser.

const JPEG = "1.2.840.10008.1.2.4.50"; // baseline, the usual compression of ultrasound
const UNCOMPRESSED = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]; // little endian, implicit and explicit
const [GREY, INVERTED, RGB, JPEG_COLOUR] = ["MONOCHROME2", "MONOCHROME1", "RGB", "YBR_FULL_422"];

/** Whether a file is DICOM. start: its first bytes as text. */
export const isDicom = (start, name) => start.slice(128, 132) === "DICM" || /\.dcm$/i.test(name);

/** What of a data set a picture needs. Tags: group and element, as in PS3.6 of the standard. */
function describe(data) {
  const number = (tag, other) => (data.elements[tag]?.length ? data.uint16(tag) : other);
  return {
    syntax: data.string("x00020010"), photometric: data.string("x00280004"), planar: number("x00280006", 0),
    height: number("x00280010", 0), width: number("x00280011", 0), samples: number("x00280002", 1),
    bits: number("x00280100", 0), signed: number("x00280103", 0), frames: Number(data.string("x00280008") ?? 1),
    slope: Number(data.string("x00281053") || 1), intercept: Number(data.string("x00281052") || 0), windowCentre: data.floatString("x00281050"),
    windowWidth: data.floatString("x00281051"), curve: data.string("x00281056") || "LINEAR",
    table: data.elements.x00283010, pixels: data.elements.x7fe00010,
  };
}

/** Why this page does not read the picture, or undefined. */
function problem(about) {
  const { syntax, photometric, height, width, samples, bits, signed, frames } = about;
  const known = syntax === JPEG ? [GREY, JPEG_COLOUR] : UNCOMPRESSED.includes(syntax) ? [GREY, INVERTED, RGB] : [];
  const ofGrey = about.table || about.curve !== "LINEAR" || about.slope !== 1;
  const windowedJpeg = syntax === JPEG && photometric === GREY && about.windowCentre !== undefined;
  return [
    [!about.pixels || !height || !width, "holds no picture"],
    [frames > 1, `holds ${frames} frames`],
    [bits !== 8 || signed, "does not hold 8 bits per pixel"],
    [!known.includes(photometric) || samples !== (photometric === RGB || photometric === JPEG_COLOUR ? 3 : 1),
      "is stored in a way that this page does not read"],
    [ofGrey || windowedJpeg, "has grey levels that this page cannot show"],
  ].find(([is]) => is)?.[1];
}

/** The grey levels that a screen shows for 0 to 255 (PS3.3, C.11.2.1.2), spread over all levels. */
function shown({ intercept, windowCentre: centre, windowWidth: width, photometric }) {
  const window = (x) => Math.min(Math.max((x + intercept - (centre - 0.5)) / (width - 1) + 0.5, 0), 1);
  const level = centre === undefined || !(width > 1) ? (x) => x / 255 : window;
  const [low, high] = [level(0), level(255)];
  const grey = (x) => Math.round((255 * (level(x) - low)) / Math.max(high - low, 1e-12));
  return Uint8Array.from({ length: 256 }, (_, x) => (photometric === INVERTED ? 255 - grey(x) : grey(x)));
}

/** Uncompressed bytes as ImageData. */
function image(bytes, about) {
  const { width, height, samples, planar } = about;
  const [out, size, levels] = [new Uint8ClampedArray(4 * width * height).fill(255), width * height, shown(about)];
  for (let i = 0; i < size; i++) {
    for (let channel = 0; channel < 3; channel++) {
      out[4 * i + channel] = samples === 1 ? levels[bytes[i]] : bytes[planar ? channel * size + i : 3 * i + channel];
    }
  }
  return new ImageData(out, width, height);
}

/** The picture of a DICOM file. Returns: a Blob or ImageData. Throws: Error that says why this page does not read it. */
export function picture(bytes) {
  const parser = globalThis.dicomParser;
  if (!parser) throw new Error("is a DICOM file, and the part of this page that reads DICOM could not be loaded");
  let data;
  try {
    data = parser.parseDicom(bytes);
  } catch {
    throw new Error("is a DICOM file that is damaged, or that begins without its preamble");
  }
  const about = describe(data);
  const found = problem(about);
  if (found) throw new Error(`is a DICOM file that ${found}`);
  const { dataOffset, length, fragments } = about.pixels;
  if (about.syntax !== JPEG) {
    if (length < about.width * about.height * about.samples) throw new Error("is a DICOM file that ends too early");
    return image(bytes.subarray(dataOffset, dataOffset + length), about);
  }
  const jpeg = parser.readEncapsulatedPixelDataFromFragments(data, about.pixels, 0, fragments.length);
  return new Blob([jpeg], { type: "image/jpeg" });
}
