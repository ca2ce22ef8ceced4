// Lines over time, as SVG. What is not known is a gap, not a line.

import { clock, el, svg } from "./dom.js";

const HEIGHT = 132;
const EDGE = { left: 78, right: 10, top: 8, bottom: 20 };

/** The least of 1, 2, 5 times a power of ten (or of 1,024 times these) that is at least this. */
function niceTop(value, base) {
  const unit = base === 1024 && value >= 1024 ? 1024 ** Math.floor(Math.log(value) / Math.log(1024)) : 1;
  const scaled = value / unit;
  const power = 10 ** Math.floor(Math.log10(scaled));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= scaled) ?? 10;
  return step * power * unit;
}

/** Steps of the time axis, in minutes. */
const STEPS = [1, 2, 5, 10, 15, 30, 60];

export class Chart {
  #samples = [];
  #window = 15;
  #hovered = null;

  /** `series` are `{name, kind, value(sample)}`; a value of null is not known. */
  constructor({ title, series, format, base = 10, least = 0, top = null }) {
    Object.assign(this, { title, series, format, base, least, top });
    this.legend = el("div", { class: "legend" });
    this.svg = svg("svg", { class: "chart", height: HEIGHT, role: "img" });
    this.element = el("figure", { class: "panel" }, el("figcaption", {}, el("h3", {}, title), this.legend), this.svg);
    this.svg.addEventListener("pointermove", (event) => this.#hover(event));
    this.svg.addEventListener("pointerleave", () => this.#hover(null));
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  /** Shows the last `minutes` of samples. */
  show(samples, minutes) {
    this.#samples = samples;
    this.#window = minutes;
    this.#draw();
  }

  #hover(event) {
    const x = event && event.clientX - this.svg.getBoundingClientRect().left;
    const near = event && this.seen?.reduce((best, sample) =>
      (Math.abs(this.x(sample.at_ms) - x) < Math.abs(this.x(best.at_ms) - x) ? sample : best), this.seen[0]);
    this.#hovered = near ?? null;
    this.#drawLegend();
    this.#drawHair();
  }

  #drawLegend() {
    const last = this.#samples.at(-1);
    const sample = this.#hovered ?? last;
    const value = (each) => {
      const known = sample ? each.value(sample) : null;
      return known === null ? "-" : this.format(known);
    };
    this.legend.replaceChildren(...this.series.map((each) =>
      el("span", {}, el("i", { class: `key ${each.kind}` }), `${each.name} `, el("b", {}, value(each)))),
    el("span", { class: "dim when" }, this.#hovered ? clock(sample.at_ms, true) : ""));
    this.svg.setAttribute("aria-label", `${this.title}: ${last ? this.series.map((each) => {
      const known = each.value(last);
      return `${each.name} ${known === null ? "not known" : this.format(known)}`;
    }).join(", ") : "no samples yet"}`);
  }

  #drawHair() {
    this.hair?.remove();
    this.hair = null;
    if (!this.#hovered) return;
    const x = this.x(this.#hovered.at_ms);
    this.hair = svg("g", {}, svg("line", { class: "hair", x1: x, x2: x, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }),
      ...this.series.filter((each) => each.value(this.#hovered) !== null)
        .map((each) => svg("circle", { class: each.kind, cx: x, cy: this.y(each.value(this.#hovered)), r: 3 })));
    this.svg.append(this.hair);
  }

  #draw() {
    const width = this.element.clientWidth - 2;
    if (width <= 0) return;
    const end = this.#samples.at(-1)?.at_ms ?? Date.now();
    const begin = end - this.#window * 60_000;
    this.seen = this.#samples.filter((sample) => sample.at_ms >= begin);
    const values = this.seen.flatMap((sample) => this.series.map((each) => each.value(sample))).filter((value) => value !== null);
    const highest = Math.max(...values, 0);
    const top = this.top ? this.top(this.seen) || 1 : niceTop(Math.max(highest, this.least), this.base);
    this.x = (at) => EDGE.left + (at - begin) / (end - begin) * (width - EDGE.left - EDGE.right);
    this.y = (value) => HEIGHT - EDGE.bottom - value / top * (HEIGHT - EDGE.top - EDGE.bottom);
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const y = this.y(top * share);
      parts.push(svg("line", { class: "rule", x1: EDGE.left, x2: width - EDGE.right, y1: y, y2: y }),
        svg("text", { class: "tick", x: EDGE.left - 8, y: y + 4, "text-anchor": "end" }, this.format(top * share)));
    }
    const step = STEPS.find((minutes) => this.#window / minutes <= Math.max(width / 110, 2)) ?? 60;
    for (let at = Math.ceil(begin / (step * 60_000)) * step * 60_000; at <= end; at += step * 60_000) {
      const x = this.x(at);
      if (x < EDGE.left + 14 || x > width - 24) continue;
      parts.push(svg("text", { class: "tick", x, y: HEIGHT - 4, "text-anchor": "middle" }, clock(at)));
    }
    for (const each of this.series) parts.push(...this.#line(each));
    this.svg.setAttribute("width", width);
    this.svg.replaceChildren(...parts);
    this.#drawLegend();
    this.#drawHair();
  }

  #line(each) {
    const pieces = [];
    let piece = [];
    for (const sample of this.seen) {
      const value = each.value(sample);
      if (value === null) {
        if (piece.length > 0) pieces.push(piece);
        piece = [];
      } else piece.push([this.x(sample.at_ms), this.y(value)]);
    }
    if (piece.length > 0) pieces.push(piece);
    const bottom = HEIGHT - EDGE.bottom;
    const at = ([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`;
    return pieces.flatMap((points) => {
      // A value between two that are not known is a point.
      if (points.length === 1) return [svg("circle", { class: each.kind, cx: points[0][0], cy: points[0][1], r: 1.5 })];
      const line = `M${points.map(at).join("L")}`;
      return [
        each.isFilled && svg("path", { class: `area ${each.kind}`, d: `${line}L${points.at(-1)[0].toFixed(1)},${bottom}L${points[0][0].toFixed(1)},${bottom}Z` }),
        svg("path", { class: `line ${each.kind}`, d: line }),
      ].filter(Boolean);
    });
  }
}
