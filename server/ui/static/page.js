// The prediction page: loads the model, builds the form and shows prediction, explanation and curves of the current row.

import { RequestError, callApi, useKey } from "./api.js";
import { drawBars } from "./bars.js";
import { drawCurves, mostImportant } from "./curves.js";
import { rounded, text } from "./drawing.js";
import { Form } from "./form.js";
import { LocationMap } from "./map.js";
import { drawStrip } from "./strip.js";

const DEBOUNCE_MS = 200; // wait after the last keystroke before a request
const find = (name) => document.querySelector(`#${name}`);

class Page {
  constructor(model, examples) {
    const columns = Object.entries(model.schema.columns).map(([name, column]) => ({
      name,
      ...column,
      title: titleOf(name, column),
      unitLabel: unitLabelOf(column),
    }));
    this.columns = columns.filter(({ role }) => ["feature", "latitude", "longitude"].includes(role));
    this.target = columns.find(({ role }) => role === "target");
    this.titles = new Map(columns.map(({ name, title }) => [name, title]));
    this.toUnit = (value) => value * (this.target.scale ?? 1); // the model predicts in multiples of scale
    this.served = model.version;
    this.coverage = examples.coverage;
    this.background = examples.background;
    this.known = {
      rows: [...examples.background.rows, ...examples.golden.rows],
      predictions: [...examples.background.predictions, ...examples.golden.predictions].map(this.toUnit),
    };
    this.form = new Form(find("fields"), this.columns, () => this.scheduleUpdate());
    this.showHeader(model);
    const [latitude, longitude] = ["latitude", "longitude"].map((role) => this.columns.find((column) => column.role === role));
    find("place").hidden = !latitude || !longitude;
    find("model").classList.toggle("placed", !find("place").hidden);
    find("model").hidden = false;
    this.map = latitude && longitude && new LocationMap(find("map"), latitude, longitude, this.known, (change) => this.move(change));
    find("row").addEventListener("submit", (event) => {
      event.preventDefault();
      this.update();
    });
    find("reset").addEventListener("click", () => this.move(model.example));
    new ResizeObserver(() => this.draw()).observe(find("model"));
    this.move(model.example);
  }

  showHeader(model) {
    const { name, description } = model.schema;
    const subject = this.target.description || this.target.name;
    document.title = `Predict ${subject}: ${name}`;
    find("title").textContent = `Predict ${subject}`;
    find("about").textContent = description || name;
    find("served").textContent = `${model.model}, version ${model.version}: ${model.card.model}`;
    find("prediction-title").textContent = `Predicted ${subject}`;
    find("unit").textContent = this.target.unit;
  }

  move(change) {
    this.form.fill({ ...this.form.read(), ...change });
    this.update();
  }

  scheduleUpdate() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.update(), DEBOUNCE_MS);
  }

  // Requests everything that is shown of the row. A new request cancels the previous one.
  async update() {
    clearTimeout(this.timer);
    this.pending?.abort();
    const { signal } = (this.pending = new AbortController());
    const unreadable = this.form.unreadable();
    if (unreadable.length) {
      this.refuse(unreadable, "");
      return;
    }
    try {
      const shown = await this.fetchAll(this.form.read(), signal);
      this.form.show([]);
      notice("");
      this.shown = shown;
      this.draw();
      find("prediction").classList.remove("stale");
    } catch (error) {
      if (error.name !== "AbortError") {
        this.refuse(error.errors ?? [], error.message);
      }
    }
  }

  async fetchAll(row, signal) {
    const query = this.coverage === null ? "" : `?interval=${this.coverage}`;
    const routes = [`predict${query}`, "explain", "curves"];
    const [answer, explanation, { curves }] = await Promise.all(routes.map((route) => callApi(route, row, signal)));
    const ends = answer.lower ? [answer.lower[0], answer.upper[0]].map(this.toUnit) : [];
    for (const curve of Object.values(curves)) {
      curve.predictions = curve.predictions.map(this.toUnit);
    }
    return { row, value: this.toUnit(answer.predictions[0]), ends, version: answer.version, explanation, curves };
  }

  refuse(errors, message) {
    find("prediction").classList.add("stale");
    const unplaced = this.form.show(errors).map((error) => [error.field, error.reason].filter(Boolean).join(": "));
    notice(errors.length ? unplaced.join(" ") : message);
  }

  draw() {
    if (!this.shown) {
      return;
    }
    const { row, value, ends, version, explanation, curves } = this.shown;
    find("value").textContent = rounded(value);
    find("interval").textContent = ends.length ? this.describeInterval(ends) : "";
    drawStrip(find("strip"), this.known.predictions, { value, ends });
    this.map?.draw(row);
    this.explain(explanation, row);
    const columns = mostImportant(this.columns, explanation.contributions);
    drawCurves(find("curves"), { columns, curves, row, onMove: (change) => this.move(change) });
    if (version !== this.served) {
      notice(`Version ${version} is now served. Reload the page to use its columns.`);
    }
  }

  explain({ base_value: base, prediction, contributions, method }, row) {
    const count = this.background.rows.length;
    const how = method === "exact" ? "exact Shapley values" : "sampled Shapley values";
    const amounts = Object.fromEntries(Object.entries(contributions).map(([name, amount]) => [name, this.toUnit(amount)]));
    const mean = this.withUnit(this.toUnit(base));
    find("explanation-lead").textContent = `The mean prediction for ${count} typical rows is ${mean}. This row's columns change it as follows (${how}):`;
    drawBars(document.querySelector("#bars tbody"), amounts, row, this.titles);
    find("explanation-sum").textContent = `The sum is the prediction: ${this.withUnit(this.toUnit(prediction))}.`;
  }

  describeInterval([lower, upper]) {
    return `${text(100 * this.coverage, 3)} % prediction interval: ${rounded(lower)} to ${this.withUnit(upper)}`;
  }

  withUnit(value) {
    return `${rounded(value)} ${this.target.unit}`.trim();
  }
}

// Returns the title of a column: its role, its description or else its name.
function titleOf(name, { role, description }) {
  const title = role === "latitude" || role === "longitude" ? role : description || name;
  return title[0].toUpperCase() + title.slice(1);
}

// Returns the unit of the values that the model takes, such as "10,000 USD" for unit USD and scale 10000.
function unitLabelOf({ unit, scale = 1 }) {
  return scale === 1 ? unit : `${scale.toLocaleString("en")} ${unit}`;
}

function notice(message) {
  find("notice").textContent = message;
  find("notice").hidden = !message;
}

async function start() {
  try {
    const [model, examples] = await Promise.all([callApi("model"), callApi("examples")]);
    find("key").hidden = true;
    notice("");
    new Page(model, examples);
  } catch (error) {
    find("key").hidden = !(error instanceof RequestError && [401, 403].includes(error.status));
    notice(error.message);
  }
}

find("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(find("key-value").value);
  start();
});
start();
