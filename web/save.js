// The results as files, which the browser saves.

const COLUMNS = ["image", "call", "probability", "share_of_cancers", "probability_uncorrected", "typicality", "found",
  "window_x", "window_y", "window_width", "window_height", "x", "y", "width", "height", "model"];
const [LEAST_WIDTH, MARGIN, FONT] = [640, 16, 16]; // pixels of a saved picture
const [INK, PAPER, WINDOW, RECTANGLE, DASH] = ["#1d2125", "#ffffff", "#ffffff", "#ffe066", 6]; // dashes in pixels

/** A cell of a CSV. A text that a spreadsheet would take for a formula gets an apostrophe. */
function cell(value) {
  if (typeof value !== "string") return value === undefined ? "" : String(Number(value.toPrecision(7)));
  const text = value.replace(/^[=+\-@\t\r]/, "'$&");
  return /[",;\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** rows: objects with some of COLUMNS. Returns: a Blob. */
export function csv(rows) {
  const lines = [COLUMNS, ...rows.map((row) => COLUMNS.map((column) => row[column]))];
  const text = lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("");
  return new Blob([`\ufeff${text}`], { type: "text/csv" }); // by its first bytes Excel knows UTF-8
}

/** A text as lines of a width. */
function wrapped(context, text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (context.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

/** A picture with its evidence map, the window, the rectangle of the user and what is said of it.
 *  map: {canvas, place, opacity}; rectangle: null if the user drew none. Returns: a promise of a Blob. */
export function png({ canvas, width, height }, map, window, rectangle, texts) {
  const scale = Math.max(1, LEAST_WIDTH / width);
  const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
  const context = document.createElement("canvas").getContext("2d");
  context.font = `${FONT}px sans-serif`;
  const lines = texts.filter(Boolean).flatMap((text) => wrapped(context, text, across - 2 * MARGIN));
  Object.assign(context.canvas, { width: across, height: down + 2 * MARGIN + lines.length * 1.4 * FONT });
  context.fillStyle = PAPER;
  context.fillRect(0, 0, across, context.canvas.height);
  context.save();
  context.beginPath();
  context.rect(0, 0, across, down);
  context.clip();
  context.scale(scale, scale);
  context.drawImage(canvas, 0, 0);
  context.globalAlpha = map.opacity;
  context.drawImage(map.canvas, ...map.place);
  context.globalAlpha = 1;
  for (const [place, light] of [[window, WINDOW], [rectangle, RECTANGLE]]) {
    context.setLineDash(place === rectangle ? [DASH / scale] : []);
    for (const [colour, thick] of place ? [["#000000", 4], [light, 2]] : []) {
      Object.assign(context, { strokeStyle: colour, lineWidth: thick / scale });
      context.strokeRect(...place);
    }
  }
  context.restore();
  Object.assign(context, { font: `${FONT}px sans-serif`, fillStyle: INK, textBaseline: "top" });
  lines.forEach((line, i) => context.fillText(line, MARGIN, down + MARGIN + i * 1.4 * FONT));
  return new Promise((done) => context.canvas.toBlob(done, "image/png"));
}

/** Let the browser save a file. */
export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
