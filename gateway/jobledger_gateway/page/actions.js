/** Cancel, run again and delete one job, each after a question. */

import { call } from "./api.js";
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
