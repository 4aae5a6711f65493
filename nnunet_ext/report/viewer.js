// Scrolls through all slices of a case: wheel, swipe, slider and its keys. Layers are drawn on a canvas from pictures
// inside the page, which are decoded when the case comes into view and released when it leaves.
{
const WHEEL_STEP = 50;  // pixels of the wheel a slice; a notch of a mouse is 100 or more
const PAUSE = 300;  // milliseconds after which a wheel at the last slice scrolls the page
const FILL = 0.22;  // opacity of the segmentation where no map is shown, as on the chosen slices
const RIM = "rgb(0 0 0 / .4)";  // around lines, so that they stand out from image and map
const pointer = {x: -1, y: -1};

class Viewer {
  constructor(root) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.slider = root.querySelector("input[type=range]");
    this.name = this.canvas.getAttribute("aria-label");
    this.slices = this.slider ? Number(this.slider.max) : 1;
    this.slice = this.slider ? Number(this.slider.value) : 1;
    this.figures = [...root.parentElement.querySelectorAll("figure[data-slice]")];
    this.pictures = new Map();
    this.turn = 0;
    root.hidden = false;
    root.parentElement.classList.add("live");
    root.addEventListener("change", () => this.draw());
    this.slider?.addEventListener("input", () => this.show(Number(this.slider.value)));
    this.listenToWheel();
    this.listenToDrag();
    this.figures.forEach(figure => this.listenToFigure(figure));
  }

  get data() {
    return this.parsed ??= JSON.parse(this.root.querySelector("script").textContent);
  }

  show(slice) {
    this.slice = Math.min(Math.max(slice, 1), this.slices);
    if (this.slider) this.slider.value = this.slice;
    this.draw();
  }

  // The page scrolls under a pointer that rests; slices only under one that was moved or pressed on the picture.
  listenToWheel() {
    let pointed = false, way = 0, last = 0;
    window.addEventListener("scroll", () => { pointed = false; }, {passive: true});
    this.canvas.addEventListener("pointerdown", () => { pointed = true; });
    this.canvas.addEventListener("pointermove", event => {
      pointed ||= event.clientX !== pointer.x || event.clientY !== pointer.y;
    });
    this.canvas.addEventListener("wheel", event => {
      const isEnd = this.slice === (event.deltaY > 0 ? this.slices : 1);
      if (!pointed || event.ctrlKey || !event.deltaY || isEnd && event.timeStamp - last > PAUSE) return;
      event.preventDefault();
      last = event.timeStamp;
      way = (way * event.deltaY < 0 ? 0 : way) + event.deltaY * (event.deltaMode ? WHEEL_STEP : 1);
      if (Math.abs(way) < WHEEL_STEP) return;
      this.show(this.slice + Math.sign(way));
      way = 0;
    }, {passive: false});
  }

  // To the right is forward; up and down still scrolls the page on a touch screen (touch-action in the style).
  listenToDrag() {
    let start = null;
    this.canvas.addEventListener("pointerdown", event => {
      if (event.button) return;
      start = {x: event.clientX, slice: this.slice};
      this.canvas.setPointerCapture(event.pointerId);
      this.slider?.focus({preventScroll: true});
      event.preventDefault();
    });
    this.canvas.addEventListener("pointermove", event => {
      if (!start) return;
      const step = Math.min(Math.max(this.canvas.clientWidth / this.slices, 4), 40);
      const slice = start.slice + Math.round((event.clientX - start.x) / step);
      if (slice !== this.slice) this.show(slice);
    });
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => { start = null; });
  }

  listenToFigure(figure) {
    const title = figure.querySelector("figcaption strong");
    const button = document.createElement("button");
    button.type = "button";
    button.append(...title.childNodes);
    title.append(button);
    figure.addEventListener("click", () => this.show(Number(figure.dataset.slice)));
  }

  chosen(name) {
    return Number(this.root.querySelector(`[data-choice=${name}]`)?.value ?? 0);
  }

  isOn(layer) {
    return this.root.querySelector(`[data-layer=${layer}]`)?.checked ?? false;
  }

  // The pictures that are shown now, by layer.
  get sources() {
    const {channels, maps, segmentation, truth} = this.data;
    const all = {image: channels[this.chosen("channel")], map: maps[this.chosen("map")]?.picture, segmentation, truth};
    return Object.entries(all).filter(([layer]) => this.isOn(layer));
  }

  open() {
    this.isOpen = true;
    this.draw();
  }

  close() {
    this.isOpen = false;
    this.pictures.clear();
    this.parsed = null;
  }

  decoded(source) {
    if (!this.pictures.has(source)) {
      const picture = new Image();
      picture.src = source;
      this.pictures.set(source, picture.decode().then(() => picture));
    }
    return this.pictures.get(source);
  }

  async draw() {
    if (!this.isOpen) return;
    const turn = ++this.turn;
    const layers = await Promise.all(this.sources.map(async ([layer, source]) => [layer, await this.decoded(source)]));
    if (turn !== this.turn) return;  // another slice was asked for in the meantime
    this.compose(Object.fromEntries(layers));
    this.describe();
  }

  compose({image, map, segmentation, truth}) {
    const {context, canvas} = this;
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    for (const picture of [image, map]) {
      if (picture) context.drawImage(picture, ...this.cell(), 0, 0, canvas.width, canvas.height);
    }
    if (segmentation) this.drawSegmentation(this.labels(segmentation), !map);
    if (truth) this.drawTruth(this.labels(truth));
  }

  // Left, top, width and height of the slice in every picture.
  cell() {
    const {columns, cell, size, margin} = this.data, index = this.slice - 1;
    return [index % columns * cell[1] + margin, Math.floor(index / columns) * cell[0] + margin, size[1], size[0]];
  }

  // The labels of the slice, row by row; 0 is background, n has the n-th colour.
  labels(picture) {
    const [height, width] = this.data.size;
    const scratch = Object.assign(document.createElement("canvas"), {width, height});
    const context = scratch.getContext("2d", {willReadFrequently: true});
    context.drawImage(picture, ...this.cell(), 0, 0, width, height);
    const {data} = context.getImageData(0, 0, width, height);
    return Uint8Array.from({length: width * height}, (_, index) => Math.round(data[4 * index] / this.data.labelStep));
  }

  drawSegmentation(labels, isFilled) {
    const {context} = this, outlines = [...this.outlines(labels)], colour = label => this.data.colours[label - 1];
    context.globalAlpha = FILL;
    for (const [label, {area}] of isFilled ? outlines : []) {
      context.fillStyle = colour(label);
      context.fill(area);
    }
    context.globalAlpha = 1;
    for (const [, {border}] of outlines) this.stroke(border, RIM, 6);
    for (const [label, {border}] of outlines) this.stroke(border, colour(label), 4);
  }

  drawTruth(labels) {
    const outlines = [...this.outlines(labels).values()];
    for (const {border} of outlines) this.stroke(border, RIM, 5);
    for (const {border} of outlines) this.stroke(border, "#fff", 2);
  }

  stroke(border, colour, width) {
    this.context.strokeStyle = colour;
    this.context.lineWidth = width;
    this.context.stroke(border);
  }

  // Per label the area and the border of its pixels; the edge of the picture is no border.
  outlines(labels) {
    const [height, width] = this.data.size, paths = new Map();
    const x = column => column * this.canvas.width / width, y = row => row * this.canvas.height / height;
    const line = (path, left, top, right, bottom) => { path.moveTo(x(left), y(top)); path.lineTo(x(right), y(bottom)); };
    for (let row = 0, index = 0; row < height; row++) {
      for (let column = 0; column < width; column++, index++) {
        const label = labels[index];
        if (!label) continue;
        if (!paths.has(label)) paths.set(label, {border: new Path2D(), area: new Path2D()});
        const {border, area} = paths.get(label);
        if (!column || labels[index - 1] !== label) {
          let end = column + 1;
          while (end < width && labels[index - column + end] === label) end++;
          area.rect(x(column), y(row), x(end) - x(column), y(row + 1) - y(row));
          if (column) line(border, column, row, column, row + 1);
        }
        if (column + 1 < width && labels[index + 1] !== label) line(border, column + 1, row, column + 1, row + 1);
        if (row && labels[index - width] !== label) line(border, column, row, column + 1, row);
        if (row + 1 < height && labels[index + width] !== label) line(border, column, row + 1, column + 1, row + 1);
      }
    }
    return paths;
  }

  // Says which slice is shown, to the eye and to a screen reader.
  describe() {
    const reason = this.data.reasons[this.slice], title = `slice ${this.slice} of ${this.slices}`;
    const map = this.isOn("map") ? this.data.maps[this.chosen("map")].name : "";
    const words = title + (reason ? `: ${reason}` : "");
    this.root.querySelector(".position").textContent = words;
    this.slider?.setAttribute("aria-valuetext", words);
    const layers = this.sources.map(([layer]) => layer === "map" ? map : layer);
    this.canvas.setAttribute("aria-label", `${this.name}, ${title}: ${layers.join(", ") || "no layer"}`);
    this.figures.forEach(figure => figure.classList.toggle("shown", Number(figure.dataset.slice) === this.slice));
  }
}

// After the viewers' own listeners, which compare with where the pointer was before.
const viewers = new Map();
for (const root of document.querySelectorAll(".viewer")) viewers.set(root.querySelector("canvas"), new Viewer(root));
window.addEventListener("pointermove", event => Object.assign(pointer, {x: event.clientX, y: event.clientY}));
const watch = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) isIntersecting ? viewers.get(target).open() : viewers.get(target).close();
}, {rootMargin: "300px"});
document.querySelector(".hint").hidden = !viewers.size;
viewers.forEach((_, canvas) => watch.observe(canvas));
}
