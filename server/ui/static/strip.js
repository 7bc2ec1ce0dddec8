// The prediction and its interval among the predictions of known rows.

import { compact, range, scale, svg, text, widthOf } from "./drawing.js";

const HEIGHT = 40;

export function drawStrip(container, known, predicted) {
  const width = widthOf(container);
  const [low, high] = range([...known, predicted.value, ...predicted.ends]);
  const x = scale(low, high, 8, width - 8);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label(low, high) });
  chart.append(...known.map((value) => svg("line", { class: "rug", x1: x(value), x2: x(value), y1: 8, y2: 18 })));
  if (predicted.ends.length) {
    const [from, to] = predicted.ends.map(x);
    chart.append(svg("rect", { class: "ends", x: from, width: Math.max(to - from, 1), y: 4, height: 18, rx: 3 }));
  }
  chart.append(svg("circle", { class: "dot now", cx: x(predicted.value), cy: 13, r: 6 }));
  chart.append(svg("text", { x: 0, y: HEIGHT - 4 }, compact(low)));
  chart.append(svg("text", { x: width / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "each tick is a known row"));
  chart.append(svg("text", { x: width, y: HEIGHT - 4, "text-anchor": "end" }, compact(high)));
  container.replaceChildren(chart);
}

function label(low, high) {
  return `The prediction among those of known rows, from ${text(low)} to ${text(high)}`;
}
