// Small charts of how the prediction changes along each column, with the others fixed. All share one scale.

import { compact, formatValue, html, range, scale, svg, text, ticks, widthOf } from "./drawing.js";

const MAX_CURVES = 24;
const HEIGHT = 150;
const MARGIN = { left: 46, right: 10, top: 10, bottom: 22 };

// Returns the columns with the largest contributions, in the order of the schema.
export function mostImportant(columns, contributions) {
  const weight = ({ name }) => Math.abs(contributions[name]);
  const most = new Set([...columns].sort((left, right) => weight(right) - weight(left)).slice(0, MAX_CURVES));
  return columns.filter((column) => most.has(column) && column.type !== "text");
}

export function drawCurves(container, { columns, curves, row, onMove }) {
  const parts = columns.map((column) => ({ column, ...curves[column.name], now: row[column.name] }));
  const [low, high] = range(parts.flatMap(({ predictions }) => predictions));
  const figures = parts.map(({ column }) => {
    const unit = html("span", {}, column.unitLabel && ` (${column.unitLabel})`);
    return html("figure", {}, html("figcaption", {}, column.title, unit));
  });
  container.replaceChildren(...figures);
  figures.forEach((figure, number) => figure.append(draw(parts[number], widthOf(figure), low, high, onMove)));
}

function draw({ column, values, predictions: predicted, now }, width, low, high, onMove) {
  const right = width - MARGIN.right;
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
  const y = scale(low - pad, high + pad, HEIGHT - MARGIN.bottom, MARGIN.top);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label(column, predicted) });
  chart.append(
    ...ticks(low - pad, high + pad, 4).flatMap((value) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) }),
      svg("text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, compact(value)),
    ]),
  );
  const isCurve = column.type === "float" || column.type === "int";
  const x = isCurve ? alongNumbers(values, right) : alongLevels(values, right);
  chart.append(...(isCurve ? axis(values, x) : names(values, x, right)));
  if (isCurve) {
    const line = values.flatMap((value, index) => (value === null ? [] : [`${x(value)},${y(predicted[index])}`]));
    chart.append(svg("polyline", { class: "curve", points: line.join(" ") }));
  }
  const dots = values.map((value, index) => [value, x(value), y(predicted[index])]);
  const isHere = ([value]) => value === now;
  const alone = dots.filter((dot) => !isHere(dot) && (!isCurve || dot[0] === null));
  chart.append(...alone.map(([, cx, cy]) => svg("circle", { class: "dot", cx, cy, r: 4 })));
  chart.append(
    ...dots.filter(isHere).flatMap(([, cx, cy]) => [
      svg("line", { class: "here", x1: cx, x2: cx, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      svg("circle", { class: "dot now", cx, cy, r: 5 }),
    ]),
  );
  chart.append(target(column, dots, width, onMove));
  return chart;
}

// Places numbers along the axis, and a missing value to their right.
function alongNumbers(values, right) {
  const numbers = values.filter((value) => value !== null);
  const end = numbers.length < values.length ? right - 54 : right;
  const along = scale(...range(numbers), MARGIN.left + 6, end - 6);
  return (value) => (value === null ? right - 14 : along(value));
}

function alongLevels(values, right) {
  const step = (right - MARGIN.left) / values.length;
  return (value) => MARGIN.left + step * (values.indexOf(value) + 0.5);
}

function axis(values, x) {
  const numbers = values.filter((value) => value !== null);
  const room = x(numbers.at(-1)) - x(numbers[0]);
  const under = (at, label) => svg("text", { x: at, y: HEIGHT - 6, "text-anchor": "middle" }, label);
  const marks = ticks(...range(numbers), Math.max(2, Math.floor(room / 60))).map((value) => under(x(value), text(value, 6)));
  return numbers.length < values.length ? [...marks, under(x(null) - 6, "missing")] : marks;
}

function names(values, x, right) {
  const room = (right - MARGIN.left) / values.length;
  const letters = Math.max(Math.floor(room / 6), 0);
  return values.map((value) => {
    const name = formatValue(value);
    const short = name.length > letters ? `${name.slice(0, letters - 1)}\u2026` : name;
    const shown = svg("text", { x: x(value), y: HEIGHT - 6, "text-anchor": "middle" }, letters > 2 ? short : "");
    shown.append(svg("title", {}, name));
    return shown;
  });
}

// Makes the whole chart clickable: the nearest value of the grid becomes the row's.
function target(column, dots, width, onMove) {
  const area = svg("rect", { class: "target", x: MARGIN.left, y: 0, width: width - MARGIN.left, height: HEIGHT });
  area.addEventListener("click", (event) => {
    const box = area.getBoundingClientRect();
    const at = MARGIN.left + ((event.clientX - box.left) * (width - MARGIN.left)) / box.width;
    const [nearest] = dots.reduce((best, dot) => (Math.abs(dot[1] - at) < Math.abs(best[1] - at) ? dot : best));
    onMove({ [column.name]: typeof nearest === "number" ? Number(nearest.toPrecision(6)) : nearest });
  });
  return area;
}

function label(column, predicted) {
  const [low, high] = range(predicted);
  return `Predictions along ${column.title}: from ${text(low)} to ${text(high)}`;
}
