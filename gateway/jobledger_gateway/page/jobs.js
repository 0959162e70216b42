/** The jobs of a list: the newest, each in its newest version. */

import { matches } from "./filter.js";

/** How many jobs are kept: some megabytes. */
export const MAX_JOBS = 5000;

/** A collection that a watch and lists fill together, whichever is first. */
export class Jobs {
  #filter;
  #byId = new Map();
  #ids = [];
  #dirty = false;
  #floor = ""; // this job and older ones were left out
  #lists = 0; // that are being read
  #gone = new Map(); // what a list may still bring: the version in which it left

  constructor(filter) {
    this.#filter = filter;
  }

  /** Whether older jobs were left out. */
  get cut() {
    return this.#floor !== "";
  }

  /** Take a change from the watch. */
  change({ job, deleted }) {
    if (deleted) this.#remove(job.id, Infinity);
    else this.take(job);
  }

  /** Take a job as it was read. A version that is older than what is known is dropped. */
  take(job) {
    const version = Number(job.version);
    if (job.id <= this.#floor || (this.#gone.get(job.id) ?? 0) >= version) return;
    const known = this.#byId.get(job.id);
    if (known && Number(known.version) > version) return;
    if (!matches(job, this.#filter)) {
      this.#remove(job.id, version);
      return;
    }
    this.#byId.set(job.id, job);
    if (!known) this.#dirty = true;
    if (this.#byId.size > MAX_JOBS * 1.2) this.#cut();
  }

  /** Say that a list is about to be read: what leaves meanwhile is not taken from it. */
  beginList() {
    this.#lists += 1;
  }

  /** Say that a list was read. */
  endList() {
    this.#lists -= 1;
    if (!this.#lists) this.#gone.clear();
  }

  /** Return the jobs, newest first: their ids are in the order of their creation. */
  newestFirst() {
    if (this.#byId.size > MAX_JOBS) this.#cut();
    if (this.#dirty) {
      this.#ids = [...this.#byId.keys()].sort().reverse();
      this.#dirty = false;
    }
    return this.#ids.map((id) => this.#byId.get(id));
  }

  #remove(id, version) {
    if (this.#byId.delete(id)) this.#dirty = true;
    if (this.#lists) this.#gone.set(id, version);
  }

  #cut() {
    const ids = [...this.#byId.keys()].sort().reverse();
    this.#floor = ids[MAX_JOBS];
    for (const id of ids.slice(MAX_JOBS)) this.#byId.delete(id);
    this.#dirty = true;
  }
}
