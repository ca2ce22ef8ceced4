// Questions. Each is a <dialog>: the browser keeps the focus in it, and gives it back afterwards; Escape says no.

import * as api from "./api.js";
import { button, bytes, count, el, icon, join, nameOf, number, parentOf, shown } from "./dom.js";

/** Shows a dialog; gives back what `close` is called with, or null. */
function open(title, build, { wide = false } = {}) {
  return new Promise((resolve) => {
    let answer = null;
    const abort = new AbortController();
    const dialog = el("dialog", { class: wide ? "wide" : null, "aria-labelledby": "dialog-title" });
    const close = (value) => {
      answer = value;
      dialog.close();
    };
    dialog.append(el("h2", { id: "dialog-title" }, title));
    dialog.append(...build(close, abort.signal, dialog));
    dialog.addEventListener("close", () => {
      abort.abort();
      dialog.remove();
      resolve(answer);
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    document.body.append(dialog);
    dialog.showModal();
  });
}

const actions = (...buttons) => el("div", { class: "actions" }, ...buttons);

/** Why a name cannot be one; empty if it can. */
function wrongName(name) {
  if (name === "") return "A name is needed.";
  if (name === "." || name === "..") return `${name} is no name.`;
  if (name.includes("/")) return "A name has no / in it.";
  if (new TextEncoder().encode(name).length > 255) return "A name has at most 255 bytes.";
  return "";
}

/** Asks for a name. `act` is called with it, and may say why it will not do. */
export function askName({ title, label, value = "", verb, act }) {
  return open(title, (close) => {
    const problem = el("p", { class: "problem", role: "alert" });
    const field = el("input", { type: "text", id: "name-field", autocomplete: "off", spellcheck: "false", "aria-describedby": "name-problem" });
    problem.id = "name-problem";
    field.value = value;
    const submit = el("button", { type: "submit", class: "primary" }, verb);
    const form = el("form", {
      onsubmit: async (event) => {
        event.preventDefault();
        const wrong = wrongName(field.value);
        if (wrong) {
          problem.textContent = wrong;
          return;
        }
        submit.disabled = true;
        try {
          await act(field.value);
          close(field.value);
        } catch (error) {
          problem.textContent = error.message;
          submit.disabled = false;
          field.focus();
        }
      },
    }, el("label", { for: "name-field" }, label), field, problem, actions(button(null, "Cancel", () => close(null)), submit));
    queueMicrotask(() => {
      field.focus();
      const dot = value.lastIndexOf(".");
      field.setSelectionRange(0, dot > 0 ? dot : value.length);
    });
    return [form];
  });
}

/** Asks whether these go for good, and says how much that is. */
export function confirmRemoval(folder, entries) {
  const folders = entries.filter((entry) => entry.kind === "folder");
  const files = entries.filter((entry) => entry.kind === "file");
  const title = entries.length === 1 ? `Delete ${entries[0].kind === "folder" ? "folder" : "file"}?` : `Delete ${number(entries.length)} entries?`;
  return open(title, (close, signal) => {
    const most = 6;
    const names = el("ul", { class: "names" }, entries.slice(0, most).map((entry) =>
      el("li", {}, icon(entry.kind === "folder" ? "folder" : "file"), el("span", { class: "text" }, shown(entry.path)),
        entry.kind === "file" && el("span", { class: "dim" }, bytes(entry.size)))));
    if (entries.length > most) names.append(el("li", { class: "dim" }, `and ${number(entries.length - most)} more`));
    const amount = el("p", { id: "removal-amount", "aria-live": "polite" });
    const confirm = button("delete", "Delete", () => close(true), { danger: true });
    const own = { files: files.length, folders: folders.length, bytes: files.reduce((sum, file) => sum + file.size, 0), is_whole: true };
    const tell = (sum) => {
      const least = sum.is_whole ? "" : "at least ";
      const parts = [count(sum.files, "file")];
      if (sum.folders > 0) parts.push(count(sum.folders, "folder"));
      amount.replaceChildren(el("strong", {}, `${least}${parts.join(" and ")}, ${bytes(sum.bytes)}`), " will be gone. This cannot be undone.");
    };
    if (folders.length === 0) tell(own);
    else {
      confirm.disabled = true;
      amount.textContent = "Counting what is in there…";
      Promise.all(folders.map((entry) => api.count(entry.path, signal))).then((counts) => {
        tell(counts.reduce((sum, one) => ({
          files: sum.files + one.files, folders: sum.folders + one.folders, bytes: sum.bytes + one.bytes, is_whole: sum.is_whole && one.is_whole,
        }), own));
        confirm.disabled = false;
        confirm.focus();
      }, (error) => {
        if (error.name === "AbortError") return;
        amount.textContent = `What is in there cannot be counted: ${error.message}`;
        confirm.disabled = false;
      });
    }
    const cancel = button(null, "Cancel", () => close(null));
    queueMicrotask(() => (confirm.disabled ? cancel : confirm).focus());
    return [names, amount, actions(cancel, confirm)];
  });
}

/** Asks what to do about a target that is there already: "replace", "skip" or null; and whether for all that follow. */
export function askReplace(path, more) {
  return open("Already there", (close) => {
    const all = el("input", { type: "checkbox", id: "for-all" });
    const answer = (what) => close({ what, forAll: all.checked });
    const replace = button(null, "Replace", () => answer("replace"), { danger: true });
    queueMicrotask(() => replace.focus());
    return [
      el("p", {}, el("strong", { class: "path" }, shown(path)), " exists. Replace it?"),
      more > 0 && el("p", {}, all, el("label", { for: "for-all" }, ` The same for all others that exist (${number(more)} left)`)),
      actions(button(null, "Skip", () => answer("skip")), replace),
    ].filter(Boolean);
  });
}

/** Asks for a folder: by typing its path, or by going there. `verb` is what happens then. */
export function askFolder({ title, start, verb, refuse }) {
  return open(title, (close, signal) => {
    const field = el("input", { type: "text", id: "folder-field", autocomplete: "off", spellcheck: "false", role: "combobox",
      "aria-expanded": "true", "aria-controls": "folder-list", "aria-autocomplete": "list" });
    const listed = el("ul", { class: "folders", role: "listbox", id: "folder-list", "aria-label": "Folders there" });
    const problem = el("p", { class: "problem", role: "alert" });
    let folders = [];
    let active = -1;
    let latest = 0;
    const folder = () => field.value.replace(/\/+$/, "") || "/";
    const draw = () => {
      listed.replaceChildren(...folders.map((path, place) => el("li", {
        role: "option", id: `folder-${place}`, class: place === active ? "active" : null, "aria-selected": String(place === active),
        onclick: () => go(path),
      }, icon("folder"), el("span", { class: "text" }, path === parentOf(folder()) && place === 0 && path !== folder() ? ".." : shown(nameOf(path))))));
      if (folders.length === 0) listed.append(el("li", { class: "dim" }, "No folders in there"));
      if (active >= 0) {
        field.setAttribute("aria-activedescendant", `folder-${active}`);
        listed.children[active].scrollIntoView({ block: "nearest" });
      } else field.removeAttribute("aria-activedescendant");
    };
    const look = async () => {
      const turn = (latest += 1);
      const typed = field.value;
      // Text behind the last slash is the beginning of a name.
      const parent = typed.slice(0, typed.lastIndexOf("/")) || "/";
      const beginning = typed.slice(typed.lastIndexOf("/") + 1);
      try {
        const page = await api.list(parent, "", signal);
        if (turn !== latest) return;
        const there = page.entries.filter((entry) => entry.kind === "folder" && entry.name.startsWith(beginning));
        folders = there.map((entry) => join(parent, entry.name));
        if (beginning === "" && parent !== "/") folders.unshift(parentOf(parent));
        problem.textContent = refuse?.(folder()) ?? "";
      } catch (error) {
        if (turn !== latest || error.name === "AbortError") return;
        folders = [];
        problem.textContent = error.message;
      }
      active = -1;
      draw();
    };
    const go = (path) => {
      field.value = path === "/" ? "/" : `${path}/`;
      field.focus();
      look();
    };
    field.value = start === "/" ? "/" : `${start}/`;
    field.addEventListener("input", look);
    field.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") active = Math.min(active + 1, folders.length - 1);
      else if (event.key === "ArrowUp") active = Math.max(active - 1, -1);
      else if ((event.key === "Enter" || event.key === "Tab" && !event.shiftKey) && active >= 0) {
        event.preventDefault();
        go(folders[active]);
        return;
      } else return;
      event.preventDefault();
      draw();
    });
    const form = el("form", {
      onsubmit: (event) => {
        event.preventDefault();
        const wrong = refuse?.(folder());
        if (wrong) problem.textContent = wrong;
        else close(folder());
      },
    }, el("label", { for: "folder-field" }, "Folder"), field, listed, problem,
    actions(button(null, "Cancel", () => close(null)), el("button", { type: "submit", class: "primary" }, verb)));
    queueMicrotask(() => field.focus());
    look();
    return [form];
  });
}

/** What keys do. */
export function showHelp() {
  const keys = [
    ["↑ ↓ Home End PgUp PgDn", "move"], ["Shift + these", "extend the selection"], ["Space", "select or not"], ["Ctrl A", "select all"],
    ["Enter", "open a folder, look at a file"], ["Backspace", "to the folder above"], ["/", "search"], ["Escape", "end the search; select nothing"],
    ["U", "upload files"], ["N", "new folder"], ["D", "download"], ["F2", "rename"], ["M", "move"], ["C", "copy"], ["Delete", "delete"],
    ["← →", "in a preview: the file before, and the next"], ["G then F, C or U", "to the files, the cluster, the users"], ["?", "this list"],
  ];
  return open("Keyboard", (close) => {
    const done = button(null, "Close", () => close(null), { primary: true });
    queueMicrotask(() => done.focus());
    return [el("dl", { class: "keys" }, keys.map(([key, does]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, does)])), actions(done)];
  }, { wide: true });
}

/** Asks whether something is to be done; `what` says it. */
export function confirm(title, what, verb) {
  return open(title, (close) => {
    const yes = button(null, verb, () => close(true), { danger: true });
    queueMicrotask(() => yes.focus());
    return [el("p", {}, what), actions(button(null, "Cancel", () => close(null)), yes)];
  });
}

/** Shows words that are told once, by name, to be copied. */
export function showSecrets(title, words) {
  return open(title, (close) => {
    const done = button(null, "Done", () => close(null), { primary: true });
    queueMicrotask(() => done.focus());
    return [
      el("p", {}, "This is shown only now."),
      el("dl", { class: "secrets" }, Object.entries(words).map(([name, word]) => [el("dt", {}, name), el("dd", {}, el("code", {}, word),
        button("copy", `Copy the ${name}`, () => navigator.clipboard?.writeText(word), { iconOnly: true }))])),
      actions(done),
    ];
  });
}

/** A dialog of its own kind. */
export { actions, open };
