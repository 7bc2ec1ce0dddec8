// The explanation as bars: what each column adds to the mean prediction or subtracts from it.

import { html, range, formatValue, signed } from "./drawing.js";

const MAX_BARS = 12; // columns with a bar of their own
const MAX_TEXT = 60; // characters of a text

export function drawBars(body, contributions, row, titles) {
  const all = Object.entries(contributions).sort(([, left], [, right]) => Math.abs(right) - Math.abs(left));
  const shown = all.length > MAX_BARS ? all.slice(0, MAX_BARS - 1) : all;
  const rest = all.slice(shown.length);
  const lines = shown.map(([name, amount]) => [[html("b", {}, titles.get(name)), ` = ${String(formatValue(row[name])).slice(0, MAX_TEXT)}`], amount]);
  if (rest.length) {
    lines.push([[`${rest.length} other columns`], rest.reduce((sum, [, amount]) => sum + amount, 0)]);
  }
  const [low, high] = range([0, ...lines.map(([, amount]) => amount)]);
  body.replaceChildren(...lines.map(([label, amount]) => line(label, amount, low, high)));
}

function line(label, amount, low, high) {
  const width = high - low || 1;
  const bar = html("div", { className: amount < 0 ? "bar less" : "bar" });
  bar.style.left = `${(100 * (Math.min(amount, 0) - low)) / width}%`;
  bar.style.width = `${(100 * Math.abs(amount)) / width}%`;
  const track = html("div", { className: "track" }, bar);
  track.style.setProperty("--zero", `${(100 * -low) / width}%`);
  const name = html("th", { scope: "row" }, ...label);
  return html("tr", {}, name, html("td", {}, track), html("td", { className: "amount" }, signed(amount, Math.max(-low, high))));
}
