// Files on their way to the store: a few at a time, with progress, and an end when that is asked for.

import * as api from "./api.js";
import { askReplace } from "./dialogs.js";
import { button, bytes, count, el, icon, join, number, parentOf, shown } from "./dom.js";

/** A browser has six connections to a gateway; the page needs some of them itself. */
const AT_A_TIME = 3;

/** So many lines are shown: those under way, and those that have failed. */
const MOST_LINES = 8;

/** Asks for files with the browser's dialog. */
export function picked(isFolder, use) {
  const field = el("input", { type: "file", multiple: true, hidden: true, class: "picker" });
  field.webkitdirectory = isFolder;
  document.querySelector(".picker")?.remove();
  document.body.append(field);
  field.addEventListener("change", () => {
    use([...field.files].map((file) => ({ file, name: file.webkitRelativePath || file.name })));
    field.remove();
  });
  field.click();
}

/** All files of what was dropped, folders included; of an empty folder its name alone. */
export async function dropped(transfer) {
  // To be taken before anything is awaited: afterwards it is empty.
  const tops = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = [];
  if (tops.length === 0) return [...transfer.files].map((file) => ({ file, name: file.name }));
  const walk = async (entry, above) => {
    const name = above + entry.name;
    if (entry.isFile) {
      found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), name });
      return;
    }
    const reader = entry.createReader();
    let isEmpty = true;
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (some.length === 0) break;
      isEmpty = false;
      for (const child of some) await walk(child, `${name}/`);
    }
    if (isEmpty) found.push({ file: null, name });
  };
  for (const top of tops) await walk(top, "");
  return found;
}

export class Uploads extends EventTarget {
  #waiting = [];
  #active = new Set();
  #failed = [];
  #done = 0;
  #skipped = 0;
  #doneBytes = 0;
  #allBytes = 0;
  #all = 0;
  #folders = new Set();
  #always = null;
  #asking = Promise.resolve();
  #isDrawDue = false;
  #rate = { bytes: 0, at: 0, perSecond: 0 };

  constructor(element) {
    super();
    this.element = element;
    element.setAttribute("role", "region");
    element.setAttribute("aria-label", "Uploads");
    element.hidden = true;
    this.summary = el("span", { class: "summary", role: "status" });
    this.bar = el("progress", { "aria-label": "All uploads" });
    this.cancelAll = button(null, "Cancel all", () => this.#cancel());
    this.shut = button("close", "Close", () => this.#close(), { iconOnly: true });
    this.lines = el("ul");
    element.append(el("div", { class: "uploads-head" }, this.summary, this.cancelAll, this.shut), this.bar, this.lines);
  }

  get isBusy() {
    return this.#active.size + this.#waiting.length > 0;
  }

  /** Sends files (`{file, name}`) to a folder. */
  add(folder, files) {
    if (files.length === 0) return;
    if (!this.isBusy) this.#begin();
    for (const { file, name } of files) {
      this.#waiting.push({ file, path: join(folder, name), folder, sent: 0, abort: new AbortController(), state: "waiting" });
      this.#all += 1;
      this.#allBytes += file?.size ?? 0;
    }
    this.element.hidden = false;
    this.#next();
    this.#draw();
  }

  #begin() {
    this.#done = this.#skipped = this.#doneBytes = this.#allBytes = this.#all = 0;
    this.#failed = [];
    this.#always = null;
    this.#rate = { bytes: 0, at: performance.now(), perSecond: 0 };
    this.cancelAll.hidden = false;
  }

  #next() {
    while (this.#active.size < AT_A_TIME && this.#waiting.length > 0) {
      const upload = this.#waiting.shift();
      this.#active.add(upload);
      this.#send(upload).finally(() => {
        this.#active.delete(upload);
        this.#next();
        this.#draw();
        if (!this.isBusy) this.#end();
      });
    }
  }

  async #send(upload) {
    const { path, file, abort } = upload;
    const { signal } = abort;
    upload.state = "sending";
    try {
      if (!file) await api.makeFolder(path);
      else {
        // Asked before the bytes leave; and the gateway insists on it, should one come in between.
        let replace = false;
        if (await api.exists(path, signal)) replace = await this.#mayReplace(upload);
        if (replace !== null) await this.#put(upload, replace);
      }
    } catch (error) {
      if (error.name === "AbortError") upload.state = "cancelled";
      else {
        upload.state = "failed";
        upload.why = error.message;
        this.#failed.push(upload);
      }
    }
    if (upload.state === "sending") {
      this.#done += 1;
      this.#folders.add(parentOf(path));
      this.#folders.add(upload.folder);
    } else this.#skipped += upload.state === "failed" ? 0 : 1;
    this.#doneBytes += file?.size ?? 0;
    upload.sent = 0;
  }

  async #put(upload, replace) {
    const progress = (sent) => {
      upload.sent = Math.min(sent, upload.file.size);
      this.#draw();
    };
    try {
      await api.put(upload.path, upload.file, { replace, progress, signal: upload.abort.signal });
    } catch (error) {
      if (error.status !== 412 || replace) throw error;
      const again = await this.#mayReplace(upload);
      if (again !== null) await api.put(upload.path, upload.file, { replace: again, progress, signal: upload.abort.signal });
    }
  }

  /** True if what is there is to be replaced; null if the upload is to be left out. One question at a time. */
  #mayReplace(upload) {
    const answer = this.#asking.then(async () => {
      let what = this.#always;
      if (!what) {
        const said = await askReplace(upload.path, this.#waiting.length + this.#active.size - 1);
        what = said?.what ?? "skip";
        if (said?.forAll) this.#always = what;
      }
      if (what === "replace") return true;
      upload.state = "skipped";
      return null;
    });
    this.#asking = answer.catch(() => null);
    return answer;
  }

  #cancel() {
    for (const upload of this.#waiting) {
      this.#skipped += 1;
      this.#doneBytes += upload.file?.size ?? 0;
    }
    this.#waiting = [];
    for (const upload of this.#active) upload.abort.abort();
    this.#draw();
  }

  #end() {
    this.cancelAll.hidden = true;
    this.dispatchEvent(new CustomEvent("put", { detail: { folders: this.#folders } }));
    this.#folders = new Set();
    if (this.#failed.length === 0) {
      clearTimeout(this.closing);
      this.closing = setTimeout(() => this.isBusy || this.#failed.length > 0 || this.#close(), 6_000);
    }
  }

  #close() {
    this.element.hidden = true;
  }

  #draw() {
    if (this.#isDrawDue) return;
    this.#isDrawDue = true;
    requestAnimationFrame(() => {
      this.#isDrawDue = false;
      this.#drawNow();
    });
  }

  #drawNow() {
    const sending = [...this.#active];
    const sent = this.#doneBytes + sending.reduce((sum, upload) => sum + upload.sent, 0);
    const over = this.#done + this.#skipped + this.#failed.length;
    const now = performance.now();
    if (now - this.#rate.at > 1_000) {
      this.#rate = { bytes: sent, at: now, perSecond: (sent - this.#rate.bytes) / (now - this.#rate.at) * 1000 };
    }
    const others = [this.#skipped > 0 && `${number(this.#skipped)} left out`, this.#failed.length > 0 && `${number(this.#failed.length)} failed`].filter(Boolean);
    if (this.isBusy) {
      const rate = this.#rate.perSecond > 0 ? `, ${bytes(this.#rate.perSecond)}/s` : "";
      this.summary.textContent = [`Uploading ${number(over)} of ${count(this.#all, "file")}, ${bytes(sent)} of ${bytes(this.#allBytes)}${rate}`, ...others].join(" · ");
    } else this.summary.textContent = [`Uploaded ${count(this.#done, "file")}`, ...others].join(" · ");
    this.shut.hidden = this.isBusy;
    this.bar.hidden = !this.isBusy;
    this.bar.max = Math.max(this.#allBytes, 1);
    this.bar.value = sent;
    const lines = [...this.#failed, ...sending].slice(0, MOST_LINES);
    this.lines.replaceChildren(...lines.map((upload) => this.#line(upload)));
  }

  #line(upload) {
    const name = el("span", { class: "text", title: shown(upload.path) }, shown(upload.path));
    if (upload.state === "failed") {
      return el("li", { class: "failed" }, icon("warning"), el("span", { class: "both" }, name, el("span", { class: "why" }, upload.why)),
        button("reload", `Try ${shown(upload.path)} again`, () => this.#again(upload), { iconOnly: true }));
    }
    // What has left is not yet what is kept: the store has the last word.
    const size = upload.file?.size ?? 0;
    const isSent = upload.sent >= size && size > 0;
    return el("li", {}, el("span", { class: "both" }, name,
      el("progress", { "aria-label": shown(upload.path), max: Math.max(size, 1), value: isSent ? null : upload.sent })),
    el("span", { class: "dim part" }, isSent ? "storing…" : `${Math.floor(upload.sent / Math.max(size, 1) * 100)}%`),
    button("close", `Cancel ${shown(upload.path)}`, () => upload.abort.abort(), { iconOnly: true }));
  }

  #again(upload) {
    this.#failed = this.#failed.filter((each) => each !== upload);
    this.#doneBytes -= upload.file?.size ?? 0;
    this.#waiting.push({ ...upload, abort: new AbortController(), state: "waiting" });
    this.cancelAll.hidden = false;
    this.#next();
    this.#draw();
  }
}
