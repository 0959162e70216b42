/** The filter of the list: states as links, the rest as a form, what is chosen as links to drop. */

import { h } from "./dom.js";
import { FLAGS, listAddress, STATUSES, TEXTS } from "./filter.js";

const YES_NO = { true: "yes", false: "no" };
const words = (name) => name.replaceAll("_", " ");

/** Make the bar; `go` opens an address. */
export function filterBar(filter, go) {
  const field = (name, label, hint) => h("p", { class: "field" }, h("label", { for: `f-${name}` }, label), h("input", { id: `f-${name}`, name, placeholder: hint, autocomplete: "off", spellcheck: "false" }));
  const choice = (name, label) => h("p", { class: "field" }, h("label", { for: `f-${name}` }, label), h("select", { id: `f-${name}`, name },
    Object.entries({ "": "all", ...YES_NO }).map(([value, text]) => h("option", { value, selected: value === filter[name] }, text))));
  const submit = (event) => {
    event.preventDefault();
    go(listAddress(withEntered(filter, new FormData(event.currentTarget))));
  };
  const more = h(
    "details",
    { class: "more-filters" },
    h("summary", {}, "Filter"),
    h("form", { class: "filter-form", submit },
      field("user", "Owner", "ada"),
      field("type", "Type", "render"),
      field("label", "Label", "team=blue"),
      field("reason", "Error reason", "TIMEOUT"),
      field("unique_key", "Unique key", "invoice-17"),
      field("request_id", "Request id"),
      field("concurrency_key", "Concurrency key", "stripe"),
      field("worker_id", "Worker", "render-7"),
      choice("held", "Held by a worker"),
      choice("cancelled", "Cancelled"),
      h("button", { type: "submit", class: "primary" }, "Show")),
  );
  return h("nav", { class: "filters", "aria-label": "Filter" }, statusLinks(filter), chosen(filter), more);
}

function statusLinks(filter) {
  const link = (text, statuses, current) => h("li", {}, h("a", { href: listAddress({ ...filter, statuses }), "aria-current": current ? "true" : null }, text));
  const toggled = (status) => filter.statuses.includes(status) ? filter.statuses.filter((one) => one !== status) : [...filter.statuses, status];
  return h(
    "ul",
    { class: "statuses" },
    link("All", [], filter.statuses.length === 0),
    STATUSES.map((status) => link(status.toLowerCase(), toggled(status), filter.statuses.includes(status))),
  );
}

function chosen(filter) {
  const chip = (text, changes) => h("li", {}, h("a", { href: listAddress({ ...filter, ...changes }), "aria-label": `Drop the filter ${text}` }, text, h("span", { "aria-hidden": "true" }, " ×")));
  const without = (list, item) => list.filter((one) => one !== item);
  const chips = [
    filter.user_id && chip(`owner: ${filter.user_id}`, { user_id: "" }),
    ...filter.job_types.map((type) => chip(`type: ${type}`, { job_types: without(filter.job_types, type) })),
    ...Object.entries(filter.labels).map(([key, value]) => {
      const { [key]: _, ...labels } = filter.labels;
      return chip(`${key}=${value}`, { labels });
    }),
    ...filter.error_reasons.map((reason) => chip(`reason: ${reason}`, { error_reasons: without(filter.error_reasons, reason) })),
    ...Object.keys(TEXTS).map((name) => filter[name] && chip(`${words(name)}: ${filter[name]}`, { [name]: "" })),
    ...FLAGS.map((name) => filter[name] && chip(`${name}: ${YES_NO[filter[name]]}`, { [name]: "" })),
  ].filter(Boolean);
  return chips.length > 0 && h("ul", { class: "chips", "aria-label": "Chosen" }, chips);
}

/** Return the filter with what was entered added to it. */
function withEntered(filter, form) {
  const text = (name) => form.get(name).trim();
  const [key, ...value] = text("label").split("=");
  const added = (list, item) => (item && !list.includes(item) ? [...list, item] : list);
  return {
    ...filter,
    user_id: text("user") || filter.user_id,
    job_types: added(filter.job_types, text("type")),
    error_reasons: added(filter.error_reasons, text("reason")),
    labels: key ? { ...filter.labels, [key]: value.join("=") } : filter.labels,
    ...Object.fromEntries(Object.keys(TEXTS).map((name) => [name, text(name) || filter[name]])),
    ...Object.fromEntries(FLAGS.map((name) => [name, text(name)])),
  };
}
