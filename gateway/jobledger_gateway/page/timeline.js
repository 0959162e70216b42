/** What happened to a job, oldest first: its creation, its transitions and its attempts. */

import { absolute, duration, relative } from "./clock.js";
import { h } from "./dom.js";

// How an attempt ended: its mark, and what is said before and after how long it took.
const OUTCOMES = {
  COMPLETED: ["completed", "completed", ""],
  PARTIAL: ["partial", "completed in part", ""],
  FAILED: ["failed", "failed", ""],
  LEASE_EXPIRED: ["lost", "was lost", ": its worker did not renew the lease"],
  STALLED: ["lost", "was lost", ": its worker had no news"],
  RELEASED: ["queued", "was released", ""],
  RETRIED: ["lost", "failed", "; the job is tried again"],
};

const word = (status) => status.replace("JOB_STATUS_", "").toLowerCase();

/** Return the entries of the list. */
export function timeline(job, transitions, attempts) {
  const entries = [
    { time: job.createTime, order: 0, key: "queued", content: ["Created"] },
    ...(job.cancelRequestTime ? [{ time: job.cancelRequestTime, order: 2, key: "cancelling", content: ["Cancellation requested", job.cancelReason ? `: ${job.cancelReason}` : ""] }] : []),
    ...transitions.map(transition),
    ...attempts.map(attempt),
  ];
  entries.sort((a, b) => Date.parse(a.time) - Date.parse(b.time) || a.order - b.order);
  return entries.map(({ time, key, content }) =>
    h("li", { class: `entry ${key}` },
      h("div", {}, content),
      h("time", { datetime: time, title: absolute(time) }, relative(time))));
}

function transition({ toStatus, actor, reason, time }) {
  const terminal = toStatus !== "JOB_STATUS_PROCESSING";
  const text = terminal ? `Now ${word(toStatus)}` : "Now processing";
  const cause = `${actor ? `, by ${actor}` : ""}${reason ? `: ${reason}` : ""}`;
  return { time, order: terminal ? 4 : 1, key: word(toStatus), content: [h("b", {}, text), cause] };
}

function attempt({ number, workerId, startTime, endTime, outcome, error, progress = 0 }) {
  const took = endTime ? (Date.parse(endTime) - Date.parse(startTime)) / 1000 : undefined;
  const still = endTime ? ["queued", "ended", ""] : ["running", "runs", ""];
  const [key, end, tail] = OUTCOMES[(outcome ?? "").replace("ATTEMPT_OUTCOME_", "")] ?? still;
  const after = took === undefined ? "" : ` after ${duration(took)} at ${progress} %`;
  return {
    time: startTime,
    order: 3,
    key,
    content: [
      h("b", {}, `Attempt ${number}`),
      workerId ? ` on ${workerId}` : "",
      ` ${end}${after}${tail}`,
      error && h("span", { class: "fine" }, h("code", {}, error.reason), ` ${error.message ?? ""}`),
    ],
  };
}
