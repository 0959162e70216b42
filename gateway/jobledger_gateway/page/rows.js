/** A list of any length: only the rows that can be seen are in the document. */

import { oncePerFrame } from "./dom.js";
import { Row } from "./row.js";

const AROUND = 8; // rows above and below what can be seen
const phone = matchMedia("(max-width: 760px)");

/** The body of a table with rows of one height, which scrolls with the window. */
export class Rows {
  #body;
  #onEnd;
  #jobs = [];
  #rows = new Map();
  #anchor = { id: "", index: 0 };
  #active = "";
  #abort = new AbortController();

  /** `onEnd` is called when the last rows come into sight. */
  constructor(body, onEnd) {
    this.#body = body;
    this.#onEnd = onEnd;
    const { signal } = this.#abort;
    this.draw = oncePerFrame(() => signal.aborted || this.#draw());
    addEventListener("scroll", this.draw, { signal, passive: true });
    addEventListener("resize", () => this.show(this.#jobs), { signal }); // rows may be of another height
    body.addEventListener("keydown", (event) => this.#key(event), { signal });
    body.addEventListener("focusin", (event) => this.#focused(event), { signal });
  }

  stop() {
    this.#abort.abort();
  }

  /** Show these jobs until others are shown, whatever becomes of them meanwhile. */
  show(jobs) {
    this.#jobs = jobs;
    const moved = this.#anchor.id ? this.#indexOf(this.#anchor.id) - this.#anchor.index : 0;
    this.#body.style.height = `${jobs.length * this.#height()}px`;
    // What is read stays where it is while new jobs come above it.
    const known = this.#anchor.index + moved >= 0;
    if (moved && known && this.#anchor.index > 0) scrollBy(0, moved * this.#height());
    this.#draw();
  }

  #indexOf(id) {
    return this.#jobs.findIndex((job) => job.id === id);
  }

  #height() {
    return phone.matches ? 60 : 36;
  }

  #draw() {
    const height = this.#height();
    const above = Math.max(0, -this.#body.getBoundingClientRect().top);
    const seen = Math.min(Math.floor(above / height), Math.max(0, this.#jobs.length - 1));
    const first = Math.max(0, seen - AROUND);
    const last = Math.min(this.#jobs.length, seen + Math.ceil(innerHeight / height) + AROUND);
    this.#anchor = { id: this.#jobs[seen]?.id ?? "", index: seen };
    const indices = Array.from({ length: last - first }, (_, index) => first + index);
    const focused = this.#rows.get(this.#active);
    const kept = focused?.link === document.activeElement;
    if (kept) {
      // The row that has the focus stays, in its place among the others: to move it would end that.
      let index = this.#indexOf(this.#active);
      if (index < 0) {
        // Its job has left the list: the one that comes in its place gets the focus.
        index = Math.min(focused.element.ariaRowIndex - 2, this.#jobs.length - 1);
        this.#active = this.#jobs[index]?.id ?? "";
      }
      if (index >= last) indices.push(index);
      else if (index >= 0 && index < first) indices.unshift(index);
    }
    const wanted = new Set(indices.map((index) => this.#jobs[index].id));
    for (const [id, row] of this.#rows) {
      if (wanted.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    let before = null;
    for (const index of indices) before = this.#place(index, height, before);
    if (kept) this.#rows.get(this.#active)?.link.focus({ preventScroll: true });
    if (!wanted.has(this.#active)) this.#rows.get(this.#anchor.id)?.link.setAttribute("tabindex", "0");
    if (last === this.#jobs.length) this.#onEnd();
  }

  #place(index, height, before) {
    const job = this.#jobs[index];
    const { id } = job;
    let row = this.#rows.get(id);
    if (row) {
      row.update(job);
    } else {
      row = new Row(job);
      this.#rows.set(id, row);
    }
    const { element, link } = row;
    const place = `${index * height}px`;
    if (element.style.top !== place) {
      element.style.top = place;
      element.setAttribute("aria-rowindex", index + 2);
    }
    const stop = id === this.#active ? "0" : "-1";
    if (link.getAttribute("tabindex") !== stop) link.setAttribute("tabindex", stop);
    if (before ? element.previousSibling !== before : element !== this.#body.firstChild) {
      if (before) before.after(element);
      else this.#body.prepend(element);
    }
    return element;
  }

  #focused({ target }) {
    for (const [id, row] of this.#rows) if (row.link === target) this.#active = id;
  }

  #key(event) {
    const page = Math.max(1, Math.floor(innerHeight / this.#height()) - 4);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const here = this.#indexOf(this.#active);
    const index = Math.min(Math.max(here + step, 0), this.#jobs.length - 1);
    this.#active = this.#jobs[index]?.id ?? "";
    const height = this.#height();
    const top = this.#body.getBoundingClientRect().top + index * height;
    // Below the header of the table, and above the end of the window.
    if (top < 2 * height) scrollBy(0, top - 2 * height);
    else if (top > innerHeight - 2 * height) scrollBy(0, top - innerHeight + 2 * height);
    this.#draw();
    this.#rows.get(this.#active)?.link.focus({ preventScroll: true });
  }
}
