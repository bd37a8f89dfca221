// A sheet to draw on, with mouse, finger, pen or arrow keys. Strokes are kept as points from 0 to 1, so that what is sent does not
// depend on how large the sheet is on this screen.

/** How drawings of a data set look: the pen's width in shares of the sheet, and whether they fill it. */
export const STYLES = {
  quickdraw: { pen: 16 / 304, fill: 256 / 304 },
  glyphs: { pen: 0.08, fill: 0 },
  omniglot: { pen: 0.035, fill: 0 },
  usual: { pen: 0.05, fill: 0 },
};
const SENT = 112; // pixels a side: four times what most nets look at
const LARGEST = 256; // of a picture: more than nets look at
const STEP = 0.02; // of the sheet, that an arrow key moves the pen; with Shift five times as much
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Surface {
  /**
   * @param canvas the sheet.
   * @param changed called whenever what is drawn has changed.
   */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.strokes = [];
    this.style = STYLES.usual;
    this.drawing = null;
    this.image = null;
    this.cleared = []; // what was on the sheet, for undo
    this.pen = null; // where the pen of the keyboard is, once there is one
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.lift());
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.end(event));
    this.show();
  }

  get empty() {
    return this.strokes.length === 0;
  }

  begin(event) {
    if (event.button !== 0 || this.drawing !== null) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.drawing = event.pointerId;
    this.pen = null;
    this.strokes.push([this.point(event)]);
    this.redraw();
  }

  move(event) {
    if (event.pointerId !== this.drawing) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.strokes.at(-1).push(this.point(one));
    this.redraw();
  }

  end(event) {
    if (event.pointerId !== this.drawing) return;
    this.drawing = null;
    this.redraw();
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  /** Arrow keys move a pen, which the space bar puts down and lifts; Backspace undoes. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) {
      const far = STEP * (event.shiftKey ? 5 : 1);
      const { at = [0.5, 0.5], down = false } = this.pen ?? {};
      this.pen = { at: at.map((v, i) => Math.min(1, Math.max(0, v + far * ARROWS[event.key][i]))), down };
      if (down) this.strokes.at(-1).push(this.pen.at);
      down ? this.redraw() : this.show();
    } else if (event.key === " " && !event.repeat) {
      this.pen = { at: this.pen?.at ?? [0.5, 0.5], down: !this.pen?.down };
      if (this.pen.down) this.strokes.push([this.pen.at]);
      this.redraw();
    } else if (event.key === "Backspace" || event.key === "Delete") {
      this.undo();
    } else return;
    event.preventDefault();
  }

  /** No pen of the keyboard any more. */
  lift() {
    if (!this.pen) return;
    this.pen = null;
    this.show();
  }

  undo() {
    if (this.pen) this.pen.down = false;
    if (this.empty) [this.strokes, this.cleared] = [this.cleared, []];
    else this.strokes.pop();
    this.redraw();
  }

  clear() {
    if (this.pen) this.pen.down = false;
    if (!this.empty) this.cleared = this.strokes;
    this.strokes = [];
    this.redraw();
  }

  /** Show a picture instead of strokes, until something is drawn. */
  put(image) {
    if (!this.empty) this.cleared = this.strokes;
    this.strokes = [];
    this.redraw();
    this.image = image;
    this.show();
  }

  redraw() {
    this.image = null;
    this.show();
    this.changed();
  }

  /** A picture that is faintly there while nothing is drawn: what one might draw another of. */
  set ghost(image) {
    this.behind = image;
    this.show();
  }

  show() {
    draw(this.canvas, this.strokes, this.style.pen);
    if (this.image) place(this.canvas, this.image);
    else if (this.behind && this.empty) place(this.canvas, this.behind, 0.35);
    if (this.pen) cross(this.canvas, this.pen);
  }

  /** What is drawn as a PNG of the size that is sent, as a data: address. */
  picture() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SENT;
    draw(canvas, this.style.fill ? filled(this.strokes, this.style.fill) : this.strokes, this.style.pen);
    return canvas.toDataURL("image/png");
  }
}

/** A picture in the middle of a sheet, as large as it may be. */
function place(canvas, image, opacity = 1) {
  const context = canvas.getContext("2d");
  const scale = canvas.width / Math.max(image.width, image.height);
  const [w, h] = [image.width * scale, image.height * scale];
  context.imageSmoothingEnabled = scale < 4;
  context.globalAlpha = opacity;
  context.drawImage(image, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  context.globalAlpha = 1;
}

/** Where the pen of the keyboard is: a ring while it is lifted, a dot while it is down. */
function cross(canvas, { at, down }) {
  const context = canvas.getContext("2d");
  context.beginPath();
  context.arc(at[0] * canvas.width, at[1] * canvas.height, canvas.width / 40, 0, 2 * Math.PI);
  context.lineWidth = canvas.width / 90;
  context.strokeStyle = context.fillStyle = "#2456c8";
  down ? context.fill() : context.stroke();
}

/** Dark strokes on a light sheet. */
function draw(canvas, strokes, pen) {
  const context = canvas.getContext("2d");
  const side = canvas.width;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, side, side);
  context.strokeStyle = "#000";
  context.lineWidth = pen * side;
  context.lineCap = context.lineJoin = "round";
  for (const [first, ...rest] of strokes) {
    context.beginPath();
    context.moveTo(first[0] * side, first[1] * side);
    for (const [x, y] of rest.length ? rest : [first]) context.lineTo(x * side, y * side);
    context.stroke();
  }
}

/** The same strokes, centred, their longer extent this share of the sheet. */
function filled(strokes, share) {
  const xs = strokes.flat().map(([x]) => x);
  const ys = strokes.flat().map(([, y]) => y);
  const [least, most] = [(a, b) => Math.min(a, b), (a, b) => Math.max(a, b)];
  const [left, right, top, bottom] = [xs.reduce(least), xs.reduce(most), ys.reduce(least), ys.reduce(most)];
  const scale = share / Math.max(right - left, bottom - top, 0.05);
  const place = ([x, y]) => [0.5 + (x - (left + right) / 2) * scale, 0.5 + (y - (top + bottom) / 2) * scale];
  return strokes.map((stroke) => stroke.map(place));
}

/**
 * A picture file of at most LARGEST pixels a side, as a data: address; an Error where it is none. What is shrunk was a
 * photograph or a scan, and goes as JPEG, a tenth as long.
 */
export async function read(file) {
  const image = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name} is no picture that this browser can read.`);
  });
  const scale = Math.min(1, LARGEST / Math.max(image.width, image.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return scale < 1 ? canvas.toDataURL("image/jpeg", 0.92) : canvas.toDataURL("image/png");
}
