/** Why a job waits (`:explain`), in sentences. */

import { absolute, relative } from "./clock.js";
import { h } from "./dom.js";
import { jobAddress } from "./filter.js";

const number = (text) => Number(text ?? 0);

/** Return one sentence for each reason, as elements. */
export function sentences(job, reasons) {
  return reasons.flatMap((reason) => sentence(job, reason)).map((content) => h("li", {}, content));
}

function sentence(job, { noWorker, paused, concurrencyLimit, scheduled, queued }) {
  if (noWorker) return [[`No worker has asked for jobs of the type ${noWorker.jobType} in the last 30 seconds.`]];
  if (paused) return [[pausedText(paused)]];
  if (concurrencyLimit) return [limitText(concurrencyLimit)];
  if (scheduled) {
    const what = job.attempt ? "Its next attempt starts not before" : "It starts not before";
    return [[`${what} ${absolute(scheduled.scheduleTime)}, ${relative(scheduled.scheduleTime)}.`]];
  }
  if (queued) return queuedTexts(queued).map((text) => [text]);
  return [["It waits for a reason that this page does not know."]];
}

function pausedText({ jobType, concurrencyKey, pause = {} }) {
  const what = jobType ? `The type ${jobType}` : `The key ${concurrencyKey}`;
  const by = pause.actor ? ` by ${pause.actor}` : "";
  const why = pause.reason ? `: ${pause.reason}` : ".";
  return `${what} was paused${by} ${pause.pauseTime ? relative(pause.pauseTime) : ""}${why}`;
}

function limitText({ concurrencyKey, running, maxRunning, holderJobIds = [] }) {
  const text = `${number(running)} of at most ${number(maxRunning)} jobs with the key ${concurrencyKey} run`;
  if (!holderJobIds.length) return [`${text}.`];
  return [`${text}: `, holderJobIds.flatMap((id, index) => [index ? ", " : "", h("a", { href: jobAddress({ id }) }, id.slice(-8))]), "."];
}

function queuedTexts({ ahead, capped, higherPriority, tenants }) {
  const texts = [];
  const jobs = (count) => (count === 1 ? "1 job" : `${count.toLocaleString()} jobs`);
  if (number(higherPriority)) texts.push(`${jobs(number(higherPriority))} with a higher priority may go first.`);
  if (number(ahead)) texts.push(`${capped ? "More than " : ""}${jobs(number(ahead))} of the same tenant went into the queue before it.`);
  if (number(tenants) > 1) texts.push(`${number(tenants).toLocaleString()} tenants take turns.`);
  return texts.length ? texts : ["It is the next of its tenant: a worker that asks gets it."];
}
