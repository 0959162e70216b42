/** What is known of a job, apart from what happens to it: facts, errors and assets. */

import { absolute, duration, isToCome, relative, seconds } from "./clock.js";
import { h } from "./dom.js";
import { jobAddress, listAddress } from "./filter.js";
import { waits } from "./states.js";
import { tree } from "./tree.js";

/** Return the terms and descriptions of a job. */
export function facts(job, rerun) {
  const time = (text) => text && h("time", { datetime: text, title: absolute(text) }, relative(text));
  const owner = job.userId && h("a", { href: listAddress({ user_id: job.userId }) }, job.userId);
  const labels = Object.entries(job.labels ?? {}).sort().map(([key, value]) =>
    h("a", { class: "label", href: listAddress({ user_id: job.userId ?? "", labels: { [key]: value } }) }, `${key}=${value}`));
  const alike = (name, value) => value && h("a", { href: listAddress({ user_id: job.userId ?? "", [name]: value }) }, value);
  const other = (id) => id && h("a", { href: jobAddress({ id, userId: job.userId }) }, id);
  const policy = job.retryPolicy ?? {};
  const rows = [
    ["Owner", owner],
    ["Labels", labels.length > 0 && labels],
    ["Created", time(job.createTime)],
    ["Started", time(job.startTime)],
    ["Ended", time(job.completeTime)],
    ["Attempt", job.attempt ? `${job.attempt} of at most ${policy.maxAttempts ?? 1}` : null],
    ["Worker", alike("worker_id", job.workerId)],
    ["Lease ends", job.held && time(job.leaseExpireTime)],
    ["Not before", waits(job) && isToCome(job.scheduleTime) && time(job.scheduleTime)],
    ["Must start", !job.held && time(job.queueExpireTime)],
    ["Must end", !job.completeTime && time(job.runExpireTime)],
    ["Stalls after", job.stallTimeout && duration(seconds(job.stallTimeout))],
    ["Priority", job.priority ?? 0],
    ["Tenant", job.fairnessKey !== job.userId && job.fairnessKey],
    ["Concurrency key", alike("concurrency_key", job.concurrencyKey)],
    ["Unique key", alike("unique_key", job.uniqueKey)],
    ["Request id", job.requestId],
    ["Rerun of", other(job.originJobId)],
    ["Rerun", rerun && other(rerun.id)],
    ["Trace", job.traceparent && h("code", {}, job.traceparent)],
  ];
  return rows.filter(([, value]) => value || value === 0).flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]);
}

/** Return the sections of what failed: the error of the job, and that of its latest attempt. */
export function errors(job) {
  const box = (title, error, tone) => error && h("section", { class: `error-box ${tone}` },
    h("h2", {}, title),
    h("p", {}, h("code", {}, error.reason), " ", h("span", { class: "message" }, error.message ?? "")),
    error.details && Object.keys(error.details).length > 0 && tree(error.details));
  const same = job.error && job.lastError && job.error.message === job.lastError.message;
  return [
    box(job.status === "JOB_STATUS_PARTIAL" ? "What is missing" : "Error", job.error, "final"),
    !same && box("Why the latest attempt ended", job.lastError, "past"),
  ].filter(Boolean);
}

/** Return the list items of the assets. */
export function assetItems(assets) {
  return assets.map((asset) => {
    const name = asset.name || asset.assetType;
    const web = /^https?:/i.test(asset.url ?? "");
    return h("li", {},
      web ? h("a", { href: asset.url, target: "_blank", rel: "noopener noreferrer" }, name) : h("b", {}, name),
      h("span", { class: "fine" }, ` ${asset.assetType}, ${size(asset.fileSize)}`),
      h("span", { class: "fine where" }, asset.storagePath || (web ? "" : asset.url)));
  });
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = Number(bytes ?? 0);
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}
