/** The output of a job: a tab for each stream, with a search. */

import "./jobledger-output.js";
import { read } from "./api.js";
import { h, setText } from "./dom.js";
import { token } from "./session.js";

const KEPT = 64 * 2 ** 20; // bytes of a stream: as much as a service stores of a job at most
const UNNAMED = "output"; // what the stream is called that has no name

/** Shows the streams that a job has when `show(job)` is called. */
export class OutputPanel {
  #tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "Output" });
  #find = h("input", { type: "search", placeholder: "Search", "aria-label": "Search in the output", keydown: (event) => this.#typed(event), input: () => this.#shown?.element.forget?.() });
  #found = h("span", { class: "fine", role: "status" });
  #end = h("button", { type: "button", hidden: true, click: () => this.#shown.element.following = true }, "To the end");
  #load = h("button", { type: "button", click: () => this.#download() }, "Download");
  #panel = h("div", { role: "tabpanel", id: "output-panel", "aria-label": "Output" });
  #streams = new Map(); // by their names
  #shown;
  #query;
  #path;

  constructor(id, owner) {
    this.#path = `/v1/jobs/${encodeURIComponent(id)}/output`;
    this.#query = new URLSearchParams(owner ? { user_id: owner } : {});
    this.element = h("section", { class: "block output", hidden: true },
      h("div", { class: "output-head" }, this.#tabs, h("div", { class: "output-tools" }, this.#found, this.#find, this.#end, this.#load)),
      this.#panel);
  }

  /** Show the streams of a job. Those that are shown stay as they are. */
  show(job) {
    if (!this.#query.has("user_id")) this.#query.set("user_id", job.userId);
    for (const { name = "", contentType } of job.outputStreams ?? []) {
      if (this.#streams.has(name)) continue;
      const tab = h("button", { type: "button", role: "tab", "aria-controls": "output-panel", "aria-selected": "false", tabindex: "-1", click: () => this.#select(name), keydown: (event) => this.#move(event) }, name || UNNAMED);
      this.#streams.set(name, { name, tab, isText: /^(text\/|application\/(.*\+)?(json|x-ndjson|xml|yaml))/i.test(contentType), contentType });
      this.#tabs.append(tab);
      if (!this.#shown) this.#select(name);
    }
    this.element.hidden = !this.#streams.size;
  }

  /** Read nothing more. */
  stop() {
    this.#panel.replaceChildren();
  }

  #select(name) {
    const stream = (this.#shown = this.#streams.get(name));
    for (const { tab } of this.#streams.values()) {
      tab.setAttribute("aria-selected", String(tab === stream.tab));
      tab.tabIndex = tab === stream.tab ? 0 : -1;
    }
    stream.element ??= stream.isText ? this.#viewer(stream) : h("p", { class: "fine" }, `This stream is ${stream.contentType}.`);
    this.#panel.replaceChildren(stream.element);
    this.#find.disabled = !stream.isText;
    this.#end.hidden = stream.element.following !== false;
    setText(this.#found, "");
  }

  #viewer(stream) {
    const viewer = h("jobledger-output", { src: this.#url(stream), token: token(), limit: KEPT, label: `Output ${stream.name || UNNAMED}` });
    viewer.addEventListener("follow", ({ detail }) => {
      if (this.#shown === stream) this.#end.hidden = detail;
    });
    return viewer;
  }

  #url({ name }) {
    return `${this.#path}${name && "/"}${name}?${this.#query}`;
  }

  async #typed(event) {
    if (event.key !== "Enter") return;
    event.preventDefault();
    const found = await this.#shown.element.find(this.#find.value, event.shiftKey ? -1 : 1);
    if (found) setText(this.#found, found.total ? `${found.index} of ${found.total}` : this.#find.value && "not found");
  }

  /** The arrows go from tab to tab. */
  #move(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const tabs = [...this.#streams.values()];
    const next = tabs[(tabs.indexOf(this.#shown) + step + tabs.length) % tabs.length];
    this.#select(next.name);
    next.tab.focus();
  }

  async #download() {
    const { name } = this.#shown;
    const url = URL.createObjectURL(await read(this.#url(this.#shown)));
    h("a", { href: url, download: `${this.#path.split("/").at(-2)}-${name || UNNAMED}${name.includes(".") ? "" : ".txt"}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
}
