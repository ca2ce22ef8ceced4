// A look at a file: images, text, sound and pictures that move; of others what is known about them.

import * as api from "./api.js";
import { open } from "./dialogs.js";
import { button, bytes, count, el, fullTime, shown } from "./dom.js";

/** So much of a text is shown. */
const MOST_TEXT = 256 * 1024;

const IMAGE = /\.(png|jpe?g|gif|webp|avif|svg|bmp|ico)$/i;
const VIDEO = /\.(mp4|webm|mov|ogv)$/i;
const SOUND = /\.(mp3|ogg|flac|wav|m4a|opus)$/i;

function kindOf(file) {
  const type = file.content_type;
  if (type.startsWith("image/") || !type && IMAGE.test(file.name)) return "image";
  if (type.startsWith("video/") || !type && VIDEO.test(file.name)) return "video";
  if (type.startsWith("audio/") || !type && SOUND.test(file.name)) return "audio";
  return "other";
}

/** Text, if the bytes are: UTF-8 without NUL. The last character may be cut. */
function textOf(content, isCut) {
  if (content.includes(0)) return null;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(content, { stream: isCut });
  } catch {
    return null;
  }
}

async function look(file, signal) {
  const address = api.url(file.path);
  const kind = kindOf(file);
  if (kind === "image") {
    return new Promise((resolve) => {
      const image = el("img", { alt: shown(file.name), src: address, onload: () => resolve(image),
        onerror: () => resolve(el("p", { class: "dim" }, "This image cannot be shown.")) });
    });
  }
  if (kind === "video" || kind === "audio") return el(kind, { src: address, controls: true });
  if (file.size === 0) return el("p", { class: "dim" }, "This file is empty.");
  const content = await api.beginning(file.path, MOST_TEXT, signal);
  const isCut = content.length < file.size;
  const text = textOf(content, isCut);
  if (text === null) return el("p", { class: "dim" }, "There is no preview of such a file.");
  const note = isCut ? `The first ${bytes(content.length)} of ${bytes(file.size)}` : null;
  return el("div", { class: "text-preview" }, el("pre", { tabindex: "0", "aria-label": `Content of ${shown(file.name)}` }, text), note && el("p", { class: "dim" }, note));
}

/** Where the file's copies are, as far as the store is sure. */
async function placesOf(file, signal) {
  const { objects } = await api.copies(file.path, signal);
  if (objects.length === 0) return "no content";
  const good = objects.map(({ copies }) => copies.filter((copy) => copy.is_present && copy.is_certain && !copy.is_damaged).length);
  const dstores = [...new Set(objects.flatMap(({ copies }) => copies.map((copy) => copy.dstore)))].sort((a, b) => a - b);
  const [least, most] = [Math.min(...good), Math.max(...good)];
  const many = least === most ? count(least, "copy", "copies") : `${least} to ${most} copies`;
  const wanted = objects[0].wanted;
  return `${many} of each of ${count(objects.length, "object")} (wanted: ${wanted}), on Dstore${dstores.length === 1 ? "" : "s"} ${dstores.join(", ")}`;
}

/** Shows a file of a row of files. */
export function preview(file, files, { download, moved }) {
  let place = files.findIndex((each) => each.path === file.path);
  return open("", (close, signal, dialog) => {
    dialog.classList.add("preview");
    const title = dialog.querySelector("h2");
    const position = el("span", { class: "dim" });
    const stage = el("div", { class: "stage" });
    const facts = el("dl", { class: "facts" });
    let turn = new AbortController();
    const show = async (next) => {
      place = (next + files.length) % files.length;
      const now = files[place];
      turn.abort();
      turn = new AbortController();
      const { signal: mine } = turn;
      title.textContent = shown(now.name);
      position.textContent = files.length > 1 ? `${place + 1} of ${files.length}` : "";
      stage.replaceChildren(el("p", { class: "dim" }, "Loading…"));
      const copies = el("dd", {}, "…");
      facts.replaceChildren(...[["Path", shown(now.path)], ["Size", `${bytes(now.size)} (${new Intl.NumberFormat("en").format(now.size)} bytes)`],
        ["Modified", fullTime(now.modified_ms)], ["Type", now.content_type || "by its name"], ["Version", now.etag.slice(1, -1)]]
        .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]), el("dt", {}, "Copies"), copies);
      moved(now);
      const [shownContent] = await Promise.allSettled([look(now, mine), placesOf(now, mine).then(
        (text) => { copies.textContent = text; }, (error) => { copies.textContent = error.name === "AbortError" ? "" : error.message; })]);
      if (mine.aborted) return;
      stage.replaceChildren(shownContent.status === "fulfilled" ? shownContent.value : el("p", { class: "problem" }, shownContent.reason.message));
    };
    signal.addEventListener("abort", () => turn.abort());
    dialog.addEventListener("keydown", (event) => {
      if (event.target.closest("video, audio")) return;
      if (event.key === "ArrowRight") show(place + 1);
      else if (event.key === "ArrowLeft") show(place - 1);
      else return;
      event.preventDefault();
    });
    const shut = button("close", "Close", () => close(null), { iconOnly: true });
    const bar = el("div", { class: "preview-bar" }, title, position, el("span", { class: "space" }),
      files.length > 1 && button("previous", "The file before", () => show(place - 1), { iconOnly: true }),
      files.length > 1 && button("next", "The next file", () => show(place + 1), { iconOnly: true }),
      button("download", "Download", () => download(files[place]), { iconOnly: true }), shut);
    queueMicrotask(() => shut.focus());
    show(place);
    return [bar, stage, facts];
  });
}
