/** The changes of jobs as they come (`/v1/events`), over any number of streams. */

import { openEvents, Problem } from "./api.js";
import { readEvents } from "./event_stream.js";

const MAX_SILENCE = 40_000; // ms: two heartbeats missed, and some more
const FIRST_PAUSE = 250; // ms
const LAST_PAUSE = 5000; // ms

/**
 * A feed that reconnects. Its handlers:
 *
 * - `opened()`: a stream begins with a listing of the jobs that are not terminal;
 * - `changed(changes, synced)`: a message of WatchJobs;
 * - `connected(yes)`: whether what is on the screen is what is so;
 * - `refused(problem)`: the service says no, and would again. The feed has ended.
 */
export class Feed {
  #query;
  #handlers;
  #abort = new AbortController();
  #lastEventId = "";
  #wake = () => {};

  constructor(query, handlers) {
    this.#query = query;
    this.#handlers = handlers;
    const { signal } = this.#abort;
    addEventListener("online", () => this.#wake(), { signal });
    this.#run(signal);
  }

  /** End the feed: no handler is called any more. */
  stop() {
    this.#abort.abort();
    this.#wake();
  }

  async #run(signal) {
    for (let failures = 0; !signal.aborted; failures += 1) {
      try {
        await seen();
        await this.#stream(signal, () => {
          failures = 0;
        });
      } catch (problem) {
        if (signal.aborted) return;
        if (problem instanceof Problem && problem.final) {
          this.#handlers.refused(problem);
          return;
        }
      }
      if (signal.aborted) return;
      if (document.hidden) continue;
      this.#handlers.connected(false);
      const cap = Math.min(FIRST_PAUSE * 2 ** failures, LAST_PAUSE);
      await this.#pause(cap * (0.5 + Math.random() / 2));
    }
  }

  async #stream(signal, received) {
    const one = new AbortController();
    const whole = AbortSignal.any([signal, one.signal]);
    addEventListener("offline", () => one.abort(), { signal: whole });
    // Browsers open six connections to a gateway at most: a page that nobody sees holds none.
    document.addEventListener("visibilitychange", () => document.hidden && one.abort(), { signal: whole });
    let silence = setTimeout(() => one.abort(), MAX_SILENCE);
    try {
      const options = { query: this.#query, lastEventId: this.#lastEventId, signal: whole };
      const response = await openEvents("/v1/events", options);
      if (!this.#lastEventId) this.#handlers.opened();
      for await (const event of readEvents(response.body)) {
        if (signal.aborted) return;
        clearTimeout(silence);
        silence = setTimeout(() => one.abort(), MAX_SILENCE);
        if (this.#take(event)) received();
      }
    } finally {
      clearTimeout(silence);
      one.abort();
    }
  }

  /** Take an event. Return whether it shows that the service is there, and not the gateway alone. */
  #take({ type, data, id }) {
    if (type === "heartbeat") return false;
    const content = data ? JSON.parse(data) : {};
    if (type === "error") throw new Problem(content.status, content);
    const connected = type !== "upstream" || content.connected;
    this.#handlers.connected(connected);
    if (type === "reset") {
      this.#lastEventId = "";
      this.#handlers.opened();
    } else if (type === "message" && data) {
      this.#handlers.changed(content.changes?.changes ?? [], content.synced ?? false);
    }
    if (id !== undefined) this.#lastEventId = id;
    return connected;
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Wait until somebody sees the page. */
async function seen() {
  while (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}
