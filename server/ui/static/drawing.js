// Shared by all charts: elements, scales, ticks, number formats and colours.

const SVG = "http://www.w3.org/2000/svg";
const VALUE_LABELS = new Map([[null, "missing"], [true, "yes"], [false, "no"]]);

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export function html(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// Returns the linear map from [low, high] to [from, to]. An empty range maps to the middle.
export function scale(low, high, from, to) {
  return (value) => (high > low ? from + ((value - low) / (high - low)) * (to - from) : (from + to) / 2);
}

// Returns about so many round numbers within [low, high].
export function ticks(low, high, about) {
  if (!(high > low)) {
    return [low];
  }
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= 0.7 * rough);
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: Math.max(count, 0) }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

const ROUNDED = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, useGrouping: "min2" });
const COMPACT = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, notation: "compact" });

// Formats a prediction: more digits would suggest a precision that no model has.
export function rounded(number) {
  return ROUNDED.format(number).replace("-", "\u2212");
}

// Formats a prediction with a K or M, for axes.
export function compact(number) {
  return COMPACT.format(number).replace("-", "\u2212");
}

export function text(number, digits = 4) {
  const whole = Math.abs(number) >= 10 ** digits;
  const form = whole ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: digits };
  return number.toLocaleString("en", { ...form, useGrouping: "min2" }).replace("-", "\u2212");
}

// Formats amounts for comparison, rounded so that the largest has three significant digits.
export function signed(number, largest) {
  const power = Math.floor(Math.log10(largest || 1)) - 2;
  const decimals = Math.min(Math.max(-power, 0), 12);
  const step = 10 ** Math.max(power, 0);
  const form = { minimumFractionDigits: decimals, maximumFractionDigits: decimals, signDisplay: "exceptZero", useGrouping: "min2" };
  return (power > 0 ? Math.round(number / step) * step : number).toLocaleString("en", form).replace("-", "\u2212");
}

// Returns the width to draw for. An element without layout has none.
export function widthOf(container) {
  return Math.max(container.clientWidth, 200);
}

// Formats a value of a row.
export function formatValue(value) {
  return typeof value === "number" ? text(value, 6) : VALUE_LABELS.get(value) ?? value;
}

export function shade(share) {
  return `color-mix(in oklab, var(--high) ${(100 * Math.min(Math.max(share, 0), 1)).toFixed(1)}%, var(--low))`;
}

export function range(values) {
  return [Math.min(...values), Math.max(...values)];
}
