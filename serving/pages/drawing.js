// A canvas for a drawing that reaches the model as MNIST's digits do: white on black, scaled to fill 20 of 28 pixels, centred by mass.
// Of the shorter side, as in MNIST: how much the drawing fills, and how thick its lines are.
const FILLED = 20 / 28;
const THICK = 2.4 / 28;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

class Drawing {
  constructor(canvas, seen, changed) {
    this.canvas = canvas;
    this.seen = seen;
    this.changed = changed;
    this.strokes = [];
    this.pixels = null;
    this.pen = { x: canvas.width / 2, y: canvas.height / 2, down: false, shown: false };
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(name, () => this.end());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.pen.down = this.pen.shown = false; this.paint(); });
    this.clear();
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * this.canvas.width / box.width, (event.clientY - box.top) * this.canvas.height / box.height];
  }

  begin(event) {
    if (event.button !== 0 || this.stroke) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.pen.down = this.pen.shown = false;
    this.pointer = event.pointerId;
    this.open(this.place(event));
  }

  open(point) {
    this.pixels = null;
    this.stroke = [point];
    this.strokes.push(this.stroke);
    this.update();
  }

  go(event) {
    if (!this.stroke || event.pointerId !== this.pointer) return;
    const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const one of events.length ? events : [event]) this.stroke.push(this.place(one));
    this.update();
  }

  end() {
    if (!this.stroke || this.pen.down) return;
    this.stroke = null;
    this.changed();
  }

  key(event) {
    const step = KEYS[event.key];
    if (event.key === " ") {
      this.pen.down = !this.pen.down;
      this.stroke = null;
      if (this.pen.down) this.open([this.pen.x, this.pen.y]);
    } else if (step) {
      const length = Math.min(this.canvas.width, this.canvas.height) / 28;
      this.pen.x = Math.min(this.canvas.width, Math.max(0, this.pen.x + step[0] * length));
      this.pen.y = Math.min(this.canvas.height, Math.max(0, this.pen.y + step[1] * length));
      if (this.pen.down) this.stroke.push([this.pen.x, this.pen.y]);
    } else return;
    event.preventDefault();
    this.pen.shown = true;
    this.update();
  }

  update() {
    this.paint();
    this.changed();
  }

  clear() {
    this.strokes = [];
    this.stroke = null;
    this.pixels = null;
    this.pen.down = false;
    this.update();
  }

  // Shows values that are there already, as an example is.
  show(rows) {
    this.clear();
    this.pixels = rows;
    this.update();
  }

  get empty() {
    return this.pixels === null && this.strokes.length === 0;
  }

  // Draws the strokes with this scale and shift, in white on black.
  static trace(context, strokes, scale, left, top, thick) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    context.strokeStyle = context.fillStyle = "#fff";
    context.lineWidth = thick;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of strokes) {
      context.beginPath();
      const points = stroke.map(([x, y]) => [x * scale + left, y * scale + top]);
      if (points.every(([x, y]) => Math.hypot(x - points[0][0], y - points[0][1]) < thick / 4)) {
        context.arc(points[0][0], points[0][1], thick / 2, 0, 2 * Math.PI);
        context.fill();
        continue;
      }
      context.moveTo(...points[0]);
      for (const point of points.slice(1)) context.lineTo(...point);
      context.stroke();
    }
  }

  static grey(context) {
    const { data } = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
    return Array.from({ length: data.length / 4 }, (_, place) => data[4 * place]);
  }

  static fill(context, values) {
    const image = context.createImageData(context.canvas.width, context.canvas.height);
    values.forEach((value, place) => image.data.set([value, value, value, 255], 4 * place));
    context.putImageData(image, 0, 0);
  }

  paint() {
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    const seen = this.seen.getContext("2d", { willReadFrequently: true });
    const side = Math.min(this.canvas.width, this.canvas.height);
    if (this.pixels) {
      Drawing.fill(seen, this.pixels.flat());
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(this.seen, 0, 0, this.canvas.width, this.canvas.height);
    } else {
      Drawing.trace(context, this.strokes, 1, 0, 0, side * THICK);
      this.centre(seen);
    }
    if (this.pen.shown) {
      context.beginPath();
      context.lineWidth = 2;
      context.strokeStyle = this.pen.down ? "#7fd6a3" : "#7cb8f5";
      context.arc(this.pen.x, this.pen.y, side * THICK, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  // The drawing's bounding box scaled and put into the middle, then moved so that its centre of mass is there.
  centre(context) {
    const { width, height } = context.canvas;
    const points = this.strokes.flat();
    if (!points.length) {
      Drawing.trace(context, [], 1, 0, 0, 1);
      return;
    }
    const thick = THICK * Math.min(width, height);
    const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
    const box = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    const [[left, right], [top, bottom]] = [box(xs), box(ys)];
    // A dot stays a dot: nothing grows to more than four times what it was on the canvas.
    const grown = 4 * width / this.canvas.width;
    const scale = Math.min(grown, (FILLED * width - thick) / (right - left), (FILLED * height - thick) / (bottom - top));
    let across = width / 2 - scale * (left + right) / 2;
    let down = height / 2 - scale * (top + bottom) / 2;
    Drawing.trace(context, this.strokes, scale, across, down, thick);
    let [mass, x, y] = [0, 0, 0];
    Drawing.grey(context).forEach((value, place) => {
      mass += value;
      x += value * (place % width + 0.5);
      y += value * (Math.floor(place / width) + 0.5);
    });
    across += Math.round(width / 2 - x / mass);
    down += Math.round(height / 2 - y / mass);
    Drawing.trace(context, this.strokes, scale, across, down, thick);
  }

  // What the model gets: rows of the original values where nothing was drawn, else 0 (black) to 255 (white).
  values() {
    if (this.pixels) return this.pixels;
    const flat = Drawing.grey(this.seen.getContext("2d", { willReadFrequently: true }));
    const { width, height } = this.seen;
    return Array.from({ length: height }, (_, row) => flat.slice(row * width, (row + 1) * width));
  }
}
