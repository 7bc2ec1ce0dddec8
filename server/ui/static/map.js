// The map: a graticule, known rows as dots coloured by prediction, and the current row, which a click moves.

import { compact, range, scale, shade, svg, text, ticks, widthOf } from "./drawing.js";

const MARGIN = { left: 44, right: 8, top: 8, bottom: 56 };
const MIN_HEIGHT = 180;
const MAX_HEIGHT = 400;
const PAD = 0.08; // margin on each side, as a share of the extent
const STEPS = 40; // arrow key presses to cross the map

export class LocationMap {
  constructor(container, latitude, longitude, known, onMove) {
    Object.assign(this, { container, latitude, longitude, known, onMove });
    this.svg = svg("svg", { tabindex: 0, role: "application" });
    this.svg.addEventListener("click", (event) => this.click(event));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    container.replaceChildren(this.svg);
  }

  draw(row) {
    this.here = [row[this.latitude.name], row[this.longitude.name]];
    this.frame();
    const { width, height } = this;
    const label = `Map. The row is at ${this.latitude.title} ${this.here[0]}, ${this.longitude.title} ${this.here[1]}. Use the arrow keys to move it.`;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", label);
    this.svg.replaceChildren(...this.graticule(), ...this.dots(), ...this.cross(), ...this.legend());
  }

  // Fits the dots and the row into the width. Degrees of longitude get narrower away from the equator.
  frame() {
    const seen = (axis, column) => [...this.known.rows.map((row) => row[column.name]), this.here[axis]].filter(Number.isFinite);
    const [south, north] = padded(range(seen(0, this.latitude)));
    const [west, east] = padded(range(seen(1, this.longitude)));
    const narrow = Math.max(Math.cos(((south + north) / 2) * (Math.PI / 180)), 0.1);
    this.width = widthOf(this.container);
    const inner = this.width - MARGIN.left - MARGIN.right;
    this.perDegree = Math.min(inner / ((east - west) * narrow), MAX_HEIGHT / (north - south));
    const tall = Math.max((north - south) * this.perDegree, MIN_HEIGHT);
    this.height = tall + MARGIN.top + MARGIN.bottom;
    this.lat = around((south + north) / 2, tall / this.perDegree);
    this.lon = around((west + east) / 2, inner / (this.perDegree * narrow));
    this.x = scale(...this.lon, MARGIN.left, this.width - MARGIN.right);
    this.y = scale(...this.lat, MARGIN.top + tall, MARGIN.top);
  }

  graticule() {
    const [left, right] = this.lon.map(this.x);
    const [bottom, top] = this.lat.map(this.y);
    const across = ticks(...this.lat, 5).flatMap((degrees) => [
      svg("line", { class: "grid", x1: left, x2: right, y1: this.y(degrees), y2: this.y(degrees) }),
      svg("text", { x: left - 5, y: this.y(degrees) + 4, "text-anchor": "end" }, `${text(degrees, 6)}°`),
    ]);
    const up = ticks(...this.lon, Math.max(2, Math.floor((right - left) / 70))).flatMap((degrees) => [
      svg("line", { class: "grid", x1: this.x(degrees), x2: this.x(degrees), y1: bottom, y2: top }),
      svg("text", { x: this.x(degrees), y: bottom + 14, "text-anchor": "middle" }, `${text(degrees, 6)}°`),
    ]);
    const names = [
      svg("text", { class: "name", x: left + 6, y: top + 14 }, `${this.latitude.title} \u2191`),
      svg("text", { class: "name", x: right - 6, y: bottom - 7, "text-anchor": "end" }, `${this.longitude.title} \u2192`),
    ];
    const frame = svg("rect", { class: "frame", x: left, y: top, width: right - left, height: bottom - top });
    return [...across, ...up, frame, ...names];
  }

  dots() {
    const share = scale(...range(this.known.predictions), 0, 1);
    return this.known.rows.map((row, number) => {
      const [lat, lon] = [row[this.latitude.name], row[this.longitude.name]];
      const dot = svg("circle", { class: "known", cx: this.x(lon), cy: this.y(lat), r: 6 });
      dot.style.fill = shade(share(this.known.predictions[number]));
      dot.append(svg("title", {}, `prediction ${text(this.known.predictions[number])}`));
      return dot;
    });
  }

  cross() {
    if (!this.here.every(Number.isFinite)) {
      return [];
    }
    const [x, y] = [this.x(this.here[1]), this.y(this.here[0])];
    const line = `M${x - 13} ${y}h8m10 0h8M${x} ${y - 13}v8m0 10v8`;
    return [svg("circle", { class: "cross", cx: x, cy: y, r: 8 }), svg("path", { class: "cross", d: line })];
  }

  legend() {
    const [low, high] = range(this.known.predictions);
    const [from, top, width] = [MARGIN.left, this.height - 22, 160];
    const parts = Array.from({ length: 32 }, (_, part) => {
      const piece = svg("rect", { x: from + (part * width) / 32, y: top, width: width / 32 + 0.5, height: 8 });
      piece.style.fill = shade(part / 31);
      return piece;
    });
    const labels = [
      svg("text", { x: from, y: top + 20 }, compact(low)),
      svg("text", { x: from + width, y: top + 20, "text-anchor": "end" }, compact(high)),
      svg("text", { x: from + width + 8, y: top + 8 }, "prediction"),
    ];
    return [...parts, ...labels];
  }

  click(event) {
    const box = this.svg.getBoundingClientRect();
    const zoom = this.width / box.width;
    const [x, y] = [(event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom];
    const lat = scale(...this.lat.map(this.y), ...this.lat)(y);
    const lon = scale(...this.lon.map(this.x), ...this.lon)(x);
    if (lat >= this.lat[0] && lat <= this.lat[1] && lon >= this.lon[0] && lon <= this.lon[1]) {
      this.move(lat, lon);
    }
  }

  key(event) {
    const way = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (way && this.here.every(Number.isFinite)) {
      event.preventDefault();
      const step = (this.lat[1] - this.lat[0]) / STEPS;
      this.move(this.here[0] + way[0] * step, this.here[1] + way[1] * step);
    }
  }

  move(lat, lon) {
    const digits = Math.max(0, Math.ceil(Math.log10(this.perDegree)));
    this.onMove({
      [this.latitude.name]: within(this.latitude, lat, digits),
      [this.longitude.name]: within(this.longitude, lon, digits),
    });
  }
}

function padded([low, high]) {
  const pad = PAD * (high - low) || 0.5;
  return [low - pad, high + pad];
}

function around(middle, width) {
  return [middle - width / 2, middle + width / 2];
}

function within(column, value, digits) {
  const rounded = Number(value.toFixed(column.type === "int" ? 0 : digits));
  return Math.min(Math.max(rounded, column.min ?? -Infinity), column.max ?? Infinity);
}
