// The page: asks what is served, makes the form, and shows prediction, reasons and curves of the row whenever it changes.

import { RequestError, callApi, useKey } from "./api.js";
import { drawBars } from "./bars.js";
import { drawCurves, mostImportant } from "./curves.js";
import { text } from "./drawing.js";
import { Form } from "./form.js";
import { LocationMap } from "./map.js";
import { drawStrip } from "./strip.js";

const DEBOUNCE_MS = 200; // milliseconds without a keystroke before the server is asked
const find = (name) => document.querySelector(`#${name}`);

class Page {
  constructor(model, examples) {
    const columns = Object.entries(model.schema.columns).map(([name, column]) => ({ name, ...column }));
    this.columns = columns.filter(({ role }) => role !== "key" && role !== "target");
    this.target = columns.find(({ role }) => role === "target");
    this.served = model.version;
    this.coverage = examples.coverage;
    this.background = examples.background;
    this.known = {
      rows: [...examples.background.rows, ...examples.golden.rows],
      predictions: [...examples.background.predictions, ...examples.golden.predictions],
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
    document.title = `Predict ${this.target.name}: ${name}`;
    find("title").textContent = `Predict ${this.target.name}`;
    find("about").textContent = [description || name, this.target.description].filter(Boolean).join(". Predicted: ");
    find("served").textContent = `${model.model}, version ${model.version}: ${model.card.model}`;
    find("prediction-title").textContent = `Predicted ${this.target.name}`;
    find("unit").textContent = unit(this.target);
  }

  move(change) {
    this.form.fill({ ...this.form.read(), ...change });
    this.update();
  }

  scheduleUpdate() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.update(), DEBOUNCE_MS);
  }

  // Asks for all that is shown of the row. Of several questions only the last one counts.
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
    const ends = answer.lower ? [answer.lower[0], answer.upper[0]] : [];
    return { row, value: answer.predictions[0], ends, version: answer.version, explanation, curves };
  }

  refuse(errors, message) {
    find("prediction").classList.add("stale");
    const unplaced = this.form.show(errors).map((error) => [error.field, error.reason].filter(Boolean).join(" "));
    notice(errors.length ? unplaced.join("; ") : message);
  }

  draw() {
    if (!this.shown) {
      return;
    }
    const { row, value, ends, version, explanation, curves } = this.shown;
    find("value").textContent = text(value);
    find("interval").textContent = ends.length ? between(ends, this.coverage) : "";
    drawStrip(find("strip"), this.known.predictions, { value, ends });
    this.map?.draw(row);
    this.explain(explanation, row);
    const columns = mostImportant(this.columns, explanation.contributions);
    drawCurves(find("curves"), { columns, curves, row, onMove: (change) => this.move(change) });
    if (version !== this.served) {
      notice(`Version ${version} is served now: reload the page to see its columns.`);
    }
  }

  explain({ base_value: base, prediction, contributions, method }, row) {
    const count = this.background.rows.length;
    const how = method === "exact" ? "Shapley values, exact" : "Shapley values, from a sample of orders";
    find("explanation-lead").textContent = `On average ${text(base)} is predicted for ${count} typical rows. Each column of this row moves that (${how}):`;
    drawBars(document.querySelector("#bars tbody"), contributions, row);
    find("explanation-sum").textContent = `Together they lead to ${text(prediction)}.`;
  }
}

function unit({ unit: words }) {
  return /^\d/.test(words) ? `\u00d7 ${words}` : words;
}

function between([lower, upper], coverage) {
  return `${text(100 * coverage, 3)} % of such rows are expected between ${text(lower)} and ${text(upper)}`;
}

function notice(words) {
  find("notice").textContent = words;
  find("notice").hidden = !words;
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
