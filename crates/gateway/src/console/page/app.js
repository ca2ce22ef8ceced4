// The page: which view is shown, what is told at the top, and keys that work everywhere.

import * as api from "./api.js";
import { events } from "./api.js";
import { Cluster } from "./cluster.js";
import { showHelp } from "./dialogs.js";
import { $, icon, shown } from "./dom.js";
import { Files } from "./files.js";
import { Uploads } from "./uploads.js";
import { Users } from "./users.js";

const uploads = new Uploads($("uploads"));
const views = { files: new Files(uploads), cluster: new Cluster(), users: new Users() };
let view = null;

/** What the address says: `#cluster`, `#users`, or `#/path/of/a/folder/`. */
function route() {
  const hash = location.hash.slice(1);
  if (hash === "cluster" || hash === "users") return show(hash);
  let path;
  try {
    path = hash.split("/").map(decodeURIComponent).filter((name) => name !== "").join("/");
  } catch {
    path = "";
  }
  show("files", `/${path}`);
}

function show(name, path) {
  const next = views[name];
  if (view !== next) {
    view?.hide();
    view = next;
    $("main").replaceChildren(view.element);
    for (const each of Object.keys(views)) {
      if (each === name) $(`nav-${each}`).setAttribute("aria-current", "page");
      else $(`nav-${each}`).removeAttribute("aria-current");
    }
  }
  view.show(path);
}

// Light, dark, or as the system has it.

const THEMES = ["auto", "light", "dark"];

function drawTheme() {
  const theme = document.documentElement.dataset.theme;
  const label = theme === "auto" ? "Colours: as the system has them" : `Colours: ${theme}`;
  $("theme").replaceChildren(icon(theme));
  $("theme").setAttribute("aria-label", label);
  $("theme").title = label;
}

$("theme").addEventListener("click", () => {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  drawTheme();
  dispatchEvent(new Event("themechange"));
});

// How the store is, in a dot.

let silence;

function drawHealth() {
  const { status, trouble, isConnected } = events;
  const [kind, label] = !isConnected ? ["unknown", "not connected"]
    : trouble ? ["bad", "the store does not answer"]
    : !status ? ["unknown", "state unknown"]
    : status.problems.length > 0 ? ["bad", `${status.problems.length} problem${status.problems.length === 1 ? "" : "s"}`]
    : ["good", "all is well"];
  $("health").className = `dot ${kind}`;
  $("health").setAttribute("aria-label", label);
  $("health").title = label;
  // A stream ends now and then and is begun again: only a longer silence is told.
  clearTimeout(silence);
  if (isConnected) $("live").textContent = "";
  else silence = setTimeout(() => { $("live").textContent = "Connecting…"; }, 3_000);
  if (status) {
    $("store-name").textContent = shown(status.name);
    document.title = `${shown(status.name)} - Stevedore`;
  }
}

for (const name of ["status", "trouble", "connection"]) events.addEventListener(name, drawHealth);

// Keys that work in each view; those of a view come first.

let waitsForPlace = false;

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || document.querySelector("dialog[open], .menu") || event.target.closest("input, textarea, select")) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (waitsForPlace) {
    waitsForPlace = false;
    if (event.key === "f") location.hash = views.files.address;
    else if (event.key === "c") location.hash = "cluster";
    else if (event.key === "u") location.hash = "users";
    else return;
  } else if (event.key === "g") waitsForPlace = true;
  else if (event.key === "?") showHelp();
  else if (!view.onKey(event)) return;
  event.preventDefault();
});

$("help").addEventListener("click", showHelp);
addEventListener("hashchange", route);
// A tab with uploads under way is not closed by mistake.
addEventListener("beforeunload", (event) => uploads.isBusy && event.preventDefault());
// A file that is dropped beside a folder is not opened in place of the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

// Who is logged in; nothing where no one has to be.

api.me().then(({ name }) => { $("account").textContent = name === "anonymous" ? "" : shown(name); }, () => {});

drawTheme();
drawHealth();
events.start();
route();
