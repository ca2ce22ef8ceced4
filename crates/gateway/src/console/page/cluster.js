// How the store is: what is wrong first, then what there is, then what happens.

import * as api from "./api.js";
import { events } from "./api.js";
import { Chart } from "./chart.js";
import { brief, bytes, clock, count, duration, el, fullTime, icon, number, shown } from "./dom.js";

/** A Controller that was not heard of for so many seconds is away. */
const AWAY = 3;

/** So many changes are shown. */
const MOST_CHANGES = 60;

/** A status that is older says so. */
const STALE_MS = 5_000;

const VERBS = {
  put: "put", compose: "composed", move: "moved", copy: "copied", remove: "removed", "make-directory": "made folder",
  "remove-directory": "removed folder", "set-attributes": "attributes of", format: "emptied", set: "changed settings",
};

export class Cluster {
  #samples = [];
  #minutes = 15;
  /** The most that was missing since healing began, as this page has seen it. */
  #healing = null;

  constructor() {
    this.state = el("div", { class: "state" });
    this.problems = el("div");
    this.healing = el("div");
    this.controllers = el("div", { class: "panel" });
    this.dstores = el("div", { class: "panel" });
    this.about = el("div", { class: "panel about" });
    this.changes = el("ol", { class: "changes", tabindex: "0", "aria-label": "Recent changes" });
    const rate = (name) => (sample) => sample[name] * 1000 / this.period;
    this.charts = [
      new Chart({ title: "Throughput", format: (value) => `${bytes(value)}/s`, base: 1024, least: 10_240, series: [
        { name: "in", kind: "first", isFilled: true, value: rate("received_bytes") }, { name: "out", kind: "second", value: rate("sent_bytes") }] }),
      new Chart({ title: "Time to answer", format: milliseconds, least: 1, series: [
        { name: "half within", kind: "first", isFilled: true, value: (sample) => sample.half_ms }, { name: "99% within", kind: "second", value: (sample) => sample.most_ms }] }),
      new Chart({ title: "Requests", format: (value) => `${value >= 10 || value === 0 ? number(Math.round(value)) : value.toFixed(1)}/s`, least: 1, series: [
        { name: "all", kind: "first", isFilled: true, value: rate("requests") }, { name: "failed", kind: "bad", value: rate("errors") }] }),
      new Chart({ title: "Space in use", format: bytes, base: 1024, least: 1, top: (samples) => Math.max(...samples.map((sample) => sample.total_bytes ?? 0), 0),
        series: [{ name: "in use", kind: "first", isFilled: true, value: (sample) => sample.used_bytes }] }),
    ];
    const windows = el("div", { class: "segments", role: "radiogroup", "aria-label": "How far back" }, [[5, "5 min"], [15, "15 min"], [60, "1 h"]].map(([minutes, label]) =>
      el("label", {}, el("input", { type: "radio", name: "window", ".checked": minutes === this.#minutes, onchange: () => {
        this.#minutes = minutes;
        this.#drawCharts();
      } }), el("span", {}, label))));
    this.element = el("section", { class: "cluster", "aria-label": "Cluster" },
      this.state, this.problems,
      el("div", { class: "columns" },
        el("div", { class: "wide-column" }, this.healing, this.dstores, this.controllers,
          el("div", { class: "charts-head" }, el("h2", {}, "This gateway"), windows),
          el("div", { class: "charts" }, this.charts.map((chart) => chart.element))),
        el("div", { class: "narrow-column" }, el("div", { class: "panel" }, el("h2", {}, "Recent changes"), this.changes), this.about)));
    for (const name of ["status", "trouble", "connection"]) events.addEventListener(name, () => this.#draw());
    events.addEventListener("changes", () => this.#drawChanges());
    events.addEventListener("statistics", ({ detail }) => this.#add(detail));
    events.addEventListener("connection", ({ detail }) => detail && this.#isShown() && this.#loadSamples());
    setInterval(() => this.#drawAge(), 1_000);
  }

  show() {
    this.#draw();
    this.#drawChanges();
    this.#loadSamples();
  }

  hide() {}

  onKey() {
    return false;
  }

  #isShown() {
    return this.element.isConnected;
  }

  async #loadSamples() {
    try {
      const { period_ms: period, samples } = await api.statistics();
      this.period = period;
      this.#samples = samples;
      this.#drawCharts();
    } catch { /* the stream tells what is wrong */ }
  }

  #add({ period_ms: period, samples }) {
    this.period = period;
    const last = this.#samples.at(-1)?.number ?? 0;
    this.#samples.push(...samples.filter((sample) => sample.number > last));
    this.#samples.splice(0, this.#samples.length - 720);
    if (this.#isShown()) this.#drawCharts();
  }

  #drawCharts() {
    for (const chart of this.charts) chart.show(this.#samples, this.#minutes);
  }

  #draw() {
    this.#followHealing(events.status?.healing);
    if (!this.#isShown()) return;
    const { status, trouble } = events;
    if (!status) {
      this.state.replaceChildren(el("p", { class: "dim" }, trouble ? trouble.message : "Asking how the store is…"));
      return;
    }
    this.#drawState(status, trouble);
    this.#drawProblems(status, trouble);
    this.#drawHealing(status);
    this.#drawDstores(status);
    this.#drawControllers(status);
    this.#drawAbout(status);
  }

  #drawState(status, trouble) {
    const present = status.dstores.filter((dstore) => dstore.state === "present");
    const leader = status.controllers.find((controller) => controller.is_leader);
    const total = present.reduce((sum, dstore) => sum + dstore.total_bytes, 0);
    const free = present.reduce((sum, dstore) => sum + dstore.free_bytes, 0);
    const isWell = status.problems.length === 0 && !trouble;
    const facts = [
      ["Entries", number(status.entries)],
      ["Objects", number(status.objects)],
      ["Dstores", `${present.length} of ${status.dstores.length}`],
      ["Leader", leader ? `${leader.address}` : "none", leader ? `term ${leader.term}` : ""],
      ["Free", bytes(free), total > 0 ? `of ${bytes(total)}` : ""],
      ["Replicas", status.settings.replicas],
    ];
    this.age = el("span", { class: "dim age" });
    this.state.replaceChildren(
      el("div", { class: `verdict ${isWell ? "good" : "bad"}`, role: "status" }, icon(isWell ? "good" : "warning"),
        el("div", {}, el("strong", {}, trouble ? "The store does not answer" : isWell ? "All is well" : count(status.problems.length, "problem")), this.age)),
      el("dl", { class: "figures" }, facts.map(([name, value, more]) =>
        el("div", {}, el("dt", {}, name), el("dd", {}, value, more && el("span", { class: "dim more" }, ` ${more}`))))));
    this.#drawAge();
  }

  /** How old what is shown is: said where it is not from just now. */
  #drawAge() {
    if (!this.age || !this.#isShown()) return;
    const isOld = !events.isConnected || events.trouble;
    const age = Date.now() - events.seenAt;
    this.age.textContent = isOld && age > STALE_MS ? `as of ${clock(events.seenAt, true)}, ${duration(age / 1000)} ago` : "live";
  }

  #drawProblems(status, trouble) {
    const lines = [...(trouble ? [trouble.message] : []), ...status.problems];
    keep(this.problems, JSON.stringify(lines), () => lines.length === 0 ? [] : [el("ul", { class: "problems", "aria-label": "Problems" },
      lines.map((line) => el("li", {}, icon("warning"), el("span", {}, shown(line)))))]);
  }

  /** The most objects that lacked copies since that began: what there was to do, as far as this page knows. */
  #followHealing(healing) {
    if (!healing || healing.objects === 0) this.#healing = null;
    else if (!this.#healing) this.#healing = { most: healing.objects, since: Date.now() };
    else this.#healing.most = Math.max(this.#healing.most, healing.objects);
  }

  #drawHealing({ healing, too_few_copies: few, no_copy: none }) {
    const lines = [];
    if (few > 0) lines.push(`${count(few, "object")} ${few === 1 ? "has" : "have"} too few copies${none > 0 ? `, ${number(none)} of them none at a Dstore that is present` : ""}.`);
    if (healing.is_guarded) lines.push("So many Dstores are away that only objects with one good copy are repaired.");
    if (healing.surplus > 0) lines.push(`Surplus copies of ${count(healing.surplus, "object")} go.`);
    if (healing.moving > 0) lines.push(`Copies of ${count(healing.moving, "object")} move to emptier Dstores.`);
    if (healing.unnamed > 0) lines.push(`${count(healing.unnamed, "object")} of removed files and unfinished puts ${healing.unnamed === 1 ? "waits" : "wait"} to go.`);
    if (healing.unclaimed > 0) lines.push(`${count(healing.unclaimed, "unclaimed object")} (${bytes(healing.unclaimed_bytes)}) from before a restore or a recovery: stevedore collect --unclaimed`);
    if (healing.points_apart > 0) {
      lines.push(`The Dstores' shares in use differ by ${healing.points_apart} points; ${healing.is_as_even_as_can_be ? "the disks' sizes, machines and zones allow no better." : "copies move when nothing else is to be done."}`);
    }
    if (healing.objects === 0 && lines.length === 0) return this.healing.replaceChildren();
    const panel = el("div", { class: "panel healing" }, el("h2", {}, healing.objects > 0 ? "Healing" : "Copies"));
    if (healing.objects > 0) {
      const { most, since } = this.#healing;
      const left = `${count(healing.objects, "object")} left, ${bytes(healing.bytes)}`;
      const rate = healing.bytes_per_second > 0 ? `, ${bytes(healing.bytes_per_second)}/s, about ${duration(healing.bytes / healing.bytes_per_second)}` : ", nothing became certain in the last moments";
      panel.append(el("p", {}, el("strong", {}, left), rate),
        el("progress", { max: most, value: most - healing.objects, "aria-label": `${number(most - healing.objects)} of at most ${number(most)} objects done` }),
        el("p", { class: "dim" }, `Of at most ${number(most)} at a time since ${clock(since, true)}. Counted from what Dstores report, not from what was ordered.`));
    }
    panel.append(...lines.map((line) => el("p", {}, line)));
    this.healing.replaceChildren(panel);
  }

  #drawDstores({ dstores }) {
    const rank = (dstore) => (dstore.duty === "removed" ? 3 : dstore.state === "away" ? 0 : dstore.damaged > 0 ? 1 : 2);
    const rows = dstores.toSorted((a, b) => rank(a) - rank(b) || a.id - b.id).map((dstore) => {
      const state = dstore.duty === "removed" ? ["unknown", "removed"] : dstore.state === "away" ? ["bad", "away"]
        : dstore.duty === "draining" ? ["warn", "drains"] : ["good", "present"];
      const used = dstore.total_bytes - dstore.free_bytes;
      const share = dstore.total_bytes > 0 ? used / dstore.total_bytes : 0;
      const own = dstore.total_bytes > 0 ? Math.min(dstore.used_bytes / dstore.total_bytes, share) : 0;
      const { processors, memory, disk } = dstore.load_percent;
      const isHere = dstore.state === "present";
      return el("tr", { class: isHere ? null : "away" },
        el("th", { scope: "row" }, String(dstore.id)),
        el("td", {}, stateOf(...state)),
        el("td", { class: "address" }, shown(dstore.address || "-"), dstore.zone && el("span", { class: "dim" }, ` ${shown(dstore.zone)}`)),
        el("td", { class: "space-cell" }, dstore.total_bytes === 0 ? el("span", { class: "dim" }, "unknown") : el("div", { class: "space-of" },
          meter(share, own, `${Math.round(share * 100)}% of ${bytes(dstore.total_bytes)} in use, ${bytes(dstore.used_bytes)} by this Dstore`),
          el("span", { class: "dim" }, `${Math.round(share * 100)}% of ${bytes(dstore.total_bytes)}`))),
        el("td", { class: "n" }, number(dstore.objects), dstore.damaged > 0 && el("div", { class: "problem-text" }, `${number(dstore.damaged)} damaged`)),
        el("td", { class: "n" }, bytes(dstore.used_bytes)),
        ...[["Processors", processors], ["Memory", memory], ["Disk", disk]].map(([name, percent]) => el("td", { class: "n" }, isHere ? load(name, percent) : "-")),
        el("td", { class: "n dim", title: "All that it has was verified so long ago" }, brief(dstore.scrubbed_seconds_ago)));
    });
    keep(this.dstores, JSON.stringify(dstores), () => [el("h2", {}, "Dstores"), dstores.length === 0 ? el("p", { class: "dim" }, "No Dstore has joined.")
      : table(["", "State", "Address", "Disk", ["Objects"], ["Content"], ["Cpu"], ["Mem"], ["I/O"], ["Verified"]], rows)]);
  }

  #drawControllers({ controllers }) {
    const rows = controllers.map((controller) => {
      const { silence_seconds: silence } = controller;
      const isAway = !controller.is_leader && controller.last_index !== null && (silence === null || silence >= AWAY);
      const state = controller.is_leader ? ["good", "leads"] : isAway ? ["bad", "away"]
        : controller.role === "follower" ? ["good", "follows"] : controller.role === "learner" ? ["warn", "catches up"] : ["unknown", "not yet in"];
      const [sent, all] = controller.snapshot_bytes ?? [];
      const lag = controller.snapshot_bytes ? `snapshot ${Math.floor(sent / Math.max(all, 1) * 100)}%` : controller.last_index === null ? "-" : number(controller.lag);
      return el("tr", { class: isAway ? "away" : null },
        el("th", { scope: "row", class: "address" }, shown(controller.address)),
        el("td", {}, stateOf(...state)),
        el("td", { class: "n" }, number(controller.term)),
        el("td", { class: "n" }, controller.last_index === null ? "-" : number(controller.last_index)),
        el("td", { class: "n" }, lag),
        el("td", {}, controller.sync || "-"),
        el("td", { class: "n dim" }, controller.up_seconds === null ? "-" : brief(controller.up_seconds)),
        el("td", { class: "dim mono" }, controller.id));
    });
    keep(this.controllers, JSON.stringify(controllers), () => [el("h2", {}, "Controllers"), controllers.length === 0 ? el("p", { class: "dim" }, "None: this store is in memory.")
      : table(["Address", "State", ["Term"], ["Log"], ["Lag"], "Sync", ["Up"], "Id"], rows)]);
  }

  #drawAbout({ limits, settings, version, cluster }) {
    const quorum = settings.write_quorum ?? "a majority";
    const facts = [["Write quorum", quorum], ["Chunks", bytes(settings.chunk_bytes)], ["Grace", settings.grace_seconds === null ? "default" : `${settings.grace_seconds} s`],
      ["Most entries", number(settings.most_entries)], settings.is_read_only && ["Mode", "read-only"], ["Version", version], ["Cluster", cluster]].filter(Boolean);
    keep(this.about, JSON.stringify([limits, facts]), () => [
      el("h2", {}, "This store"),
      limits.length > 0 && el("p", {}, "It does not survive"),
      limits.length > 0 && el("ul", { class: "limits" }, limits.map((limit) => el("li", {}, shown(limit)))),
      el("dl", { class: "settings" }, facts.map(([name, value]) => [el("dt", {}, name), el("dd", { class: "mono" }, String(value))])),
    ].filter(Boolean));
  }

  #drawChanges() {
    if (!this.#isShown()) return;
    const changes = events.changes.slice(0, MOST_CHANGES);
    this.changes.replaceChildren(...changes.map((change) => el("li", {},
      el("time", { class: "dim", title: fullTime(change.time_ms) }, clock(change.time_ms, true)),
      el("span", { class: `verb ${change.verb}` }, VERBS[change.verb] ?? change.verb),
      el("span", { class: "text", title: change.paths.map(shown).join(" → ") }, change.paths.map(shown).join(" → ")))));
    if (changes.length === 0) this.changes.append(el("li", { class: "dim" }, "Nothing has changed lately."));
  }
}

/** Draws again only what has changed: a selection of text, or a place in a table that is scrolled, stays. */
function keep(element, key, draw) {
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...draw());
}

const stateOf = (kind, text) => el("span", { class: "state-of" }, el("span", { class: `dot ${kind}` }), text);

/** A table; a title in brackets is above numbers. */
function table(titles, rows) {
  const head = titles.map((title) => (Array.isArray(title) ? el("th", { scope: "col", class: "n" }, title[0]) : el("th", { scope: "col" }, title)));
  return el("div", { class: "table" }, el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
}

/** Of a disk: what is in use, and in it what the Dstore has. */
function meter(share, own, label) {
  const bar = el("span", { class: `meter${share > 0.9 ? " full" : ""}`, role: "meter", "aria-valuenow": Math.round(share * 100), "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": label, title: label },
    el("span", { class: "all" }), el("span", { class: "own" }));
  bar.children[0].style.width = `${share * 100}%`;
  bar.children[1].style.width = `${own * 100}%`;
  return bar;
}

const load = (name, percent) => el("span", { class: percent >= 90 ? "load high" : "load", title: `${name}: ${percent}%` }, `${percent}%`);

function milliseconds(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(value >= 10_000 ? 0 : 1)} s`;
  return `${value >= 10 || value === 0 ? Math.round(value) : value.toFixed(1)} ms`;
}
