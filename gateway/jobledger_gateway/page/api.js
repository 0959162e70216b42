/** Calls of the gateway's HTTP API. */

import { learnTime } from "./clock.js";
import { token } from "./session.js";

const PATIENCE = 30_000; // ms
const MAX_PAGES = 5;

/** An answer that is no success, as `application/problem+json` says it; status 0: no answer. */
export class Problem extends Error {
  constructor(status, body = {}) {
    const violations = (body.violations ?? []).map((one) => `${one.field}: ${one.description}`);
    super([body.detail || body.title || `HTTP status ${status}`, ...violations].join("\n"));
    this.status = status;
    this.reason = body.reason ?? "";
  }

  /** Whether to ask again is of no use. */
  get final() {
    return this.status >= 400 && this.status < 500 && this.status !== 408 && this.status !== 429;
  }

  /** Whether the caller may not do this. */
  get forbidden() {
    return this.status === 401 || this.status === 403;
  }
}

/** Call a method; return what is in its answer. `query` is a URLSearchParams or an object. */
export async function call(method, path, { query, body, signal } = {}) {
  const limit = AbortSignal.timeout(PATIENCE);
  const answer = await send(method, path, {
    query,
    body,
    headers: { Accept: "application/json" },
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
  });
  return answer.status === 204 ? {} : answer.json();
}

/** Read a file; return it as a Blob. */
export async function read(path) {
  const answer = await send("GET", path, { headers: {} });
  return answer.blob();
}

/** Open a stream of server-sent events; return the response, whose body is the stream. */
export function openEvents(path, { query, lastEventId, signal }) {
  const headers = { Accept: "text/event-stream" };
  if (lastEventId) headers["Last-Event-ID"] = lastEventId;
  return send("GET", path, { query, headers, signal });
}

async function send(method, path, { query, body, headers, signal }) {
  const search = new URLSearchParams(query).toString();
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(search ? `${path}?${search}` : path, {
      method,
      headers,
      body: body && JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The gateway does not answer." });
  }
  learnTime(answer.headers.get("Date"));
  if (answer.ok) return answer;
  throw new Problem(answer.status, await answer.json().catch(() => ({})));
}

/** Read the items of a list, of its first pages. */
export async function pages(path, field, { query, signal }) {
  const items = [];
  let next = "";
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const asked = new URLSearchParams(query);
    if (next) asked.set("page_token", next);
    const answer = await call("GET", path, { query: asked, signal });
    items.push(...(answer[field] ?? []));
    next = answer.nextPageToken ?? "";
    if (!next) break;
  }
  return items;
}
