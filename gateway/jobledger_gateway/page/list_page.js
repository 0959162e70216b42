/** The list of jobs, live. */

import { call } from "./api.js";
import { bulkRerun } from "./bulk_rerun.js";
import { announce, h, oncePerFrame, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { filterBar } from "./filter_bar.js";
import { filterQuery, terminalOnes, watchQuery } from "./filter.js";
import { Jobs, MAX_JOBS } from "./jobs.js";
import { Rows } from "./rows.js";
import { onlyWatches } from "./session.js";
import { TypesPanel } from "./types_panel.js";

const PAGE = 500; // jobs a list
const STEPS = 20; // lists at most, until so many were found: one may be short although more follow

/** Show the list in `main`; return what stops it. `view` is what main.js gives every page. */
export function listPage(main, filter, view) {
  const abort = new AbortController();
  const { signal } = abort;
  let jobs = new Jobs(filter);
  let next; // the token of older jobs; undefined: no list was read yet
  let reading = false;

  const count = h("p", { class: "count" }, "Reading the jobs …");
  const empty = h("p", { class: "empty", hidden: true });
  const body = h("div", { class: "rows", role: "rowgroup" });
  const heads = ["state", "type", "what", "owner", "id", "age"].map((name) =>
    h("div", { class: `cell ${name}-cell`, role: "columnheader" }, HEADS[name]));
  const table = h(
    "div",
    { class: "table", role: "table", "aria-label": "Jobs", "aria-colcount": heads.length },
    h("div", { class: "table-head", role: "rowgroup" }, h("div", { class: "row", role: "row", "aria-rowindex": "1" }, heads)),
    body,
  );
  const kinds = terminalOnes(filter);
  const bulk = !onlyWatches() && kinds.length > 0 &&
    h("button", { type: "button", click: () => bulkRerun(filter) }, `Run ${kinds.join(" and ").toLowerCase()} jobs again …`);
  const panel = onlyWatches() ? undefined : new TypesPanel(filter);
  main.replaceChildren(
    h("div", { class: "layout" },
      panel?.element ?? "",
      h("section", { class: "jobs", "aria-label": "Jobs" },
        h("h1", { class: "unseen", tabindex: "-1" }, "Jobs"),
        filterBar(filter, view.go),
        h("div", { class: "list-head" }, count, bulk),
        table, empty)),
  );

  const rows = new Rows(body, () => next && readOlder());
  const draw = oncePerFrame(() => {
    if (signal.aborted) return;
    if (body.matches(":active")) {
      draw(); // after the mouse is released: a row that moves meanwhile would lose the click
      return;
    }
    const shown = jobs.newestFirst();
    if (jobs.cut && shown.length < MAX_JOBS / 2) begin(); // there is room for older ones again
    table.setAttribute("aria-rowcount", next || jobs.cut ? -1 : shown.length + 1);
    setText(count, counted(shown.length, next, jobs.cut));
    empty.hidden = shown.length > 0 || next === undefined;
    table.classList.toggle("none", shown.length === 0);
    rows.show(shown);
  });

  /** Read the list, the newest jobs first or those after `token`. */
  async function read(token) {
    const into = jobs;
    const first = next === undefined;
    const query = filterQuery(filter);
    query.set("page_size", PAGE);
    into.beginList();
    reading = true;
    try {
      for (let found = 0, step = 0; found < PAGE && step < STEPS && token !== ""; step += 1) {
        if (token) query.set("page_token", token);
        const answer = await call("GET", "/v1/jobs", { query, signal });
        for (const job of answer.jobs ?? []) into.take(job);
        found += answer.jobs?.length ?? 0;
        token = answer.nextPageToken ?? "";
        if (into !== jobs) return;
        next = token;
      }
    } catch (problem) {
      if (signal.aborted) return;
      if (!problem.final) {
        // It is still being read: the end of the list, which is drawn again, asks for nothing.
        setTimeout(() => signal.aborted || into !== jobs || read(token), 2000);
        return;
      }
      // A watch token may forbid the list: the watch alone shows what it may.
      next = "";
      if (!onlyWatches()) view.refused(problem);
    } finally {
      into.endList();
      draw();
    }
    reading = false;
    if (first) announce(counted(jobs.newestFirst().length, next, jobs.cut));
  }

  function readOlder() {
    if (!reading && !jobs.cut) read(next);
  }

  /** Read all anew. */
  function begin() {
    jobs = new Jobs(filter);
    next = undefined;
    read();
  }

  const feed = new Feed(watchQuery(filter), {
    opened: begin,
    changed(changes) {
      for (const change of changes) jobs.change(change);
      if (changes.length) {
        panel?.changed();
        draw();
      }
    },
    connected: view.connected,
    refused: view.refused,
  });
  empty.append(...hint(filter));
  const ticking = setInterval(rows.draw, 1000);
  return () => {
    abort.abort();
    clearInterval(ticking);
    feed.stop();
    rows.stop();
    panel?.stop();
  };
}

const HEADS = { state: "State", type: "Type", what: "Progress", owner: "Owner", id: "Id", age: "Age" };

function counted(number, next, cut) {
  if (next === undefined && !number) return "Reading the jobs …";
  const jobs = `${number.toLocaleString()} ${number === 1 ? "job" : "jobs"}`;
  if (cut) return `The newest ${jobs}. There are older ones: a filter shows them.`;
  return next ? `${jobs}, and older ones below` : jobs;
}

function hint(filter) {
  if (filterQuery(filter).size) return [h("strong", {}, "No job matches."), " ", h("a", { href: "/" }, "Show all jobs")];
  return [h("strong", {}, "No jobs yet."), " Create one: ", h("code", {}, "jobledger create render --user ada")];
}
