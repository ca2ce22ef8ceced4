// Folders and what is in them.

import * as api from "./api.js";
import { events } from "./api.js";
import { askFolder, askName, confirmRemoval } from "./dialogs.js";
import { $, button, bytes, count, el, fullTime, icon, join, nameOf, number, parentOf, shown, time, toast } from "./dom.js";
import { List } from "./list.js";
import { preview } from "./preview.js";
import { dropped, picked } from "./uploads.js";

/** Folders of more entries stay in the order of the store, which is that of the names' bytes, until a column is chosen. */
const MOST_SORTED = 10_000;

/** Folders of more entries are not read again by themselves when something in them changes. */
const MOST_RELOADED = 2_000;

/** So many results of a search are shown. */
const MOST_FOUND = 1_000;

const COLUMNS = [["name", "Name"], ["size", "Size"], ["modified", "Modified"]];

const byName = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" }).compare;

const ORDERS = {
  name: (a, b) => byName(a.name, b.name),
  size: (a, b) => (a.size ?? -1) - (b.size ?? -1) || byName(a.name, b.name),
  modified: (a, b) => a.modified_ms - b.modified_ms || byName(a.name, b.name),
};

function kindOf(entry) {
  if (entry.kind === "folder") return "folder";
  const name = entry.name.toLowerCase();
  if (/\.(png|jpe?g|gif|webp|avif|svg|bmp|ico)$/.test(name)) return "image";
  if (/\.(zip|gz|tgz|xz|zst|bz2|7z|tar|iso|deb|rpm)$/.test(name)) return "archive";
  if (/\.(mp4|webm|mkv|mov|mp3|ogg|flac|wav|m4a|opus)$/.test(name)) return "media";
  if (/\.(txt|md|log|csv|json|ya?ml|toml|ini|conf|xml|html?|css|m?js|ts|rs|py|c|h|cpp|java|go|sh|sql)$/.test(name)) return "text";
  return "file";
}

export class Files {
  /** Of the folder that is shown. */
  path = null;
  #entries = [];
  #isLoading = false;
  #loading = new AbortController();
  #searching = new AbortController();
  #pattern = "";
  #sort = null;
  #selectNext = null;
  #reloadDue = null;

  constructor(uploads) {
    this.uploads = uploads;
    uploads.addEventListener("put", (event) => {
      if (event.detail.folders.has(this.path) || [...event.detail.folders].some((folder) => parentOf(folder) === this.path)) this.#reload();
    });
    this.crumbs = el("nav", { class: "crumbs", "aria-label": "Folder" });
    this.search = el("input", {
      type: "search", placeholder: "Search", "aria-label": "Search below this folder", id: "search", autocomplete: "off", spellcheck: "false",
      oninput: () => this.#onSearch(),
      onkeydown: (event) => this.#onSearchKey(event),
    });
    this.tools = el("div", { class: "tools", role: "toolbar", "aria-label": "Actions" });
    this.note = el("p", { class: "note", "aria-live": "polite" });
    this.empty = el("div", { class: "empty" });
    this.heads = COLUMNS.map(([name, label]) => el("span", { role: "columnheader", class: `head-${name}` },
      el("button", { type: "button", onclick: () => this.#sortBy(name), tabindex: "-1" }, label)));
    const all = el("input", { type: "checkbox", "aria-label": "Select all", tabindex: "-1", onclick: () => {
      if (this.list.selected.size > 0) this.list.clear();
      else this.list.selectAll();
    } });
    this.all = all;
    this.list = new List({
      label: "Files and folders",
      head: el("div", { class: "head", role: "row" }, el("span", { class: "pick", role: "columnheader" }, all), ...this.heads, el("span", { class: "act" })),
      key: (entry) => entry.path,
      draw: (entry, isSelected) => this.#cells(entry, isSelected),
    });
    this.list.addEventListener("open", ({ detail }) => this.#open(detail.item));
    this.list.addEventListener("select", () => this.#drawTools());
    this.list.addEventListener("menu", ({ detail }) => this.#menu(detail));
    this.hint = el("div", { class: "drop-hint", hidden: true }, icon("upload"), el("span", {}));
    this.element = el("section", { class: "files", "aria-label": "Files" },
      el("div", { class: "bar" }, this.crumbs, el("label", { class: "search" }, icon("search"), this.search)),
      this.tools, this.note, el("div", { class: "listing" }, this.list.grid, this.empty), this.hint);
    this.#acceptDrops();
    events.addEventListener("changes", ({ detail }) => this.#onChanges(detail));
    events.addEventListener("connection", ({ detail }) => detail && this.path !== null && this.element.isConnected && this.#soon());
  }

  get address() {
    return this.#addressOf(this.path ?? "/");
  }

  #addressOf(path) {
    return `#${api.url(path, true)}`;
  }

  /** Shows a folder. */
  show(path) {
    const isOther = path !== this.path;
    if (isOther) {
      const from = this.path;
      this.path = path;
      this.#endSearch();
      this.#drawCrumbs();
      // Coming back from a folder, the cursor is on it.
      if (from && parentOf(from) === path && from !== "/") this.#selectNext = from;
      this.#entries = [];
      this.list.show([], { keep: false });
    }
    this.#load(isOther);
    this.list.grid.focus({ preventScroll: true });
  }

  hide() {
    this.#loading.abort();
    this.#searching.abort();
  }

  onKey(event) {
    const keys = {
      Delete: () => this.#remove(), F2: () => this.#rename(), Backspace: () => this.#up(), "/": () => this.search.focus(),
      Escape: () => (this.#pattern ? this.#endSearch(true) : this.list.clear()),
      u: () => this.#pickFiles(), n: () => this.#makeFolder(), d: () => this.#download(), m: () => this.#transfer("move"),
      c: () => this.#transfer("copy"), r: () => this.#reload(),
    };
    const run = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    run?.();
    return run !== undefined;
  }

  // What is there.

  async #load(isOther) {
    this.#loading.abort();
    const abort = (this.#loading = new AbortController());
    const { path } = this;
    this.#isLoading = true;
    if (isOther) this.#drawNote();
    const entries = [];
    try {
      let after = "";
      do {
        const page = await api.list(path, after, abort.signal);
        if (abort.signal.aborted) return;
        for (const entry of page.entries) entries.push({ ...entry, path: join(path, entry.name) });
        after = page.after;
        // While a folder is read for the first time, what has come is shown.
        if (isOther) {
          this.#entries = entries;
          this.#draw();
        }
      } while (after);
      this.#entries = entries;
      this.#isLoading = false;
      this.#draw();
      if (this.#selectNext) this.list.goTo(this.#selectNext);
      this.#selectNext = null;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#isLoading = false;
      this.#entries = [];
      this.#draw(error);
    }
  }

  /** Reads the folder again; what is selected stays so. */
  #reload() {
    clearTimeout(this.#reloadDue);
    this.#reloadDue = null;
    if (!this.element.isConnected) return;
    this.#load(false);
    if (this.#pattern) this.#find();
  }

  #soon() {
    this.#reloadDue ??= setTimeout(() => this.#reload(), 300);
  }

  #onChanges({ count: many, changes }) {
    if (!this.element.isConnected) return;
    const isHere = many === null || many > changes.length
      || changes.some(({ paths }) => paths.length === 0 || paths.some((path) => parentOf(path) === this.path || path === this.path
        || parentOf(parentOf(path)) === this.path || this.path.startsWith(`${path}/`)));
    if (!isHere || this.#isLoading) return;
    if (this.#entries.length <= MOST_RELOADED) this.#soon();
    else this.#drawNote(true);
  }

  #draw(error = null) {
    this.problem = error;
    if (this.#pattern) return;
    let entries = this.#entries;
    if (this.#sort || entries.length <= MOST_SORTED) {
      const { column, isDown } = this.#sort ?? { column: "name", isDown: false };
      const order = ORDERS[column];
      const sign = isDown ? -1 : 1;
      const rank = (entry) => (entry.kind === "folder" ? 0 : 1);
      entries = entries.toSorted((a, b) => rank(a) - rank(b) || sign * order(a, b));
    }
    this.list.show(entries);
    this.#drawNote();
    this.#drawHeads();
  }

  #drawNote(hasChanged = false) {
    const many = this.list.items.length;
    const parts = [];
    if (this.#pattern) {
      parts.push(this.found.isDone ? count(many, "result") : `Searching… ${number(many)} so far`);
      if (this.found.isCut) parts.push("the first ones");
      parts.push(`below ${shown(this.path)}`);
    } else if (!this.problem) {
      parts.push(this.#isLoading && many > 0 ? `${number(many)} so far…` : this.#isLoading ? "" : count(many, "entry", "entries"));
    }
    const { size } = this.list.selected;
    if (size > 0 && many > 0) {
      const chosen = this.list.chosen();
      const sum = chosen.reduce((all, entry) => all + (entry.size ?? 0), 0);
      parts.push(`${number(size)} selected${chosen.some((entry) => entry.kind === "file") ? `, ${bytes(sum)}` : ""}`);
    }
    this.note.replaceChildren(parts.filter(Boolean).join(" · "));
    if (hasChanged) {
      this.note.append(" · this folder has changed ", el("button", { type: "button", class: "link", onclick: () => this.#reload() }, "Read it again"));
    }
    this.empty.replaceChildren();
    this.empty.hidden = many > 0;
    if (many > 0) return;
    if (this.#pattern) this.empty.append(el("p", {}, this.found.isDone ? `Nothing below ${shown(this.path)} has a name like that.` : "Searching…"));
    else if (this.problem?.status === 403) this.#drawForbidden();
    else if (this.problem) {
      this.empty.append(icon("warning"), el("p", {}, this.problem.status === 404 ? `There is no folder ${shown(this.path)}.` : this.problem.message),
        this.problem.status === 404 ? el("a", { href: "#/" }, "To the root folder") : button("reload", "Try again", () => this.#reload()));
    } else if (!this.#isLoading) {
      this.empty.append(icon("folder"), el("p", {}, "This folder is empty."), el("p", { class: "dim" }, "Drop files or folders here."),
        button("upload", "Upload files", () => this.#pickFiles(), { primary: true }));
    }
  }

  /** Not here: but perhaps elsewhere. */
  async #drawForbidden() {
    this.empty.append(icon("warning"), el("p", {}, `This user may not read ${shown(this.path)}.`));
    try {
      const { rights } = await api.me();
      if (this.problem && rights.length > 0) {
        this.empty.append(el("ul", {}, rights.map(({ path, right }) => el("li", {}, el("a", { href: this.#addressOf(path) }, shown(path)), el("span", { class: "dim" }, ` ${right}`)))));
      }
    } catch { /* the first problem says enough */ }
  }

  #drawCrumbs() {
    const names = this.path.split("/").filter(Boolean);
    const steps = [el("a", { href: "#/" }, "root")];
    names.forEach((name, place) => {
      const path = `/${names.slice(0, place + 1).join("/")}`;
      steps.push(el("span", { class: "slash", "aria-hidden": "true" }, "/"), el("a", { href: this.#addressOf(path) }, shown(name)));
    });
    steps.at(-1).setAttribute("aria-current", "location");
    for (const [place, step] of steps.entries()) {
      if (step.tagName !== "A") continue;
      const target = place === 0 ? "/" : `/${names.slice(0, place / 2).join("/")}`;
      this.#dropTarget(step, target);
    }
    this.crumbs.replaceChildren(...steps);
    this.crumbs.scrollLeft = this.crumbs.scrollWidth;
  }

  #drawHeads() {
    const { column, isDown } = this.#sort ?? { column: this.#entries.length <= MOST_SORTED ? "name" : null };
    for (const [place, [name]] of COLUMNS.entries()) {
      const is = name === column && !this.#pattern;
      if (is) this.heads[place].setAttribute("aria-sort", isDown ? "descending" : "ascending");
      else this.heads[place].removeAttribute("aria-sort");
    }
  }

  #sortBy(column) {
    this.#sort = { column, isDown: this.#sort?.column === column ? !this.#sort.isDown : column !== "name" };
    this.#draw();
  }

  #cells(entry, isSelected) {
    const isFolder = entry.kind === "folder";
    const name = el("a", { class: "text", tabindex: "-1", href: isFolder ? this.#addressOf(entry.path) : api.url(entry.path), draggable: "false" }, shown(entry.name));
    const size = isFolder ? count(entry.entries, "entry", "entries") : bytes(entry.size);
    return [
      el("span", { class: "pick", role: "gridcell" },
        el("input", { type: "checkbox", tabindex: "-1", ".checked": isSelected, "aria-label": `Select ${shown(entry.name)}` })),
      el("span", { class: "name", role: "gridcell" }, icon(kindOf(entry)),
        el("span", { class: "both" }, name, this.#pattern ? el("span", { class: "where" }, shown(parentOf(entry.path))) : null,
          el("span", { class: "meta" }, `${size} · ${time(entry.modified_ms)}`))),
      el("span", { class: isFolder ? "size dim" : "size", role: "gridcell" }, size),
      el("span", { class: "modified", role: "gridcell", title: fullTime(entry.modified_ms) }, time(entry.modified_ms)),
      el("span", { class: "act", role: "gridcell" }, el("button", { type: "button", class: "icon", tabindex: "-1", "aria-label": `Actions for ${shown(entry.name)}` }, icon("more"))),
    ];
  }

  #drawTools() {
    this.#drawNote();
    const { size } = this.list.selected;
    this.all.checked = size > 0 && size === this.list.items.length;
    this.all.indeterminate = size > 0 && size < this.list.items.length;
    const key = size === 0 ? "none" : size === 1 ? "one" : "many";
    if (this.tools.dataset.for === key) return;
    this.tools.dataset.for = key;
    const always = [
      button("upload", "Upload", () => this.#pickFiles(), { primary: size === 0, title: "Upload files (U)" }),
      button("upload-folder", "Upload folder", () => this.#pickFiles(true)),
      button("new-folder", "New folder", () => this.#makeFolder(), { title: "New folder (N)" }),
    ];
    const chosen = [
      button("download", "Download", () => this.#download(), { title: "Download (D)" }),
      button("rename", "Rename", () => this.#rename(), { title: "Rename (F2)", disabled: size !== 1 }),
      button("move", "Move", () => this.#transfer("move"), { title: "Move (M)" }),
      button("copy", "Copy", () => this.#transfer("copy"), { title: "Copy (C)" }),
      button("delete", "Delete", () => this.#remove(), { danger: true, title: "Delete (Del)" }),
      el("span", { class: "space" }),
      button("close", "Select nothing", () => { this.list.clear(); this.list.grid.focus(); }, { iconOnly: true }),
    ];
    this.tools.replaceChildren(...(size === 0 ? always : chosen));
  }

  // Searching.

  #onSearch() {
    clearTimeout(this.searchDue);
    this.searchDue = setTimeout(() => this.#find(), 120);
  }

  #onSearchKey(event) {
    if (event.key === "Escape") this.#endSearch(true);
    else if (event.key === "ArrowDown" || event.key === "Enter") {
      this.list.grid.focus();
      this.list.moveTo(Math.max(this.list.cursor, 0));
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  async #find() {
    this.#searching.abort();
    const abort = (this.#searching = new AbortController());
    const isNew = this.#pattern !== this.search.value;
    this.#pattern = this.search.value;
    if (!this.#pattern) return this.#endSearch();
    const found = (this.found = { isDone: false, isCut: false });
    const entries = [];
    try {
      let after = "";
      do {
        const page = await api.find(this.path, this.#pattern, after, abort.signal);
        if (abort.signal.aborted) return;
        for (const entry of page.entries) {
          const path = join(this.path, entry.name);
          entries.push({ ...entry, name: nameOf(path), path });
        }
        after = page.after;
        found.isCut = entries.length >= MOST_FOUND;
        found.isDone = !after || found.isCut;
        this.list.show(entries.slice(0, MOST_FOUND), { keep: !isNew });
        this.#drawNote();
        this.#drawHeads();
      } while (!found.isDone);
    } catch (error) {
      if (error.name === "AbortError") return;
      found.isDone = true;
      toast(`The search ended: ${error.message}`, { isError: true });
      this.#drawNote();
    }
  }

  #endSearch(andReturn = false) {
    clearTimeout(this.searchDue);
    this.#searching.abort();
    this.search.value = "";
    const was = this.#pattern;
    this.#pattern = "";
    if (was) this.#draw();
    if (andReturn) this.list.grid.focus();
  }

  // What can be done.

  #open(entry) {
    if (entry.kind === "folder") location.hash = this.#addressOf(entry.path);
    else {
      const files = this.list.items.filter((each) => each.kind === "file");
      preview(entry, files, { download: (file) => this.#save(file), moved: (file) => this.list.goTo(file.path) });
    }
  }

  #up() {
    if (this.#pattern) this.#endSearch(true);
    else if (this.path !== "/") location.hash = this.#addressOf(parentOf(this.path));
  }

  #menu({ item, x, y }) {
    const chosen = this.list.chosen();
    const choices = [
      chosen.length === 1 && ["next", item.kind === "folder" ? "Open" : "Look at it", () => this.#open(item)],
      this.#pattern && chosen.length === 1 && ["folder", "Show in its folder", () => { this.#selectNext = item.path; location.hash = this.#addressOf(parentOf(item.path)); }],
      chosen.some((entry) => entry.kind === "file") && ["download", "Download", () => this.#download()],
      chosen.length === 1 && ["rename", "Rename", () => this.#rename()],
      ["move", "Move", () => this.#transfer("move")],
      ["copy", "Copy", () => this.#transfer("copy")],
      ["delete", "Delete", () => this.#remove()],
    ].filter(Boolean);
    showMenu(choices, x, y, this.list.grid);
  }

  #pickFiles(isFolder = false) {
    picked(isFolder, (files) => this.uploads.add(this.path, files));
  }

  #makeFolder() {
    askName({ title: "New folder", label: `Name, in ${shown(this.path)}`, verb: "Create", act: async (name) => {
      const path = join(this.path, name);
      try {
        await api.makeFolder(path, true);
      } catch (error) {
        throw error.status === 412 ? new Error(`${shown(name)} exists already.`) : error;
      }
      this.#selectNext = path;
      this.#reload();
    } });
  }

  #rename() {
    const [entry] = this.list.chosen();
    if (!entry) return;
    askName({ title: `Rename ${entry.kind}`, label: "New name", value: entry.name, verb: "Rename", act: async (name) => {
      if (name === entry.name) return;
      const to = join(parentOf(entry.path), name);
      try {
        await api.rename(entry.path, to);
      } catch (error) {
        throw error.code === "already-exists" ? new Error(`${shown(name)} exists already.`) : error;
      }
      this.#selectNext = to;
      this.#reload();
    } });
  }

  async #transfer(verb) {
    const entries = this.list.chosen();
    if (entries.length === 0) return;
    const what = entries.length === 1 ? shown(entries[0].name) : count(entries.length, "entry", "entries");
    const folder = await askFolder({
      title: `${verb === "move" ? "Move" : "Copy"} ${what} to`,
      start: this.path, verb: verb === "move" ? "Move here" : "Copy here",
      refuse: (target) => entries.some((entry) => entry.kind === "folder" && `${target}/`.startsWith(`${entry.path}/`)) ? "A folder cannot go into itself." : "",
    });
    if (folder !== null) await this.#place(verb, entries, folder);
  }

  async #place(verb, entries, folder) {
    const done = [];
    for (const entry of entries) {
      try {
        let target = join(folder, entry.name);
        if (verb === "copy" && target === entry.path) target = await freeName(target);
        else if (target === entry.path) continue;
        await (verb === "move" ? api.rename : api.copy)(entry.path, target);
        done.push(entry);
      } catch (error) {
        const why = error.code === "already-exists" ? `there is ${shown(join(folder, entry.name))} already` : error.message;
        toast(`${shown(entry.name)}: ${why}`, { isError: true });
      }
    }
    if (done.length > 0) {
      const what = done.length === 1 ? shown(done[0].name) : count(done.length, "entry", "entries");
      toast(`${verb === "move" ? "Moved" : "Copied"} ${what} to ${shown(folder)}`, {
        action: folder === this.path ? null : { label: "Go there", run: () => { location.hash = this.#addressOf(folder); } },
      });
    }
    this.#reload();
  }

  async #remove() {
    const entries = this.list.chosen();
    if (entries.length === 0 || !await confirmRemoval(this.path, entries)) return;
    const place = this.list.cursor;
    const gone = new Set();
    for (const entry of entries) {
      try {
        await api.remove(entry.path, entry);
        gone.add(entry.path);
      } catch (error) {
        if (error.status === 404) gone.add(entry.path);
        else if (error.status === 412) toast(`${shown(entry.name)} has changed since it was listed, and stays`, { isError: true });
        else toast(`${shown(entry.name)}: ${error.message}`, { isError: true });
      }
    }
    if (gone.size > 0) toast(gone.size === 1 ? `Deleted ${shown(nameOf([...gone][0]))}` : `Deleted ${count(gone.size, "entry", "entries")}`);
    this.#entries = this.#entries.filter((entry) => !gone.has(entry.path));
    if (this.#pattern) this.list.show(this.list.items.filter((entry) => !gone.has(entry.path)));
    else this.#draw();
    this.list.selected.clear();
    this.list.moveTo(Math.min(place, this.list.items.length - 1), { select: false });
    this.list.grid.focus();
    this.#reload();
  }

  #download() {
    const chosen = this.list.chosen();
    const files = chosen.filter((entry) => entry.kind === "file");
    if (files.length < chosen.length) toast("Folders are not downloaded: wget -r or stevedore get does that", { isError: files.length === 0 });
    files.forEach((file, place) => setTimeout(() => this.#save(file), place * 200));
  }

  #save(file) {
    const link = el("a", { href: api.url(file.path), download: file.name });
    document.body.append(link);
    link.click();
    link.remove();
  }

  // Files that are dropped: on the list into this folder, on a folder into that one.

  #acceptDrops() {
    const listing = this.element.querySelector(".listing");
    this.#dropTarget(listing, null);
  }

  #dropTarget(element, folder) {
    let depth = 0;
    const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
    const targetOf = (event) => {
      const row = event.target.closest?.(".row");
      const entry = row && this.list.items[Number(row.dataset.place)];
      return folder ?? (entry?.kind === "folder" ? entry.path : this.path);
    };
    element.addEventListener("dragenter", (event) => {
      if (!hasFiles(event)) return;
      depth += 1;
      this.hint.hidden = false;
    });
    element.addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      this.hint.lastChild.textContent = `Upload to ${shown(targetOf(event))}`;
    });
    element.addEventListener("dragleave", () => {
      depth = Math.max(0, depth - 1);
      this.hint.hidden = depth === 0;
    });
    element.addEventListener("drop", async (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      depth = 0;
      this.hint.hidden = true;
      const target = targetOf(event);
      this.uploads.add(target, await dropped(event.dataTransfer));
    });
  }
}

/** A name beside this one that is free: `a (2).txt`. */
async function freeName(path) {
  const name = nameOf(path);
  const dot = name.lastIndexOf(".");
  const [stem, end] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  for (let turn = 2; ; turn += 1) {
    const other = join(parentOf(path), `${stem} (${turn})${end}`);
    if (!await api.exists(other)) return other;
  }
}

/** A menu at a place of the screen. Keys: arrows, Enter, Escape. */
function showMenu(choices, x, y, owner) {
  document.querySelector(".menu")?.remove();
  const menu = el("div", { class: "menu", role: "menu" });
  const close = () => {
    menu.remove();
    removeEventListener("pointerdown", outside, true);
    removeEventListener("resize", close);
  };
  const outside = (event) => menu.contains(event.target) || close();
  menu.append(...choices.map(([name, label, run]) => el("button", {
    type: "button", role: "menuitem", class: name === "delete" ? "danger" : null,
    onclick: () => { close(); owner.focus(); run(); },
  }, icon(name), el("span", {}, label))));
  menu.addEventListener("keydown", (event) => {
    const items = [...menu.children];
    const place = items.indexOf(document.activeElement);
    if (event.key === "ArrowDown") items[(place + 1) % items.length].focus();
    else if (event.key === "ArrowUp") items.at(place - 1).focus();
    else if (event.key === "Escape" || event.key === "Tab") { close(); owner.focus(); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.body.append(menu);
  menu.style.left = `${Math.max(8, Math.min(x, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${Math.max(8, Math.min(y, innerHeight - menu.offsetHeight - 8))}px`;
  menu.firstChild.focus();
  addEventListener("pointerdown", outside, true);
  addEventListener("resize", close);
}
