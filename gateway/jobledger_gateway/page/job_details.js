/** One job with all that belongs to it, read again when the job has changed. */

import { call, pages } from "./api.js";
import { Refresher } from "./refresher.js";
import { onlyWatches } from "./session.js";
import { isTerminal, waits } from "./states.js";

const APART = 700; // ms between two reads
const CALM = 4000; // ms after a change of the progress alone: there may be a new asset
const EXPLAINED = 5000; // ms between two explanations: others move while this job does not
const STREAMS = 3000; // ms between two looks at a running job: a new stream of output is no change of it

/** What the job's page shows. `changed()` is called after each change. */
export class JobDetails {
  job;
  full = {};
  deleted = false;
  transitions = [];
  attempts = [];
  assets = [];
  reasons = [];
  rerun;
  #id;
  #owner;
  #handlers;
  #refresher = new Refresher((signal) => this.#read(signal), APART);
  #streams = new Refresher((signal) => this.#readStreams(signal), STREAMS);

  constructor(id, owner, handlers) {
    this.#id = id;
    this.#owner = owner;
    this.#handlers = handlers;
  }

  get stopped() {
    return this.#refresher.stopped;
  }

  stop() {
    this.#refresher.stop();
    this.#streams.stop();
  }

  /** Read everything soon. */
  read() {
    this.#refresher.ask(0);
  }

  /** Take changes from the watch. */
  changes(changes, synced) {
    for (const { job, deleted, transitions = [] } of changes) {
      // A watch token may not list them: it sees those from now on.
      if (onlyWatches()) this.transitions = [...this.transitions, ...transitions];
      this.#owner ||= job.userId;
      const same = this.job && this.job.attempt === job.attempt && this.job.held === job.held;
      if (deleted) {
        this.deleted = true;
        this.job ??= job;
      } else {
        this.#take(job);
      }
      this.#refresher.ask(same && !transitions.length ? CALM : 0);
    }
    if (changes.length) this.#handlers.changed();
    else if (synced && !this.job) this.read();
  }

  /** Return after how many milliseconds to read again. */
  async #read(signal) {
    if (this.deleted) return undefined;
    try {
      await this.#readAll(signal);
    } catch (problem) {
      if (this.stopped) return undefined;
      if (problem.status === 404 && this.job) this.deleted = true;
      else if (problem.final && !this.deleted) this.#handlers.refused(problem);
      return problem.final ? undefined : CALM;
    } finally {
      this.#handlers.changed();
    }
    if (this.job?.held) this.#streams.ask(STREAMS);
    return waits(this.job) ? EXPLAINED : undefined;
  }

  async #readStreams(signal) {
    const query = new URLSearchParams(this.#owner ? { user_id: this.#owner } : {});
    try {
      const { job } = await call("GET", `/v1/jobs/${encodeURIComponent(this.#id)}`, { query, signal });
      this.#take(job);
      this.#handlers.changed();
    } catch {
      // The next time, or what else is read says it.
    }
    return this.job.held && !this.deleted ? STREAMS : undefined;
  }

  #take(job) {
    if (!this.job || Number(job.version) >= Number(this.job.version)) this.job = job;
  }

  async #readAll(signal) {
    const query = new URLSearchParams(this.#owner ? { user_id: this.#owner } : {});
    const path = `/v1/jobs/${encodeURIComponent(this.#id)}`;
    const limited = onlyWatches();
    const { job } = await call("GET", path, { query: limited ? query : new URLSearchParams([...query, ["view", "JOB_VIEW_FULL"]]), signal });
    this.#owner ||= job.userId;
    const { parameters, result, checkpoint, error } = job;
    this.full = { parameters, result, checkpoint, error };
    this.#take(job);
    if (limited) return;
    const list = (name) => pages(`${path}/${name}`, name, { query: new URLSearchParams([...query, ["page_size", "200"]]), signal });
    const reruns = new URLSearchParams([...query, ["origin_job_id", this.#id]]);
    const [transitions, attempts, assets, reasons, others] = await Promise.all([
      list("transitions"),
      list("attempts"),
      list("assets"),
      waits(job) ? call("GET", `${path}:explain`, { query, signal }).then((answer) => answer.reasons ?? []) : [],
      isTerminal(job) ? pages("/v1/jobs", "jobs", { query: reruns, signal }) : [],
    ]);
    Object.assign(this, { transitions, attempts, assets, reasons: waits(this.job) ? reasons : [], rerun: others[0] });
  }
}
