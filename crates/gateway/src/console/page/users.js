// Users and what each may do, for admins.

import * as api from "./api.js";
import { actions, askName, confirm, open, showSecrets } from "./dialogs.js";
import { button, el, shown, toast } from "./dom.js";

/** Stands for all who name no user. */
const ANONYMOUS = "anonymous";

export class Users {
  constructor() {
    this.element = el("section", { class: "users", "aria-label": "Users" });
  }

  show() {
    this.#load();
  }

  hide() {}

  onKey(event) {
    if (event.key !== "n") return false;
    this.#add();
    return true;
  }

  async #load() {
    if (!this.element.hasChildNodes()) this.element.append(el("p", { class: "dim" }, "Asking for the users: this needs an admin's name and password."));
    try {
      const { users } = await api.users();
      this.#draw(users);
    } catch (error) {
      const isLogin = error.status === 401 || error.status === 403;
      this.element.replaceChildren(el("p", { class: "dim", role: "status" }, isLogin ? "This is for admins: it needs a user with the right admin for /." : error.message),
        el("p", {}, button("reload", isLogin ? "Log in" : "Try again", () => this.#load())));
    }
  }

  #draw(users) {
    this.element.replaceChildren(
      el("div", { class: "users-head" },
        el("p", { class: "dim" }, "Rights hold for a path and all below it. The store's own clients need no user."),
        button(null, "New user", () => this.#add(), { primary: true, title: "New user (N)" })),
      ...users.map((user) => this.#userOf(user)));
    if (users.length === 0) this.element.append(el("p", { class: "dim" }, "There are no users."));
  }

  #userOf({ name, rights, keys, has_password: hasPassword }) {
    const isPerson = name !== ANONYMOUS;
    const none = (text) => el("li", { class: "dim" }, text);
    const title = shown(name);
    return el("article", { class: "panel user", "aria-label": `User ${title}` },
      el("div", { class: "user-head" },
        el("h2", {}, title, !isPerson && el("span", { class: "dim" }, ": all who name no user")),
        button(null, "Grant", () => this.#grant(name)),
        isPerson && button(null, hasPassword ? "New password" : "Give a password", () => this.#newPassword(name, hasPassword)),
        isPerson && button(null, "New key", () => this.#newKey(name)),
        button("delete", `Remove ${title}`, () => this.#remove(name), { iconOnly: true, danger: true })),
      el("dl", {},
        el("dt", {}, "Rights"),
        el("dd", {}, el("ul", {}, rights.length === 0 ? none("may do nothing") : rights.map(({ path, right }) => el("li", {},
          el("span", { class: "right" }, right), el("span", { class: "text mono" }, shown(path)),
          button("close", `Take away ${right} at ${shown(path)}`, () => this.#change({ do: "grant", name, path, right: null }), { iconOnly: true }))))),
        isPerson && el("dt", {}, "Keys for S3"),
        isPerson && el("dd", {}, el("ul", {}, keys.length === 0 ? none("none") : keys.map((key) => el("li", {},
          el("span", { class: "text mono" }, key),
          button("close", `Remove key ${key}`, () => this.#removeKey(name, key), { iconOnly: true })))))));
  }

  /** Does a change and shows what there is then; its answer, or null if it was not done. */
  async #change(body) {
    try {
      const answer = await api.changeUser(body);
      await this.#load();
      return answer;
    } catch (error) {
      toast(error.message, { isError: true });
      return null;
    }
  }

  async #add() {
    let password = null;
    const name = await askName({ title: "New user", label: "Name", verb: "Add", act: async (name) => {
      ({ password } = await api.changeUser({ do: "add", name }));
    } });
    if (name === null) return;
    await this.#load();
    if (password !== null) await showSecrets(`User ${shown(name)}`, { password });
  }

  async #remove(name) {
    const what = name === ANONYMOUS ? "Then the gateway decides what those may do who name no user: on this machine, read and write."
      : "Its password and its keys are of no use a second later. The files stay.";
    if (await confirm(`Remove ${shown(name)}?`, what, "Remove")) this.#change({ do: "remove", name });
  }

  async #newPassword(name, isAnother) {
    if (isAnother && !await confirm(`A new password for ${shown(name)}?`, "The one that there is will be of no use.", "New password")) return;
    const answer = await this.#change({ do: "password", name });
    if (answer) showSecrets(`User ${shown(name)}`, { password: answer.password });
  }

  async #newKey(name) {
    const answer = await this.#change({ do: "add-key", name });
    if (answer) showSecrets(`A key of ${shown(name)}`, { "access key": answer.key, "secret": answer.secret });
  }

  async #removeKey(name, key) {
    if (await confirm("Remove this key?", `Programs that use ${key} are refused from now on.`, "Remove")) this.#change({ do: "remove-key", name, key });
  }

  #grant(name) {
    return open(`What may ${shown(name)} do?`, (close) => {
      const path = el("input", { type: "text", id: "grant-path", autocomplete: "off", spellcheck: "false", ".value": "/" });
      const right = el("select", { id: "grant-right" }, ["read", "write", "admin"].map((right) => el("option", {}, right)));
      const problem = el("p", { class: "problem", role: "alert" });
      const form = el("form", {
        onsubmit: async (event) => {
          event.preventDefault();
          try {
            await api.changeUser({ do: "grant", name, path: path.value, right: right.value });
            close(true);
            this.#load();
          } catch (error) {
            problem.textContent = error.message;
            path.focus();
          }
        },
      }, el("label", { for: "grant-path" }, "Path"), path, el("label", { for: "grant-right" }, "Right"), right, problem,
      actions(button(null, "Cancel", () => close(null)), el("button", { type: "submit", class: "primary" }, "Grant")));
      queueMicrotask(() => path.select());
      return [form];
    });
  }
}
