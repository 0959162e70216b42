/** One job as a row of the list. */

import { absolute, duration, relative, since } from "./clock.js";
import { h, setClass, setText } from "./dom.js";
import { jobAddress } from "./filter.js";
import { isTerminal, stateOf, summary } from "./states.js";

/** A row that is made once and then only changed where the job has changed. */
export class Row {
  constructor(job) {
    this.link = h("a", { href: jobAddress(job), class: "row-link", tabindex: "-1" }, job.jobType);
    this.link.append(h("span", { class: "unseen" }, ` ${job.id}`));
    this.state = h("span", {});
    this.bar = h("progress", { max: "100", "aria-label": "progress" });
    this.percent = h("span", { class: "percent" });
    this.text = h("span", { class: "summary" });
    this.age = h("time", { datetime: job.createTime, title: absolute(job.createTime) });
    const cell = (name, ...children) => h("div", { class: `cell ${name}`, role: "cell" }, ...children);
    this.element = h(
      "div",
      { class: "row", role: "row" },
      cell("state-cell", this.state),
      cell("type-cell", this.link),
      cell("what-cell", this.bar, this.percent, this.text),
      cell("owner-cell", job.userId ?? ""),
      cell("id-cell", job.id.slice(-8)),
      cell("age-cell", this.age),
    );
    this.update(job);
  }

  /** Show the job as it is now. */
  update(job) {
    const state = stateOf(job);
    setText(this.state, state.text);
    setClass(this.state, `state ${state.key}`);
    const running = Boolean(job.held);
    this.bar.hidden = this.percent.hidden = !running;
    if (running) {
      this.bar.value = job.progress ?? 0;
      setText(this.percent, `${job.progress ?? 0} %`);
    }
    setText(this.text, summary(job));
    this.text.title = this.text.textContent;
    setText(this.age, isTerminal(job) ? relative(job.completeTime) : duration(since(job.createTime)));
  }
}
