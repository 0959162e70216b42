/** What waits and runs, by job type (`/v1/stats`), with the pauses. Only operators see it. */

import { pauseType, resumeType } from "./actions.js";
import { call } from "./api.js";
import { duration, relative, seconds } from "./clock.js";
import { announce, h, redraw } from "./dom.js";
import { listAddress } from "./filter.js";
import { Refresher } from "./refresher.js";

const APART = 1000; // ms between two reads
const LATER = 10_000; // ms, if no job changes
const MAX_REASONS = 3;
// What was read last. The next page begins with it: nothing moves under the mouse when it is read.
let known = [];
let refused = false;

/** A panel that is read again while the page is open. */
export class TypesPanel {
  #filter;
  #drawn = "";
  #list = h("ul", { class: "types" });
  #refresher = new Refresher((signal) => this.#read(signal), APART);

  constructor(filter) {
    this.#filter = filter;
    const details = h("details", { open: innerWidth > 760 }, h("summary", {}, h("h2", {}, "Job types")), this.#list);
    this.element = h("aside", { class: "panel", "aria-label": "Job types", hidden: refused }, details);
    this.#show(known);
    this.#refresher.ask(0);
  }

  stop() {
    this.#refresher.stop();
  }

  /** Say that jobs have changed, so that the counts are read again soon. */
  changed() {
    if (!this.element.hidden) this.#refresher.ask(0);
  }

  async #read(signal) {
    try {
      const { stats = [] } = await call("GET", "/v1/stats", { query: { page_size: 1000 }, signal });
      [known, refused] = [stats, false];
      this.#show(known);
    } catch (problem) {
      if (problem.final) [known, refused] = [[], true];
    }
    this.element.hidden = refused;
    return refused ? undefined : LATER; // what is not for this caller is not asked for again
  }

  #show(types) {
    const text = JSON.stringify(types.map(({ oldestWait, ...rest }) => [rest, Math.floor(seconds(oldestWait) / 10)]));
    if (text !== this.#drawn && redraw(this.#list, () => types.map((type) => this.#item(type)))) this.#drawn = text;
  }

  #item(type) {
    const name = type.jobType;
    const chosen = this.#filter.job_types.includes(name);
    const address = listAddress({ ...this.#filter, job_types: chosen ? [] : [name] });
    const count = (key, text) => Number(type[key] ?? 0) > 0 && h("span", { class: key }, `${Number(type[key]).toLocaleString()} ${text}`);
    const idle = !type.polled && Number(type.ready ?? 0) > 0;
    return h(
      "li",
      { class: type.pause ? "type paused" : "type" },
      h("div", { class: "type-head" },
        h("a", { href: address, "aria-current": chosen ? "true" : null }, name),
        this.#button(type)),
      h("p", { class: "counts" }, count("held", "running"), count("ready", "ready"), count("blocked", "blocked"), count("scheduled", "scheduled")),
      type.oldestWait && h("p", { class: "fine" }, `oldest waits ${duration(seconds(type.oldestWait))}`),
      idle && h("p", { class: "fine warn" }, "no worker asks for it"),
      type.pause && h("p", { class: "fine warn" }, ["paused", relative(type.pause.pauseTime), type.pause.actor && `by ${type.pause.actor}`, type.pause.reason && `– ${type.pause.reason}`].filter(Boolean).join(" ")),
      this.#ended(type),
    );
  }

  #button(type) {
    const name = type.jobType;
    const [verb, act, done] = type.pause ? ["Resume", resumeType, "resumed"] : ["Pause", pauseType, "paused"];
    // Not disabled meanwhile: that would take the focus from it.
    const click = async () => {
      if (!(await act(name))) return;
      announce(`${name} is ${done}.`);
      this.#drawn = "";
      this.#refresher.ask(0);
    };
    return h("button", { type: "button", class: "small", "aria-label": `${verb} ${name}`, click }, verb);
  }

  #ended(type) {
    const ended = type.endedLastHour ?? [];
    if (!ended.length) return null;
    const total = (status) => ended.filter((one) => one.status === `JOB_STATUS_${status}`).reduce((sum, one) => sum + Number(one.count), 0);
    const link = (status, word) => total(status) > 0 && h("a", { class: word, href: listAddress({ ...this.#filter, job_types: [type.jobType], statuses: [status], error_reasons: [] }) }, `${total(status).toLocaleString()} ${word}`);
    const reasons = ended.filter((one) => one.status === "JOB_STATUS_FAILED" && one.reason).slice(0, MAX_REASONS);
    return [
      h("p", { class: "counts" }, link("COMPLETED", "completed"), link("PARTIAL", "partial"), link("FAILED", "failed"), h("span", { class: "fine" }, "in the last hour")),
      reasons.length > 0 && h("p", { class: "counts reasons" }, reasons.map((one) => h("a", { href: listAddress({ ...this.#filter, job_types: [type.jobType], statuses: ["FAILED"], error_reasons: [one.reason] }) }, `${one.reason} ${Number(one.count).toLocaleString()}`))),
    ];
  }
}
