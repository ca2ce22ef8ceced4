// What the page asks the gateway for: files over plain HTTP, the rest of /.stevedore/api/.

const API = "/.stevedore/api/";

/** What the gateway says went wrong. */
export class Problem extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** A path as a URL; a folder's ends in a slash. */
export function url(path, isFolder = false) {
  const encoded = path.split("/").map(encodeURIComponent).join("/");
  return isFolder && !encoded.endsWith("/") ? `${encoded}/` : encoded;
}

async function problemOf(response) {
  try {
    const { error, message } = await response.json();
    return new Problem(response.status, error, message);
  } catch {
    return new Problem(response.status, "unknown", `the gateway says ${response.status} ${response.statusText}`);
  }
}

async function ask(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "the gateway cannot be reached");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

const JSON_ONLY = { Accept: "application/json" };
const query = (words) => new URLSearchParams(words).toString().replaceAll("+", "%20");

async function call(name, words = {}, signal) {
  return (await ask(`${API}${name}?${query(words)}`, { headers: JSON_ONLY, signal })).json();
}

async function change(name, body) {
  const headers = { ...JSON_ONLY, "Content-Type": "application/json", "Stevedore-Console": "1" };
  return (await ask(API + name, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** A page of a folder's entries. */
export async function list(path, after = "", signal, limit = 1000) {
  const address = `${url(path, true)}?${query(after ? { limit, after } : { limit })}`;
  return (await ask(address, { headers: JSON_ONLY, signal })).json();
}

/** The user, and where it may do what. */
export const me = () => call("me");
export const status = () => call("status");
export const statistics = () => call("statistics");
export const find = (path, pattern, after, signal) => call("find", after ? { path, pattern, after } : { path, pattern }, signal);
export const count = (path, signal) => call("count", { path }, signal);
export const copies = (path, signal) => call("copies", { path }, signal);
export const rename = (from, to, replace = false) => change("rename", { from, to, replace });
export const copy = (from, to, replace = false) => change("copy", { from, to, replace });
/** All users, for admins; the gateway asks for a login if this is none. */
export const users = () => call("users");
/** Changes a user: `{ do: "add", name }` and the like. What was drawn for it is in the answer, and is not told again. */
export const changeUser = (body) => change("users", body);
/** Makes a folder and those on the way; refused (412) if `isNew` and there is something. */
export function makeFolder(path, isNew = false) {
  return ask(`${url(path, true)}?parents`, { method: "PUT", headers: isNew ? { "If-None-Match": "*" } : {} });
}

/** Removes a file, if it is still the one that was looked at, or a folder with all that is in it. */
export function remove(path, entry) {
  const isFolder = entry.kind === "folder";
  return ask(url(path, isFolder), { method: "DELETE", headers: isFolder ? {} : { "If-Match": entry.etag } });
}

/** Whether something is there. */
export async function exists(path, signal) {
  try {
    await ask(url(path), { method: "HEAD", headers: JSON_ONLY, signal });
    return true;
  } catch (error) {
    if (error.status === 404) return false;
    throw error;
  }
}

/** The beginning of a file, and whether that is all of it. */
export async function beginning(path, most, signal) {
  const response = await ask(url(path), { headers: { Range: `bytes=0-${most - 1}` }, signal });
  return new Uint8Array(await response.arrayBuffer());
}

/** Sends a file. `progress` is told the bytes that have left. */
export function put(path, file, { replace, progress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `${url(path)}?parents`);
    if (!replace) request.setRequestHeader("If-None-Match", "*");
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onerror = () => reject(new Problem(0, "unreachable", "the connection to the gateway was lost"));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    request.onload = () => {
      if (request.status < 300) return resolve();
      let said = {};
      try {
        said = JSON.parse(request.responseText);
      } catch { /* the status has to do */ }
      reject(new Problem(request.status, said.error ?? "unknown", said.message ?? `the gateway says ${request.status}`));
    };
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

/**
 * What changes, while the page is shown: one stream for all of it. Listeners are told `status`, `trouble`, `statistics`,
 * `changes`, and `connection` with true or false.
 */
class Events extends EventTarget {
  #source = null;
  isConnected = false;
  /** The last status, and when it came. */
  status = null;
  seenAt = 0;
  trouble = null;
  changes = [];

  start() {
    const open = () => (document.hidden ? this.#close() : this.#open());
    document.addEventListener("visibilitychange", open);
    open();
  }

  #open() {
    if (this.#source) return;
    this.changes = []; // the stream begins with the last ones
    this.#source = new EventSource(`${API}events`);
    this.#source.onopen = () => this.#connected(true);
    this.#source.onerror = () => {
      this.#connected(false);
      // A browser gives up when it is refused, as it is while there are too many viewers.
      if (this.#source?.readyState === EventSource.CLOSED) {
        this.#close();
        setTimeout(() => document.hidden || this.#open(), 5_000);
      }
    };
    for (const name of ["status", "trouble", "statistics", "changes"]) {
      this.#source.addEventListener(name, (event) => this.#tell(name, JSON.parse(event.data)));
    }
  }

  #close() {
    this.#source?.close();
    this.#source = null;
  }

  #connected(is) {
    this.isConnected = is;
    this.dispatchEvent(new CustomEvent("connection", { detail: is }));
  }

  #tell(name, detail) {
    if (name === "status") {
      this.status = detail;
      this.seenAt = Date.now();
      this.trouble = null;
    } else if (name === "trouble") {
      this.trouble = detail;
    } else if (name === "changes") {
      this.changes = [...detail.changes.toReversed(), ...this.changes].slice(0, 200);
    }
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

export const events = new Events();
