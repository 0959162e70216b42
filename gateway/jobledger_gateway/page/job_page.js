/** The page of one job, live. */

import { cancel, change, remove, rerun } from "./actions.js";
import { announce, h, oncePerFrame, redraw, setClass, setText } from "./dom.js";
import { assetItems, errors, facts } from "./facts.js";
import { Feed } from "./feed.js";
import { JobDetails } from "./job_details.js";
import { OutputPanel } from "./output_panel.js";
import { onlyWatches } from "./session.js";
import { isTerminal, notStarted, stateOf } from "./states.js";
import { timeline } from "./timeline.js";
import { tree } from "./tree.js";
import { sentences } from "./waiting.js";

/** Show a job in `main`; return what stops it. `view` is what main.js gives every page. */
export function jobPage(main, id, owner, view) {
  const output = new OutputPanel(id, owner);
  const parts = skeleton(id, view.listed, output.element);
  main.replaceChildren(parts.page);
  let spoken = "";
  const draw = oncePerFrame(() => {
    const { job } = details;
    if (!job || details.stopped) return;
    const state = drawHead(parts, job, details.deleted);
    drawBody(parts, details);
    output.show(job);
    if (spoken && spoken !== state.key) announce(`The job is now ${state.text}.`);
    spoken = state.key;
  });
  const details = new JobDetails(id, owner, { changed: draw, refused: view.refused });
  const query = new URLSearchParams(owner ? { user_id: owner } : {});
  query.set("job_ids", id);
  const feed = new Feed(query, {
    opened: () => details.read(),
    changed: (changes, synced) => details.changes(changes, synced),
    connected: view.connected,
    refused: view.refused,
  });
  parts.cancel.addEventListener("click", () => cancel(details.job));
  parts.change.addEventListener("click", () => change(details.job));
  parts.rerun.addEventListener("click", () => rerun(details.job, view.go));
  parts.remove.addEventListener("click", () => remove(details.job, view.go, view.listed));
  const ticking = setInterval(draw, 1000);
  return () => {
    clearInterval(ticking);
    feed.stop();
    details.stop();
    output.stop();
  };
}

function skeleton(id, listed, output) {
  const button = (text, danger) => h("button", { type: "button", hidden: true, class: danger ? "danger" : null }, text);
  const section = (title, content) => h("section", { class: "block", hidden: true }, h("h2", {}, title), content);
  const parts = {
    type: h("span", {}, "Job"),
    state: h("span", { class: "state" }, "Reading …"),
    bar: h("progress", { max: "100", "aria-label": "progress", hidden: true }),
    text: h("p", { class: "progress-text" }),
    cancel: button("Cancel …"),
    change: button("Change …"),
    rerun: button("Run again …"),
    remove: button("Delete …", true),
    why: h("ul", { class: "why" }),
    errors: h("div", {}),
    timeline: h("ol", { class: "timeline" }),
    facts: h("dl", { class: "facts" }),
    assets: h("ul", { class: "assets" }),
    parameters: h("div", {}),
    result: h("div", {}),
    checkpoint: h("div", {}),
  };
  parts.page = h("article", { class: "job" },
    h("p", { class: "back" }, h("a", { href: listed }, "← Jobs")),
    h("header", { class: "job-head" },
      h("div", {}, h("h1", { tabindex: "-1" }, parts.type, " ", h("code", {}, id)), parts.state),
      h("div", { class: "buttons" }, parts.rerun, parts.cancel, parts.change, parts.remove)),
    h("div", { class: "job-progress" }, parts.bar, parts.text),
    output,
    h("div", { class: "columns" },
      h("div", {}, section("Why it waits", parts.why), parts.errors, section("What happened", parts.timeline), section("Assets", parts.assets)),
      h("div", {}, section("Facts", parts.facts), section("Parameters", parts.parameters), section("Result", parts.result), section("Checkpoint", parts.checkpoint))));
  return parts;
}

function drawHead(parts, job, deleted) {
  const state = deleted ? { key: "deleted", text: "deleted" } : stateOf(job);
  document.title = `${state.text} · ${job.jobType} · Jobledger`;
  setText(parts.type, job.jobType);
  setText(parts.state, state.text);
  setClass(parts.state, `state big ${state.key}`);
  parts.bar.hidden = !job.held;
  parts.bar.value = job.progress ?? 0;
  setText(parts.text, job.held ? `${job.progress ?? 0} %  ${job.progressMessage ?? ""}` : "");
  const may = !onlyWatches() && !deleted;
  parts.cancel.hidden = !may || isTerminal(job) || Boolean(job.cancelRequestTime);
  parts.change.hidden = !may || !notStarted(job);
  parts.rerun.hidden = parts.remove.hidden = !may || !isTerminal(job);
  return state;
}

/** Draw each section, again only when what it shows is another. */
function drawBody(parts, { job, full, deleted, transitions, attempts, assets, reasons, rerun }) {
  fill(parts.why, deleted ? [] : reasons, () => sentences(job, reasons), true);
  fill(parts.errors, [job.error, job.lastError, full.error], () => errors({ ...job, error: full.error ?? job.error }));
  fill(parts.timeline, [job.version, transitions, attempts], () => timeline(job, transitions, attempts), true);
  fill(parts.facts, [job.version, rerun], () => facts(job, rerun), true);
  fill(parts.assets, assets, () => assetItems(assets));
  for (const name of ["parameters", "result", "checkpoint"]) {
    const value = full[name] ?? {};
    fill(parts[name], value, () => (Object.keys(value).length ? [tree(value)] : []));
  }
}

/** `aged`: its times are written relative to now. They are drawn again every 10 seconds. */
function fill(element, facts, make, aged = false) {
  const drawn = JSON.stringify([facts, aged && Math.floor(Date.now() / 10_000)]);
  // Who opens and closes a tree is not disturbed: it would be closed.
  if (element.drawn === drawn || element.querySelector("summary:focus, button:focus")) return;
  if (!redraw(element, make)) return;
  element.drawn = drawn;
  if (element.parentElement.classList.contains("block")) element.parentElement.hidden = !element.hasChildNodes();
}
