/** Cancel, change, run again and delete one job, each after a question. */

import { call } from "./api.js";
import { isToCome, localTime, now } from "./clock.js";
import { ask } from "./dialog.js";
import { announce, h } from "./dom.js";
import { jobAddress } from "./filter.js";

const path = (job, verb = "") => `/v1/jobs/${encodeURIComponent(job.id)}${verb}`;
const owner = (job) => ({ userId: job.userId });

/** Ask whether to cancel a job. */
export function cancel(job) {
  return ask({
    title: "Cancel this job?",
    body: h("p", {}, job.held
      ? "Its worker is asked to stop. If it has not after 30 seconds, the job fails with CANCELLED."
      : "It is not started, and fails with CANCELLED at once."),
    confirm: "Cancel the job",
    danger: true,
    input: "Reason (optional)",
    act: async (reason) => {
      await call("POST", path(job, ":cancel"), { body: { ...owner(job), reason } });
      announce("The job is being cancelled.");
    },
  });
}

/** Ask for another priority and another time of a job that is not started. */
export function change(job) {
  const shown = { priority: String(job.priority ?? 0), time: isToCome(job.scheduleTime) ? localTime(job.scheduleTime) : "" };
  const priority = h("input", { type: "number", id: "c-priority", min: "0", max: "9", required: true, value: shown.priority });
  const time = h("input", { type: "datetime-local", id: "c-time", step: "1", value: shown.time });
  const field = (input, label) => h("div", { class: "field" }, h("label", { for: input.id }, label), input);
  return ask({
    title: "Change this job?",
    body: [field(priority, "Priority, 0 to 9: the highest goes first"), field(time, "Not before, in your time zone (empty: at once)")],
    confirm: "Change the job",
    act: async () => {
      const changes = {};
      if (priority.value !== shown.priority) changes.priority = priority.valueAsNumber;
      if (time.value !== shown.time) changes.scheduleTime = new Date(time.value || now()).toISOString();
      if (!Object.keys(changes).length) return;
      // Nobody overwrites a change that was made since the question was asked.
      await call("POST", path(job, ":update"), { body: { ...owner(job), ...changes, expectedVersion: job.version } });
      announce("The job was changed.");
    },
  });
}

/** Ask whether to run a job again; `go` is called with the address of the new job. */
export function rerun(job, go) {
  let made;
  return ask({
    title: "Run this job again?",
    body: h("p", {}, "A new job with the same parameters is created. This one stays as it is."),
    confirm: "Run it again",
    act: async () => {
      ({ job: made } = await call("POST", path(job, ":rerun"), { body: owner(job) }));
    },
  }).then((done) => done && go(jobAddress(made)));
}

/** Ask whether to delete a job; afterwards `go` is called with the address of the list. */
export function remove(job, go, listed) {
  return ask({
    title: "Delete this job?",
    body: h("p", {}, "The job, its history and the links to its assets are deleted for good. The assets themselves stay where they are stored."),
    confirm: "Delete the job",
    danger: true,
    act: () => call("DELETE", path(job), { query: job.userId ? { user_id: job.userId } : {} }),
  }).then((done) => {
    if (!done) return;
    announce("The job was deleted.");
    go(listed);
  });
}

/** Ask whether to pause a type. */
export function pauseType(jobType) {
  return ask({
    title: `Pause ${jobType}?`,
    body: h("p", {}, "No job of this type starts until it is resumed. Jobs that run go on."),
    confirm: "Pause",
    input: "Reason, for others (optional)",
    act: (reason) => call("POST", `/v1/jobTypes/${encodeURIComponent(jobType)}:pause`, { body: { reason } }),
  });
}

/** Resume a type: without a question, unless that fails. */
export async function resumeType(jobType) {
  const act = () => call("POST", `/v1/jobTypes/${encodeURIComponent(jobType)}:resume`, { body: {} });
  try {
    await act();
    return true;
  } catch (problem) {
    return ask({ title: `${jobType} is still paused`, body: h("p", { role: "alert" }, problem.message), confirm: "Try again", act });
  }
}
