// The rectangle around a lesion, which the user draws, moves and resizes by mouse, touch and keyboard.
// A rectangle is [x, y, width, height] in whole pixels of the image.

const FACTOR = 2.5; // side of the window, in longer sides of the rectangle: common/lesion.py
const LEAST = 4; // pixels a side
const STEP = 0.01; // of the longer side of the image, for an arrow key
const CLICK = 4; // pixels on the screen: what moved less was no drag
const AT_FIRST = 1 / 3; // of the shorter side of the image: a rectangle where a click says that the lesion is
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const limit = (value, low, high) => Math.min(Math.max(value, low), high);

/** The window that the model looks at around a rectangle. */
export function windowOf([x, y, width, height]) {
  const side = FACTOR * Math.max(width, height);
  return [x + (width - side) / 2, y + (height - side) / 2, side, side];
}

/** The rectangle between two corners, inside the image. */
function between([x1, y1], [x2, y2], { width, height }) {
  const side = (a, b, length) => {
    const low = limit(Math.round(Math.min(a, b)), 0, length - LEAST);
    return [low, limit(Math.round(Math.max(a, b)) - low, LEAST, length - low)];
  };
  const [[x, across], [y, down]] = [side(x1, x2, width), side(y1, y2, height)];
  return [x, y, across, down];
}

/** The rectangle in the middle of a window, inside the image. */
export function rectangleIn([x, y, width, height], size) {
  const [across, down] = [width / FACTOR / 2, height / FACTOR / 2];
  const [middle, centre] = [x + width / 2, y + height / 2];
  return between([middle - across, centre - down], [middle + across, centre + down], size);
}

function moved([x, y, width, height], across, down, size) {
  const to = [limit(Math.round(x + across), 0, size.width - width), limit(Math.round(y + down), 0, size.height - height)];
  return [...to, width, height];
}

const centred = ([, , width, height], [x, y], size) => moved([0, 0, width, height], x - width / 2, y - height / 2, size);

/** The corner across from one that is named nw, ne, sw or se. */
function opposite([x, y, width, height], corner) {
  return [corner.includes("w") ? x + width : x, corner.includes("n") ? y + height : y];
}

/** Whether a rectangle fills so much of the image that it cannot be moved to a lesion: one is drawn inside it. */
const isLarge = ([, , width, height], size) => width * height > (size.width * size.height) / 2;

function clicked(rectangle, point, size) {
  const side = AT_FIRST * Math.min(size.width, size.height);
  return centred(isLarge(rectangle, size) ? between([0, 0], [side, side], size) : rectangle, point, size);
}

/** Put an element over a rectangle of an image. */
export function place(element, [x, y, width, height], size) {
  const shares = { left: x / size.width, top: y / size.height, width: width / size.width, height: height / size.height };
  for (const [side, share] of Object.entries(shares)) element.style.setProperty(side, `${100 * share}%`);
}

/** Let the user edit the rectangle `box`, an element over the picture `frame`. changed: called with each rectangle that
 *  the user makes, and with the one shown where the user clicks on it or presses Enter: it is right.
 *  Returns: a function that shows a rectangle on an image of a size, or nothing where there is none to edit. */
export function makeEditor(frame, box, changed) {
  let [size, rectangle, drag] = [null, null, null];

  function show(now, of) {
    [rectangle, size] = [now, of];
    box.hidden = !now;
    frame.classList.toggle("editable", Boolean(now));
    if (!now) return (drag = null);
    place(box, now, of);
    const [x, y, width, height] = now;
    box.setAttribute("aria-label", `Rectangle around the lesion: ${x} from the left, ${y} from the top, ${width} wide, ${height} high`);
  }

  function change(now) {
    show(now, size);
    changed(now);
  }

  function at(event) {
    const { left, top, width, height } = frame.getBoundingClientRect();
    return [((event.clientX - left) * size.width) / width, ((event.clientY - top) * size.height) / height];
  }

  frame.addEventListener("pointerdown", (event) => {
    if (!rectangle || event.button || drag) return;
    const [start, before, { corner }] = [at(event), rectangle, event.target.dataset];
    const onBox = box.contains(event.target) && !isLarge(rectangle, size);
    const to = corner ? (point) => between(opposite(before, corner), point, size)
      : onBox ? ([x, y]) => moved(before, x - start[0], y - start[1], size)
      : (point) => between(start, point, size);
    drag = { to, before, onBox, pointer: event.pointerId, from: [event.clientX, event.clientY], far: false };
    frame.setPointerCapture(event.pointerId);
    event.preventDefault(); // selects no text, starts no scrolling
    box.focus({ preventScroll: true });
  });
  frame.addEventListener("pointermove", (event) => {
    if (event.pointerId !== drag?.pointer) return;
    drag.far ||= Math.hypot(event.clientX - drag.from[0], event.clientY - drag.from[1]) >= CLICK;
    if (drag.far) change(drag.to(at(event)));
  });
  frame.addEventListener("pointerup", (event) => {
    if (event.pointerId !== drag?.pointer) return;
    if (!drag.far) change(drag.onBox ? rectangle : clicked(rectangle, at(event), size));
    drag = null;
  });
  frame.addEventListener("pointercancel", () => {
    if (drag) change(drag.before); // the touch scrolls the page
    drag = null;
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter") change(rectangle);
    const arrow = ARROWS[event.key];
    if (!arrow || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const step = Math.max(1, Math.round(STEP * Math.max(size.width, size.height)));
    const [across, down] = arrow.map((direction) => direction * step);
    const [x, y, width, height] = rectangle;
    const end = [Math.max(x + width + across, x + LEAST), Math.max(y + height + down, y + LEAST)];
    change(event.shiftKey ? between([x, y], end, size) : moved(rectangle, across, down, size));
  });
  return show;
}
