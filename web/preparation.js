// What Pillow does before the network, and the model's graph inside it, and what it does to an evidence map, on plain
// arrays, to show it on the page.
// A grey image is {pixels: Uint8Array, row after row, width, height}.

const FIXED_POINT_BITS = 22; // of Pillow's resampling weights

/** Pillow's mode L of RGBA bytes: ITU-R 601-2 luma in 16-bit fixed point (Pillow, Convert.c). Alpha is ignored. */
export function grey(rgba) {
  const out = new Uint8Array(rgba.length / 4);
  for (let i = 0, at = 0; i < out.length; i++, at += 4)
    out[i] = (rgba[at] * 19595 + rgba[at + 1] * 38470 + rgba[at + 2] * 7471 + 0x8000) >> 16;
  return out;
}

/** The square in the middle, as wide as the short side: {left, top, side}. */
export function centreSquare({ width, height }) {
  const side = Math.min(width, height);
  return { left: (width - side) >> 1, top: (height - side) >> 1, side };
}

/** For each of `size` pixels, the first of `length` pixels that it covers and the triangle's weights of those on.
 *  Weights are in fixed point and sum to one (Pillow, Resample.c, precompute_coeffs, BILINEAR). */
function triangles(length, size) {
  const scale = length / size;
  const reach = Math.max(scale, 1); // wider than a pixel when shrinking: the antialiasing
  return Array.from({ length: size }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach + 0.5), length);
    const weights = Array.from({ length: end - first }, (_, k) =>
      Math.max(1 - Math.abs((first + k + 0.5 - centre) / reach), 0));
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((w) => Math.trunc(0.5 + (w / sum) * 2 ** FIXED_POINT_BITS)) };
  });
}

/** Resample the rows of a square image to `size` pixels each, and turn rows into columns. */
function resampleAndTranspose(pixels, side, size) {
  const rows = pixels.length / side;
  const out = new Uint8Array(size * rows);
  triangles(side, size).forEach(({ first, weights }, column) => {
    for (let row = 0; row < rows; row++) {
      let sum = 1 << (FIXED_POINT_BITS - 1); // rounds to the nearest
      for (let k = 0, at = row * side + first; k < weights.length; k++) sum += weights[k] * pixels[at + k];
      out[column * rows + row] = sum >> FIXED_POINT_BITS;
    }
  });
  return out;
}

/** The image at the model's size: the middle square, resized with antialiasing as Pillow's BILINEAR does. */
export function prepare(image, size) {
  const { left, top, side } = centreSquare(image);
  const square = new Uint8Array(side * side);
  for (let row = 0; row < side; row++) {
    const start = (top + row) * image.width + left;
    square.set(image.pixels.subarray(start, start + side), row * side);
  }
  if (side === size) return { pixels: square, width: size, height: size };
  const pixels = resampleAndTranspose(resampleAndTranspose(square, side, size), side, size);
  return { pixels, width: size, height: size };
}

/** An evidence map at side × side pixels: bilinear between the centres of its cells, and held beyond the outermost, as
 *  `place` in common/evidence.py does in the middle square. Returns: Float32Array, row after row. */
export function enlarge({ values, rows, columns }, side) {
  const [down, across] = [triangles(rows, side), triangles(columns, side)];
  return Float32Array.from({ length: side * side }, (_, i) => {
    const [vertical, horizontal] = [down[Math.floor(i / side)], across[i % side]];
    let sum = 0;
    vertical.weights.forEach((weight, row) => horizontal.weights.forEach((w, column) => {
      sum += weight * w * values[(vertical.first + row) * columns + horizontal.first + column];
    }));
    return sum / 2 ** (2 * FIXED_POINT_BITS);
  });
}
