/** One job with all that belongs to it, read again when the job has changed. */

import { call, pages } from "./api.js";
import { onlyWatches } from "./session.js";
import { isTerminal, waits } from "./states.js";

const APART = 1500; // ms between two reads
const EXPLAINED = 5000; // ms between two explanations: others move while this job does not

/** What the job's page shows. `changed()` is called after each change. */
export class JobDetails {
  job;
  full = {};
  deleted = false;
  stopped = false;
  transitions = [];
  attempts = [];
  assets = [];
  reasons = [];
  repeats;
  #id;
  #owner;
  #handlers;
  #abort = new AbortController();
  #reading = false;
  #again = false;
  #timer;

  constructor(id, owner, handlers) {
    this.#id = id;
    this.#owner = owner;
    this.#handlers = handlers;
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.#timer);
    this.#abort.abort();
  }

  /** Take changes from the watch. */
  changes(changes, synced) {
    for (const { job, deleted, transitions = [] } of changes) {
      // A watch token may not list them: it sees those from now on.
      if (onlyWatches()) this.transitions = [...this.transitions, ...transitions];
      this.#owner ||= job.userId;
      if (deleted) {
        this.deleted = true;
        this.job ??= job;
      } else {
        this.#take(job);
      }
    }
    if (changes.length) {
      this.#handlers.changed();
      this.read();
    } else if (synced && !this.job) {
      this.read();
    }
  }

  /** Read everything; at most one read at a time, and the last one after the last change. */
  async read() {
    if (this.stopped || this.deleted) return;
    if (this.#reading) {
      this.#again = true;
      return;
    }
    this.#reading = true;
    this.#again = false;
    clearTimeout(this.#timer);
    let failed = false;
    try {
      await this.#readAll();
    } catch (problem) {
      if (this.stopped) return;
      failed = true;
      if (problem.final && !this.deleted && !(problem.status === 404 && this.job)) this.#handlers.refused(problem);
    }
    this.#handlers.changed();
    this.#timer = setTimeout(() => {
      this.#reading = false;
      if (this.#again || failed || waits(this.job ?? {})) this.read();
    }, this.#again || failed || !waits(this.job ?? {}) ? APART : EXPLAINED);
  }

  #take(job) {
    if (!this.job || Number(job.version) >= Number(this.job.version)) this.job = job;
  }

  async #readAll() {
    const { signal } = this.#abort;
    const query = new URLSearchParams(this.#owner ? { user_id: this.#owner } : {});
    const path = `/v1/jobs/${encodeURIComponent(this.#id)}`;
    const limited = onlyWatches();
    const { job } = await call("GET", path, { query: limited ? query : new URLSearchParams([...query, ["view", "JOB_VIEW_FULL"]]), signal });
    this.#owner ||= job.userId;
    const { parameters, result, checkpoint, error } = job;
    this.full = { parameters, result, checkpoint, error };
    this.#take(job);
    if (limited) return;
    // Page size 1000 is the most that a list gives.
    const list = (name) => pages(`${path}/${name}`, name, { query: new URLSearchParams([...query, ["page_size", "200"]]), signal });
    const repeats = new URLSearchParams([...query, ["origin_job_id", this.#id]]);
    const [transitions, attempts, assets, reasons, others] = await Promise.all([
      list("transitions"),
      list("attempts"),
      list("assets"),
      waits(job) ? call("GET", `${path}:explain`, { query, signal }).then((answer) => answer.reasons ?? []) : [],
      isTerminal(job) ? pages("/v1/jobs", "jobs", { query: repeats, signal }) : { items: [] },
    ]);
    this.transitions = transitions.items;
    this.attempts = attempts.items;
    this.assets = assets.items;
    this.reasons = waits(this.job) ? reasons : [];
    [this.repeats] = others.items;
  }
}
