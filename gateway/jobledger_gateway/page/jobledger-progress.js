/**
 * <jobledger-progress src="https://gateway/v1/jobs/ID/events" token="jlw_…"></jobledger-progress>
 *
 * Shows a job's bar, its state and its message, live, until the job has ended. Needs nothing else.
 *
 * Attributes: `src`, the job's events; `token`, sent as a bearer token: a new one continues the
 * watch; `label`, what a screen reader calls the bar.
 * Events: `progress` and `end`, with the job as `detail`; `error`, with a problem, if it gives up.
 * Style: the parts `bar`, `fill`, `status` and `message`; the element's attributes `state` and
 * `lost`; --jobledger-color, --jobledger-failed, --jobledger-track, --jobledger-height.
 */
const MAX_SILENCE = 40_000; // ms without anything, not even a heartbeat, which come every 15 s
const LONGEST_PAUSE = 10_000; // ms between two attempts to connect
const ENDS = { JOB_STATUS_COMPLETED: "completed", JOB_STATUS_PARTIAL: "partial", JOB_STATUS_FAILED: "failed" };
const words = {
  label: "Progress", connecting: "connecting", queued: "queued", scheduled: "scheduled", running: "running",
  "waiting-for-retry": "waiting for retry", cancelling: "cancelling", cancelled: "cancelled", completed: "completed",
  partial: "completed in part", failed: "failed", lost: "connection lost, trying again", found: "connected again",
};
const style = new CSSStyleSheet(); // not an element: a strict Content-Security-Policy permits it
style.replaceSync(`
  :host { display: block; }
  :host([lost]) .job { opacity: 0.5; }
  [part="bar"] { height: var(--jobledger-height, 0.5em); border-radius: 1em; overflow: hidden; background: var(--jobledger-track, #8884); }
  [part="fill"] { height: 100%; width: 0; background: var(--jobledger-color, #2563eb); }
  :host([state="failed"]) [part="fill"] { background: var(--jobledger-failed, #dc2626); }
  .said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
`);

class JobledgerProgress extends HTMLElement {
  static observedAttributes = ["src", "token"];
  static words = words; // to be replaced by those of another language
  /** Return a job's state, by its key in `words`. A job that will be tried again is never called failed. */
  static stateOf(job) {
    if (job.status in ENDS) return job.cancelled ? "cancelled" : ENDS[job.status];
    if (job.cancelRequestTime) return "cancelling";
    if (job.group && job.status === "JOB_STATUS_PROCESSING") return "running";
    if (job.held || job.attempt) return job.held ? "running" : "waiting-for-retry";
    return Date.parse(job.scheduleTime) > Date.now() ? "scheduled" : "queued";
  }
  #bar; #fill; #status; #message; #said; // elements; the last one is announced
  #src; #version; #ended; #text; // what is shown, but for a lost connection
  #watch = new AbortController();

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [style];
    root.innerHTML = `<div class="job"><div part="bar" role="progressbar"><div part="fill"></div></div>
      <div part="status"></div><div part="message"></div></div><div class="said" role="status"></div>`;
    [this.#bar, this.#fill, this.#status, this.#message, this.#said] = root.querySelectorAll("[part], .said");
  }

  connectedCallback() {
    this.disconnectedCallback();
    this.#bar.ariaLabel = this.getAttribute("label") ?? words.label;
    const src = this.getAttribute("src");
    if (src !== this.#src) {
      [this.#src, this.#version, this.#ended] = [src, undefined, false];
      this.#show("connecting", undefined, "");
    }
    if (src && !this.#ended) this.#follow((this.#watch = new AbortController()).signal);
  }

  disconnectedCallback() { this.#watch.abort(); }
  attributeChangedCallback() { if (this.isConnected) this.connectedCallback(); }

  /** Open one stream after the other, until the job has ended or the service refuses. */
  async #follow(stopped) {
    await undefined; // attributes that are set together make one watch
    for (let failures = 0; !stopped.aborted; failures++) {
      const before = this.#version;
      const problem = (await this.#read(stopped).catch(() => undefined)) ?? {};
      if (stopped.aborted || this.#ended) return;
      if (problem.status < 500 && problem.status !== 408 && problem.status !== 429) {
        this.#connected(false, problem.detail ?? problem.title ?? `HTTP ${problem.status}`);
        this.dispatchEvent(new CustomEvent("error", { detail: problem }));
        return;
      }
      this.#connected(false);
      if (this.#version !== before) failures = 0;
      const pause = Math.min(500 * 2 ** failures, LONGEST_PAUSE) * (0.5 + Math.random() / 2);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  /** Read one stream to its end. Return the problem that ended it, if one was sent. */
  async #read(stopped) {
    const attempt = new AbortController();
    const headers = { Accept: "text/event-stream" };
    if (this.getAttribute("token")) headers.Authorization = `Bearer ${this.getAttribute("token")}`;
    const url = new URL(this.#src, this.baseURI); // a header would get 200 while the service is away, as for an EventSource
    if (this.#version) url.searchParams.set("last_event_id", this.#version);
    let timer = setTimeout(() => attempt.abort(), MAX_SILENCE);
    try {
      const answer = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.any([stopped, attempt.signal]) });
      if (!answer.ok || !answer.body) return { ...(await answer.json().catch(() => ({}))), status: answer.status };
      this.#connected(true);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "", event = {}, part; !(part = await reader.read()).done; ) {
        clearTimeout(timer);
        timer = setTimeout(() => attempt.abort(), MAX_SILENCE);
        const lines = (rest + part.value).split(/\r\n|\n|\r(?!$)/);
        rest = lines.pop();
        for (const line of lines) {
          const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
          if (line) event[field] = field === "data" && event.data ? `${event.data}\n${text}` : text;
          const problem = !line && event.data && this.#take(event);
          if (problem || this.#ended) return problem;
          if (!line) event = {};
        }
      }
    } finally {
      clearTimeout(timer);
      attempt.abort();
    }
  }

  /** Take in an event. Return the problem, if it is one. */
  #take({ event = "message", data, id }) {
    const { job, ...content } = JSON.parse(data);
    if (event === "error") return content;
    this.#connected(event !== "upstream" || content.connected);
    if (event !== "message" || !job) return undefined;
    this.#version = id ?? this.#version;
    const end = (this.#ended = job.status in ENDS);
    this.#show(JobledgerProgress.stateOf(job), job.progress ?? 0, (end ? job.error?.message : job.held && job.progressMessage) || "");
    for (const name of end ? ["progress", "end"] : ["progress"]) this.dispatchEvent(new CustomEvent(name, { detail: job }));
  }

  #show(state, progress, message) {
    this.setAttribute("state", state);
    this.#text = words[state] + (state === "running" ? `, ${progress} %` : "");
    this.#bar.ariaValueNow = progress ?? null; // null: not known
    this.#bar.ariaValueText = this.#status.textContent = this.#text;
    this.#fill.style.width = `${progress ?? 0}%`;
    this.#message.textContent = message;
    this.#said.textContent = this.#ended ? `${this.#text} ${message}` : "";
  }

  #connected(yes, text = yes ? this.#text : words.lost) {
    this.toggleAttribute("lost", !yes);
    if (this.#status.textContent === text) return;
    this.#status.textContent = text;
    this.#said.textContent = yes ? words.found : text;
  }
}

customElements.define("jobledger-progress", JobledgerProgress);
