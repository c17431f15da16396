// An evidence map over the image that it is of.

const FULL = 4; // log-odds from which colour is deepest, in every picture
const [FOR, AGAINST] = [[255, 122, 26], [86, 180, 233]]; // lighter than predict.py's, to be seen on dark tissue
const MAX_SIDE = 512; // pixels of the map; the browser enlarges it to what is on the screen
const NINTHS = "upper left,top,upper right,left,middle,right,lower left,bottom,lower right".split(",");

/** For each of `size` pixels the two cells of `cells` around its centre: [first, second, weight of the second]. */
function neighbours(cells, size) {
  return Array.from({ length: size }, (_, i) => {
    const at = Math.min(Math.max(((i + 0.5) * cells) / size - 0.5, 0), cells - 1);
    const first = Math.floor(at);
    return [first, Math.min(first + 1, cells - 1), at - first];
  });
}

/** A map at width × height pixels: bilinear between the centres of its cells, and held beyond the outermost, as `place`
 *  in common/evidence.py does. Returns: Float32Array, row after row. */
function enlarge({ values, rows, columns }, width, height) {
  const [down, across] = [neighbours(rows, height), neighbours(columns, width)];
  return Float32Array.from({ length: width * height }, (_, i) => {
    const [[top, bottom, y], [left, right, x]] = [down[Math.floor(i / width)], across[i % width]];
    const row = (at) => values[at * columns + left] * (1 - x) + values[at * columns + right] * x;
    return row(top) * (1 - y) + row(bottom) * y;
  });
}

/** Paint a map that lies over [x, y, width, height] of an image. */
export function paint(canvas, map, [, , across, down]) {
  const scale = Math.min(1, MAX_SIDE / Math.max(across, down));
  const [width, height] = [across, down].map((side) => Math.max(1, Math.round(side * scale)));
  const image = new ImageData(width, height);
  enlarge(map, width, height).forEach((value, i) => {
    const opacity = 255 * Math.min(Math.abs(value) / FULL, 1);
    image.data.set([...(value > 0 ? FOR : AGAINST), opacity], 4 * i);
  });
  Object.assign(canvas, { width, height }).getContext("2d").putImageData(image, 0, 0);
}

/** Where the evidence for and against is strongest, in words. place: what the map lies over. */
export function strongest(map, place) {
  const placed = enlarge(map, 30, 30);
  const said = [[1, "for"], [-1, "against"]].map(([sign, word]) => {
    const ninths = new Array(9).fill(0);
    placed.forEach((value, i) => (ninths[3 * Math.floor(i / 300) + Math.floor((i % 30) / 10)] += Math.max(sign * value, 0)));
    const most = Math.max(...ninths);
    if (!most) return `Nothing speaks ${word} malignancy.`;
    return `What speaks ${word} malignancy is strongest in the ${NINTHS[ninths.indexOf(most)]} part of ${place}.`;
  });
  return said.join(" ");
}
