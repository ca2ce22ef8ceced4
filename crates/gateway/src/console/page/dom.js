// Elements, and how amounts and times are told. Text goes through textContent only: no name can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes, listeners as `onclick`, properties as `.value`; children are elements or text. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith(".")) element[name.slice(1)] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** One of the icons in index.html. */
export function icon(name) {
  return svg("svg", { "aria-hidden": "true", class: "i" }, svg("use", { href: `#i-${name}` }));
}

/** A button with an icon; its label is shown, or only read out. */
export function button(name, label, onclick, { primary, iconOnly, danger, title, disabled } = {}) {
  const kind = [iconOnly && "icon", primary && "primary", danger && "danger"].filter(Boolean).join(" ");
  return el("button", { type: "button", class: kind || null, onclick, "aria-label": label, title: title ?? (iconOnly ? label : null), disabled },
    name && icon(name), iconOnly ? null : el("span", { class: "label" }, label));
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count) {
  if (count === null || count === undefined) return "unknown";
  let unit = 0;
  while (count >= 1023.5 && unit < UNITS.length - 1) {
    count /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2;
  return `${count.toFixed(digits)} ${UNITS[unit]}`;
}

const NUMBER = new Intl.NumberFormat("en");
export const number = (count) => NUMBER.format(count);

/** `1 file`, `2 files`. */
export const count = (many, one, more = `${one}s`) => `${number(many)} ${many === 1 ? one : more}`;

export function duration(seconds) {
  if (seconds < 1) return "less than a second";
  for (const [size, name] of [[86_400, "day"], [3_600, "hour"], [60, "minute"]]) {
    if (seconds >= size) return count(Math.floor(seconds / size), name);
  }
  return count(Math.floor(seconds), "second");
}

/** For a column: `2 d`, `3 h`, `4 min`, `5 s`. */
export function brief(seconds) {
  for (const [size, name] of [[86_400, "d"], [3_600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${name}`;
  }
  return `${Math.floor(seconds)} s`;
}

const DAY = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "2-digit" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const SECONDS = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

export const clock = (ms, withSeconds = false) => (withSeconds ? SECONDS : CLOCK).format(ms);
export const fullTime = (ms) => FULL.format(ms);
export const time = (ms) => `${DAY.format(ms)} ${CLOCK.format(ms)}`;

/** What cannot be seen in a name, or turns the text around, is shown as a replacement. */
export const shown = (name) => name.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

export const join = (folder, name) => (folder === "/" ? `/${name}` : `${folder}/${name}`);
export const parentOf = (path) => path.slice(0, Math.max(path.lastIndexOf("/"), 0)) || "/";
export const nameOf = (path) => path.slice(path.lastIndexOf("/") + 1);

/** Tells something in passing; a screen reader reads it out. */
export function toast(text, { isError = false, action } = {}) {
  const line = el("div", { class: isError ? "toast error" : "toast" }, isError && icon("warning"), el("span", {}, text));
  if (action) line.append(el("button", { type: "button", onclick: () => { line.remove(); action.run(); } }, action.label));
  line.append(button("close", "Dismiss", () => line.remove(), { iconOnly: true }));
  $("toasts").append(line);
  setTimeout(() => line.remove(), isError ? 12_000 : 5_000);
}
