// The form for one row, built from the columns of the schema.

import { html, text } from "./drawing.js";

const DIGITS = 8; // significant digits of a number that the page fills in: more do not fit on a phone

const TEXT_ROWS = 3; // lines of a text that are seen at once

const MAX_SUGGESTIONS = 500; // more slow down the browser

export class Form {
  constructor(container, columns, onChange) {
    this.fields = new Map(columns.map((column, number) => [column.name, new Field(column, `field-${number}`, onChange)]));
    container.replaceChildren(...[...this.fields.values()].map((field) => field.element));
  }

  fill(row) {
    this.fields.forEach((field, name) => field.fill(row[name]));
  }

  read() {
    return Object.fromEntries([...this.fields].map(([name, field]) => [name, field.read()]));
  }

  // Returns the inputs that the browser cannot parse, in the form of the server's errors.
  unreadable() {
    return [...this.fields].filter(([, field]) => field.isUnreadable()).map(([name]) => ({ field: name, reason: "Not a number." }));
  }

  // Shows each error at its field and returns the errors without a field.
  show(errors) {
    this.fields.forEach((field) => field.showError(""));
    errors.forEach((error) => this.fields.get(error.field)?.showError(error.reason));
    return errors.filter((error) => !this.fields.has(error.field));
  }
}

class Field {
  constructor(column, id, onChange) {
    this.column = column;
    this.input = control(column);
    Object.assign(this.input, { id, name: column.name });
    this.input.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
    this.input.addEventListener("input", onChange);
    this.error = html("p", { id: `${id}-error`, className: "error" });
    const label = html("label", { htmlFor: id }, column.title, html("span", { className: "unit" }, column.unitLabel && ` (${column.unitLabel})`));
    const hint = html("p", { id: `${id}-hint`, className: "hint" }, hintOf(column));
    const body = isCheckbox(column) ? [html("div", { className: "tick" }, this.input, label)] : [label, this.input];
    this.element = html("div", { className: "field" }, ...body, hint, this.error);
  }

  fill(value) {
    if (isCheckbox(this.column)) {
      this.input.checked = value === true;
    } else {
      this.input.value = typeof value === "number" && this.column.type === "float" ? Number(value.toPrecision(DIGITS)) : value ?? "";
    }
  }

  read() {
    if (isCheckbox(this.column)) {
      return this.input.checked;
    }
    const entered = this.input.value;
    if (entered === "") {
      return null;
    }
    if (this.column.type === "bool") {
      return entered === "true";
    }
    return isText(this.column) && !isPlainNumber(this.column, entered) ? entered : Number(entered);
  }

  isUnreadable() {
    return this.input.validity.badInput;
  }

  showError(reason) {
    this.error.textContent = reason;
    this.input.toggleAttribute("aria-invalid", false);
    if (reason) {
      this.input.setAttribute("aria-invalid", "true");
    }
  }
}

function isText(column) {
  return ["category", "ordinal", "date", "text"].includes(column.type) || Boolean(column.parse);
}

// Returns whether a number that may be written as text is written plainly. With a decimal comma, a point would be misread.
function isPlainNumber(column, entered) {
  return column.parse && entered.trim() !== "" && Number.isFinite(Number(entered)) && !(column.parse === "decimal_comma" && entered.includes("."));
}

function isCheckbox(column) {
  return column.type === "bool" && !column.nullable;
}

function control(column) {
  if (isCheckbox(column)) {
    return html("input", { type: "checkbox" });
  }
  if (column.type === "category" && column.unseen !== "refuse") {
    return suggestions(column);
  }
  if (column.type === "text") {
    return html("textarea", { rows: TEXT_ROWS, maxLength: column.max_length, required: !column.nullable });
  }
  if (column.type === "date" || column.parse) {
    const placeholder = column.format || (column.nullable ? "missing" : "");
    return html("input", { type: "text", autocomplete: "off", required: !column.nullable, placeholder });
  }
  if (column.type === "category" || column.type === "ordinal" || column.type === "bool") {
    const levels = column.type === "bool" ? [["true", "yes"], ["false", "no"]] : levelsOf(column).map((name) => [name, name]);
    const missing = column.nullable ? [["", "missing"]] : [];
    return html("select", {}, ...[...missing, ...levels].map(([value, shown]) => html("option", { value }, shown)));
  }
  const bounds = { ...(column.min !== null && { min: column.min }), ...(column.max !== null && { max: column.max }) };
  const input = html("input", { type: "number", step: column.type === "int" ? 1 : "any", autocomplete: "off", ...bounds });
  input.required = !column.nullable;
  input.placeholder = column.nullable ? "missing" : "";
  return input;
}

function levelsOf(column) {
  return column.categories === "auto" ? Object.keys(column.levels ?? {}) : column.categories;
}

// A text field for any value, which suggests the most frequent levels.
function suggestions(column) {
  const list = html("datalist", { id: `levels-${column.name}` });
  list.replaceChildren(...levelsOf(column).slice(0, MAX_SUGGESTIONS).map((value) => html("option", { value })));
  const input = html("input", { type: "text", autocomplete: "off", required: !column.nullable });
  input.setAttribute("list", list.id);
  input.append(list);
  return input;
}

function hintOf(column) {
  const { min, max } = column;
  const bounds = [min === null ? "" : `from ${text(min, 6)}`, max === null ? "" : `to ${text(max, 6)}`].filter(Boolean).join(" ");
  return [column.name, bounds, column.nullable ? "optional" : ""].filter(Boolean).join("; ");
}
