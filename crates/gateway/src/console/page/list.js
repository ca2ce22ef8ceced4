// A list of any length: only the rows that can be seen are in the page. Used by pointer, by touch, and by keyboard alone.
//
// The grid has the focus, and says which row is meant (aria-activedescendant); so the rows can come and go.

import { el } from "./dom.js";

/** Rows beyond the edges, so that a fast scroll finds them there. */
const SPARE = 12;

export class List extends EventTarget {
  items = [];
  selected = new Set();
  /** The row that keys are about; -1 if there is none. */
  cursor = -1;
  #anchor = 0;
  #rows = new Map();
  #isDue = false;
  #key;
  #draw;

  /**
   * `key` tells items apart, `draw` makes the cells of a row, `label` is the list's name. Tells `open`, `select`, and `menu`
   * with the item.
   */
  constructor({ label, head, key, draw }) {
    super();
    this.#key = key;
    this.#draw = draw;
    this.body = el("div", { class: "rows", role: "rowgroup" });
    this.grid = el("div", {
      class: "grid", role: "grid", tabindex: "0", "aria-label": label, "aria-multiselectable": "true",
      onkeydown: (event) => this.#onKey(event),
      onfocus: () => this.cursor < 0 && this.items.length > 0 && this.moveTo(0, { select: false }),
    }, head, this.body);
    this.grid.addEventListener("scroll", () => this.#redraw(), { passive: true });
    this.body.addEventListener("click", (event) => this.#onClick(event));
    this.body.addEventListener("dblclick", (event) => {
      if (!event.target.closest("input, button, a")) this.#tell("open", this.#at(event));
    });
    this.body.addEventListener("contextmenu", (event) => {
      const place = this.#at(event);
      if (place < 0 || event.target.closest("a") && event.shiftKey) return;
      event.preventDefault();
      this.#pick(place);
      this.#tell("menu", place, { x: event.clientX, y: event.clientY });
    });
    new ResizeObserver(() => this.#redraw(true)).observe(this.grid);
  }

  /** Shows other items. What was selected and is still there stays so. */
  show(items, { keep = true } = {}) {
    const current = keep && this.cursor >= 0 ? this.#key(this.items[this.cursor]) : null;
    this.items = items;
    if (!keep) this.selected.clear();
    if (this.selected.size > 0) {
      // A large folder is shown anew for each page that comes: only what is selected is looked for.
      this.selected = new Set(items.map(this.#key).filter((key) => this.selected.has(key)));
    }
    const place = current === null ? -1 : items.findIndex((item) => this.#key(item) === current);
    if (place >= 0) this.cursor = place;
    else this.cursor = keep ? Math.min(this.cursor, items.length - 1) : -1;
    this.#anchor = Math.max(this.cursor, 0);
    if (!keep) this.grid.scrollTop = 0;
    this.grid.setAttribute("aria-rowcount", items.length + 1);
    this.#redraw(true);
    this.#changed();
  }

  /** The items that an operation is about: those selected, else the one at the cursor. */
  chosen() {
    if (this.selected.size > 0) return this.items.filter((item) => this.selected.has(this.#key(item)));
    return this.cursor >= 0 ? [this.items[this.cursor]] : [];
  }

  /** Puts the cursor at the item of this key, and shows it. */
  goTo(key) {
    const place = this.items.findIndex((item) => this.#key(item) === key);
    if (place >= 0) this.moveTo(place);
  }

  moveTo(place, { extend = false, select = true } = {}) {
    if (this.items.length === 0) return;
    this.cursor = Math.max(0, Math.min(place, this.items.length - 1));
    if (extend) this.#selectRange(this.#anchor, this.cursor);
    else {
      this.#anchor = this.cursor;
      if (select) this.selected = new Set([this.#key(this.items[this.cursor])]);
    }
    const height = this.#rowHeight();
    const head = this.body.offsetTop;
    const top = this.cursor * height;
    const room = this.grid.clientHeight - head;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    else if (top + height > this.grid.scrollTop + room) this.grid.scrollTop = top + height - room;
    this.#redraw(true);
    this.#changed();
  }

  selectAll() {
    this.selected = new Set(this.items.map(this.#key));
    this.#redraw(true);
    this.#changed();
  }

  clear() {
    this.selected.clear();
    this.#redraw(true);
    this.#changed();
  }

  #selectRange(from, to) {
    const [first, last] = from < to ? [from, to] : [to, from];
    this.selected = new Set(this.items.slice(first, last + 1).map(this.#key));
  }

  #toggle(place) {
    const key = this.#key(this.items[place]);
    if (!this.selected.delete(key)) this.selected.add(key);
    this.cursor = place;
    this.#anchor = place;
    this.#redraw(true);
    this.#changed();
  }

  /** What a menu is about: the row, unless it is one of those selected. */
  #pick(place) {
    if (!this.selected.has(this.#key(this.items[place]))) this.moveTo(place);
  }

  #at(event) {
    const row = event.target.closest(".row");
    return row ? Number(row.dataset.place) : -1;
  }

  #tell(name, place, more = {}) {
    if (place >= 0 && place < this.items.length) {
      this.dispatchEvent(new CustomEvent(name, { detail: { item: this.items[place], ...more } }));
    }
  }

  #changed() {
    this.dispatchEvent(new CustomEvent("select"));
  }

  #onClick(event) {
    const place = this.#at(event);
    if (place < 0) return;
    const isTouch = event.pointerType === "touch" || matchMedia("(pointer: coarse)").matches;
    if (event.target.closest("input")) this.#toggle(place);
    else if (event.target.closest("button")) {
      this.#pick(place);
      const { left, bottom } = event.target.closest("button").getBoundingClientRect();
      this.#tell("menu", place, { x: left, y: bottom });
    } else if (event.shiftKey) {
      event.preventDefault();
      this.cursor = place;
      this.#selectRange(this.#anchor, place);
      this.#redraw(true);
      this.#changed();
    } else if ((event.ctrlKey || event.metaKey) && !event.target.closest("a")) this.#toggle(place);
    else if (event.target.closest("a") || isTouch) {
      if (event.ctrlKey || event.metaKey || event.button !== 0) return; // a link like any other
      event.preventDefault();
      this.#tell("open", place);
    } else this.moveTo(place);
  }

  #onKey(event) {
    if (event.target !== this.grid || event.altKey) return;
    const page = Math.max(1, Math.floor(this.grid.clientHeight / this.#rowHeight()) - 2);
    const isControl = event.ctrlKey || event.metaKey;
    const moves = {
      ArrowDown: this.cursor + 1, ArrowUp: Math.max(this.cursor - 1, 0), PageDown: this.cursor + page, PageUp: this.cursor - page,
      Home: 0, End: this.items.length - 1,
    };
    if (event.key in moves) {
      this.moveTo(moves[event.key], { extend: event.shiftKey, select: !isControl });
    } else if (event.key === " " && this.cursor >= 0) this.#toggle(this.cursor);
    else if (event.key === "Enter" && !isControl) this.#tell("open", this.cursor);
    else if (isControl && event.key.toLowerCase() === "a") this.selectAll();
    else if (event.key === "ContextMenu" || event.key === "F10" && event.shiftKey) {
      const row = this.#rows.get(this.cursor);
      const { left = 0, bottom = 0 } = row?.getBoundingClientRect() ?? {};
      this.#tell("menu", this.cursor, { x: left + 40, y: bottom });
    } else return;
    event.preventDefault();
  }

  #rowHeight() {
    return parseFloat(getComputedStyle(this.grid).getPropertyValue("--row"));
  }

  #redraw(isAll = false) {
    this.isAll ||= isAll;
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#drawNow(this.isAll);
      this.isAll = false;
    });
  }

  #drawNow(isAll) {
    const height = this.#rowHeight();
    const many = this.items.length;
    this.body.style.height = `${many * height}px`;
    const first = Math.max(0, Math.floor(this.grid.scrollTop / height) - SPARE);
    const last = Math.min(many, Math.ceil((this.grid.scrollTop + this.grid.clientHeight) / height) + SPARE);
    for (const [place, row] of this.#rows) {
      if (isAll || place < first || place >= last) {
        row.remove();
        this.#rows.delete(place);
      }
    }
    const fresh = [];
    for (let place = first; place < last; place += 1) {
      if (!this.#rows.has(place)) fresh.push(this.#row(place, height));
    }
    this.body.append(...fresh);
    const cursor = this.#rows.get(this.cursor);
    if (cursor) this.grid.setAttribute("aria-activedescendant", cursor.id);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  #row(place, height) {
    const item = this.items[place];
    const isSelected = this.selected.has(this.#key(item));
    const row = el("div", {
      class: `row${isSelected ? " selected" : ""}${place === this.cursor ? " cursor" : ""}`, role: "row", id: `row-${place}`,
      "data-place": place, "aria-rowindex": place + 2, "aria-selected": String(isSelected),
    }, this.#draw(item, isSelected));
    row.style.transform = `translateY(${place * height}px)`;
    this.#rows.set(place, row);
    return row;
  }
}
