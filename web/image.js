// An image file to grey pixels.

import { isDicom, picture } from "./dicom.js";

const MIN_SIDE = 8; // pixels; what the model's graph takes
const MAX_PIXELS = 50e6; // a canvas of more fails in some browsers
const AS_STORED = { premultiplyAlpha: "none", colorSpaceConversion: "none" }; // but upright, as EXIF says
const ONE_IMAGE = "Save the image that you want as PNG, and choose that file.";

/** Pillow's mode L of RGBA bytes: ITU-R 601-2 luma in 16-bit fixed point (Pillow, Convert.c). Alpha is ignored. */
function grey(rgba) {
  const out = new Uint8Array(rgba.length / 4);
  for (let i = 0, at = 0; i < out.length; i++, at += 4)
    out[i] = (rgba[at] * 19595 + rgba[at + 1] * 38470 + rgba[at + 2] * 7471 + 0x8000) >> 16;
  return out;
}

async function dicomPicture(blob, name) {
  try {
    return picture(new Uint8Array(await blob.arrayBuffer()));
  } catch ({ message }) {
    throw new Error(`${name} ${message}. ${ONE_IMAGE}`);
  }
}

/** What the browser is to decode: the file, or the picture of a DICOM file. Throws: Error where a file holds what this
 *  page does not read, by its first bytes. */
async function source(blob, name) {
  const bytes = new Uint8Array(await blob.slice(0, 4096).arrayBuffer());
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  if (isDicom(text, name)) return dicomPicture(blob, name); // first, because its preamble may be that of a TIFF file
  const png = text.startsWith("\x89PNG");
  const kinds = [
    [text.startsWith("GIF8"), "is a GIF, which can hold several frames"],
    [/^(II\*\0|MM\0\*)/.test(text), "is a TIFF file, which can hold several pages"],
    [png && text.includes("acTL") && text.indexOf("acTL") < (text + "IDAT").indexOf("IDAT"), "holds several frames"],
    [text.slice(8, 16) === "WEBPVP8X" && bytes[20] & 2, "holds several frames"],
    [text.slice(4, 12) === "ftypavis", "holds several frames"],
    [png && bytes[24] === 16, "holds 16 bits per pixel, of which a browser reads only 8"],
  ];
  const found = kinds.find(([is]) => is);
  if (found) throw new Error(`${name} ${found[1]}. ${ONE_IMAGE}`);
  return blob;
}

/** Throws: Error where the browser alters what a page reads from a canvas, as some do against fingerprinting. */
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

/** Decode an image file. Returns: {canvas, pixels: Uint8Array, row after row, width, height, notes: what was changed}.
 *  Throws: Error with a message for the user. */
export async function read(blob, name) {
  const bitmap = await createImageBitmap(await source(blob, name), AS_STORED).catch(() => {
    throw new Error(`${name} is not an image that this browser can read. PNG, JPEG, WebP, BMP and DICOM work.`);
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
  return { canvas, pixels, width, height, notes };
}
