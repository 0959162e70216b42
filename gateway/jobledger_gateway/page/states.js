/** What state a job is in, in words that are true of it now. */

import { duration, now } from "./clock.js";

const ENDED = {
  JOB_STATUS_COMPLETED: "completed",
  JOB_STATUS_PARTIAL: "partial",
  JOB_STATUS_FAILED: "failed",
};

/** Whether the job never changes again. */
export function isTerminal(job) {
  return job.status in ENDED;
}

/** Whether the job may still be changed. */
export function notStarted(job) {
  return job.status === "JOB_STATUS_QUEUED";
}

/** Whether the job waits for a worker: a PROCESSING one that none holds does, too. */
export function waits(job) {
  return !isTerminal(job) && !job.held;
}

/** Whether a worker holds the job, or it is a group whose jobs have begun. */
function runs(job) {
  return job.held || (job.group && !notStarted(job));
}

/**
 * Return `{ key, text }`: the state of a job, and how it is written. A job that will be tried again
 * is never called failed. The keys are those of <jobledger-progress>; the Python client has the
 * same states in `Job.display_state`.
 */
export function stateOf(job) {
  if (isTerminal(job)) {
    const key = job.cancelled ? "cancelled" : ENDED[job.status];
    return { key, text: key };
  }
  if (job.cancelRequestTime) return { key: "cancelling", text: "cancelling" };
  if (runs(job)) return { key: "running", text: "running" };
  const soon = job.scheduleTime ? (Date.parse(job.scheduleTime) - now()) / 1000 : 0;
  const when = soon > 0 ? `, in ${duration(Math.ceil(soon))}` : "";
  if (job.attempt) return { key: "waiting-for-retry", text: `waiting for retry${when}` };
  if (when) return { key: "scheduled", text: `scheduled${when}` };
  return { key: "queued", text: "queued" };
}

/** Return what a job has to say in one line: its error, its progress message or its labels. */
export function summary(job) {
  const error = job.error ?? (job.held ? undefined : job.lastError);
  if (error) return `${error.reason}: ${error.message ?? ""}`;
  if (job.progressMessage && job.held) return job.progressMessage;
  return Object.entries(job.labels ?? {})
    .sort()
    .map(([key, value]) => `${key}=${value}`)
    .join("  ");
}
