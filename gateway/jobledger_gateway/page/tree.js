/** A JSON value as a tree that opens and closes. */

import { h } from "./dom.js";

const AT_ONCE = 100; // entries
const OPEN = 12; // an object with at most so many entries begins open

/** Make the tree of a value. */
export function tree(value) {
  const list = h("ul", { class: "tree" });
  fill(list, entriesOf(value), 0, 0);
  return list;
}

function isBranch(value) {
  return typeof value === "object" && value !== null;
}

function entriesOf(value) {
  if (Array.isArray(value)) return value.map((item, index) => [index, item]);
  // The fields of a protobuf Struct have no order of their own.
  return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Add entries; of many only some, and a button for the next. */
function fill(list, entries, from, depth) {
  const some = entries.slice(from, from + AT_ONCE);
  list.append(...some.map(([key, value]) => item(key, value, depth)));
  const left = entries.length - from - some.length;
  if (left <= 0) return;
  const click = ({ currentTarget }) => {
    currentTarget.parentElement.remove();
    fill(list, entries, from + AT_ONCE, depth);
  };
  list.append(h("li", {}, h("button", { type: "button", class: "small", click }, `${left.toLocaleString()} more`)));
}

function item(key, value, depth) {
  const name = h("span", { class: "key" }, String(key));
  if (!isBranch(value)) return h("li", {}, name, " ", leaf(value));
  const entries = entriesOf(value);
  const size = Array.isArray(value) ? `[${entries.length}]` : `{${entries.length}}`;
  const list = h("ul", { class: "tree" });
  let filled = false;
  // Filled when it is opened: a large value costs what is looked at.
  const toggle = () => {
    if (!filled && details.open) fill(list, entries, 0, depth + 1);
    filled ||= details.open;
  };
  const open = entries.length <= OPEN && depth < 2;
  const details = h("details", { open, toggle }, h("summary", {}, name, " ", h("span", { class: "size" }, size)), list);
  toggle();
  return h("li", {}, details);
}

function leaf(value) {
  const kind = value === null ? "null" : typeof value;
  return h("span", { class: `value ${kind}` }, kind === "string" ? JSON.stringify(value) : String(value));
}
