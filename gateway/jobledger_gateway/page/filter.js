/** Which jobs are shown. The address of the page holds all of it, in the API's own names. */

export const STATUSES = ["QUEUED", "PROCESSING", "COMPLETED", "PARTIAL", "FAILED"];
const TERMINAL = ["COMPLETED", "PARTIAL", "FAILED"];
const LABEL = "labels.";
/** Fields of a filter with one text each, and their names in a job. */
export const TEXTS = { unique_key: "uniqueKey", request_id: "requestId", concurrency_key: "concurrencyKey", worker_id: "workerId" };
/** Fields of a filter that are `true`, `false` or, for all jobs, empty. They have these names in a job, too. */
export const FLAGS = ["cancelled", "held"];

/** Read a filter from the query of an address. What it does not know it leaves out. */
export function parseFilter(search) {
  const query = new URLSearchParams(search);
  const labels = {};
  for (const [name, value] of query) {
    if (name.startsWith(LABEL)) labels[name.slice(LABEL.length)] = value;
  }
  return {
    user_id: query.get("user_id") ?? "",
    statuses: query.getAll("statuses").filter((status) => STATUSES.includes(status)),
    job_types: query.getAll("job_types").filter(Boolean),
    labels,
    error_reasons: query.getAll("error_reasons").filter(Boolean),
    ...Object.fromEntries(Object.keys(TEXTS).map((name) => [name, query.get(name) ?? ""])),
    ...Object.fromEntries(FLAGS.map((name) => [name, ["true", "false"].includes(query.get(name)) ? query.get(name) : ""])),
  };
}

/** Write a filter as the query of an address, which is that of `/v1/jobs`, too. */
export function filterQuery(filter) {
  const query = watchQuery(filter);
  for (const status of filter.statuses) query.append("statuses", status);
  for (const reason of filter.error_reasons) query.append("error_reasons", reason);
  for (const name of [...Object.keys(TEXTS), ...FLAGS]) if (filter[name]) query.set(name, filter[name]);
  return query;
}

/** Write the part of a filter that a watch knows. */
export function watchQuery(filter) {
  const query = new URLSearchParams();
  if (filter.user_id) query.set("user_id", filter.user_id);
  for (const type of filter.job_types) query.append("job_types", type);
  for (const [key, value] of Object.entries(filter.labels)) query.set(LABEL + key, value);
  return query;
}

/** Return the address of the list with this filter. */
export function listAddress(filter) {
  const query = filterQuery({ ...parseFilter(""), ...filter }).toString();
  return query ? `/?${query}` : "/";
}

/** Return the address of a job's page. */
export function jobAddress(job) {
  const query = job.userId ? `?${new URLSearchParams({ user_id: job.userId })}` : "";
  return `/jobs/${encodeURIComponent(job.id)}${query}`;
}

/** Whether a job is one of those that the filter selects. */
export function matches(job, filter) {
  const status = (job.status ?? "").replace("JOB_STATUS_", "");
  return (
    (!filter.statuses.length || filter.statuses.includes(status)) &&
    (!filter.error_reasons.length || filter.error_reasons.includes(job.error?.reason)) &&
    Object.entries(TEXTS).every(([name, field]) => !filter[name] || filter[name] === job[field]) &&
    FLAGS.every((name) => !filter[name] || filter[name] === String(job[name] ?? false))
  );
}

/** Return the terminal states that the filter selects; FAILED if it selects by none. */
export function terminalOnes(filter) {
  if (filter.held === "true") return [];
  if (!filter.statuses.length) return ["FAILED"];
  return filter.statuses.filter((status) => TERMINAL.includes(status));
}

/** Write a filter as the message JobFilter in JSON, for terminal jobs. */
export function filterMessage(filter) {
  return {
    statuses: terminalOnes(filter).map((status) => `JOB_STATUS_${status}`),
    jobTypes: filter.job_types,
    labels: filter.labels,
    errorReasons: filter.error_reasons,
    ...Object.fromEntries(Object.entries(TEXTS).map(([name, field]) => [field, filter[name]])),
    ...Object.fromEntries(FLAGS.filter((name) => filter[name]).map((name) => [name, filter[name] === "true"])),
  };
}
