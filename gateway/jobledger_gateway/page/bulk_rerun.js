/** Runs all jobs again that a filter selects: first a count and a sample, then step by step. */

import { call } from "./api.js";
import { open } from "./dialog.js";
import { announce, h } from "./dom.js";
import { filterMessage, terminalOnes } from "./filter.js";
import { summary } from "./states.js";

const COUNTED = 1000; // jobs a step of counting
const COUNTING_STEPS = 20;
const MADE = 50; // jobs a step of running again: the bar moves

/** Open the dialog for the jobs of a filter. */
export function bulkRerun(filter) {
  const abort = new AbortController();
  const title = h("h2", { id: "bulk-title" }, "Run jobs again");
  const text = h("p", { role: "status" }, "Counting the jobs that match …");
  const sample = h("ul", { class: "sample" });
  const bar = h("progress", { max: "1", value: "0", "aria-label": "jobs run again", hidden: true });
  const problem = h("p", { class: "problem", role: "alert" });
  const yes = h("button", { type: "button", class: "primary", disabled: true }, "Run them again");
  const no = h("button", { type: "button", click: () => dialog.close() }, "Keep as they are");
  const content = h("div", {}, title, text, sample, bar, problem, h("div", { class: "buttons" }, no, yes));
  const dialog = open("bulk-title", content, () => abort.abort());

  const step = (more) => call("POST", "/v1/jobs:rerun", {
    body: { userId: filter.user_id, filter: filterMessage(filter), ...more },
    signal: abort.signal,
  });
  const guarded = (work) => work().catch((error) => {
    if (!abort.signal.aborted) problem.textContent = error.message;
  });

  guarded(async () => {
    const { count, more, examples } = await counted(step);
    const kind = terminalOnes(filter).join(" and ").toLowerCase();
    const number = `${more ? "More than " : ""}${count.toLocaleString()}`;
    text.textContent = count
      ? `${number} ${kind} ${count === 1 ? "job" : "jobs"} would run again, as new jobs. Those that were run again before are left out.`
      : "No job matches, or all were run again before.";
    sample.append(...examples.map((job) => h("li", {}, h("b", {}, job.jobType), ` ${job.userId} `, h("span", {}, summary(job)))));
    yes.disabled = count === 0;
    yes.addEventListener("click", () => {
      yes.hidden = true;
      no.textContent = "Stop";
      bar.hidden = false;
      bar.max = count;
      guarded(() => run(step, (made) => {
        bar.value = made;
        text.textContent = `${made.toLocaleString()} of ${more ? "more than " : ""}${count.toLocaleString()} run again.`;
      })).then(() => {
        no.textContent = "Close";
        announce(text.textContent);
      });
    });
  });
}

/** Count what matches, without a change. */
async function counted(step) {
  let count = 0;
  let next = "";
  let examples = [];
  for (let asked = 0; asked < COUNTING_STEPS; asked += 1) {
    const answer = await step({ validateOnly: true, maxJobs: COUNTED, pageToken: next });
    count += answer.matched ?? 0;
    if (!examples.length) examples = answer.sample ?? [];
    if (answer.done) return { count, more: false, examples };
    next = answer.nextPageToken;
  }
  return { count, more: true, examples };
}

/** Run them again; a step that failed may be repeated by asking anew. */
async function run(step, told) {
  let made = 0;
  let next = "";
  for (;;) {
    const answer = await step({ maxJobs: MADE, pageToken: next });
    made += answer.changed ?? 0;
    told(made);
    if (answer.done) return;
    next = answer.nextPageToken;
  }
}
