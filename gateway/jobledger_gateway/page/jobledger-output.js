/**
 * <jobledger-output src="https://gateway/v1/jobs/ID/output" token="jlw_…"></jobledger-output>
 *
 * Shows what a job writes, live, until the job has ended. Needs nothing else. Stays at the end, until
 * somebody scrolls up. Only what is near to what is seen is in the page.
 *
 * Attributes: `src`, the output, or with /STREAM behind it another stream; `token`, sent as a bearer
 * token: a new one continues the watch; `attempts="clear"` shows the newest attempt alone; `limit`,
 * how many bytes are kept, by default 1048576; `label`, what a screen reader calls it.
 * Events: `output`, with `{ offset, attempt }`, after each piece; `follow`, with whether it stays at the
 * end; `end`; `error`, with a problem, if it gives up.
 * Style: the parts `output`, `attempt`, `note` and `status`; the attribute `lost`; --jobledger-height,
 * --jobledger-background, --jobledger-text, and the 16 colours --jobledger-ansi-0 to -15.
 */
const MAX_SILENCE = 40_000; // ms without anything, not even a heartbeat, which come every 15 s
const LONGEST_PAUSE = 10_000; // ms between two attempts to connect
const LIMIT = 1024 * 1024; // bytes
const BLOCK = 16 * 1024; // characters that are drawn together, at the end of a line if there is one
const PART = 64 * 1024; // bytes that are taken in at once
const NEAR = 600; // pixels above and below of what is seen, where output is drawn
const COLUMNS = 100; // of a line, to guess how high a block is that was not drawn yet
const ESCAPE = /\x1b(?:\[([0-?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-Z\\^-~])/g;
const UNFINISHED = /\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*)?$/;
const COLOURS = ["#8b949e", "#ff7b72", "#6cc276", "#e3b341", "#79b8ff", "#d2a8ff", "#56d4dd", "#d0d7de",
  "#9aa4af", "#ffa198", "#8ddb98", "#f2cc60", "#a5d6ff", "#e2c5ff", "#8be9f0", "#ffffff"];
const words = {
  label: "Output", attempt: "attempt", earlier: "Earlier output is not shown.", dropped: "Some output is not stored any more.",
  connecting: "connecting", lost: "connection lost, trying again", found: "connected again",
};
const style = new CSSStyleSheet(); // not an element: a strict Content-Security-Policy permits it
style.replaceSync(`
  :host { display: block; position: relative; }
  [part="output"] { height: var(--jobledger-height, 20em); overflow: auto; box-sizing: border-box; padding: 0.5em 0.75em; border-radius: 0.4em;
    background: var(--jobledger-background, #0d1117); color: var(--jobledger-text, #e6edf3); color-scheme: dark;
    font: 0.85em/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
  :host([lost]) [part="output"] { opacity: 0.7; }
  .block { white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 8; }
  [part="attempt"], [part="note"] { padding: 0.4em 0; color: #9aa4af; }
  [part="attempt"] { border-top: 1px solid #6e7681; }
  [part="status"]:empty { display: none; }
  .said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  ::highlight(jobledger-found) { background: #f2cc60; color: #0d1117; }
`);
const PLAIN = Object.freeze({});

class JobledgerOutput extends HTMLElement {
  static observedAttributes = ["src", "token"];
  static words = words; // to be replaced by those of another language
  #output; #status; #said; // elements
  #src; #offset; #ended; #attempt; #decoder; // what was read
  #blocks = []; #size = 0; #style = PLAIN; // what is kept
  #above; #below; #drawn = new Set(); // the space of the blocks that are not drawn, and those that are
  #following = true; #top = 0; #frame = 0; #height;
  #search = { needle: "", at: -1 };
  #watch = new AbortController();
  #resized = new ResizeObserver(() => this.#changed());

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [style];
    root.innerHTML = `<div part="output" role="region" tabindex="0"><div></div><div></div></div><div part="status"></div><div class="said" role="status"></div>`;
    [this.#output, this.#status, this.#said] = root.children;
    [this.#above, this.#below] = this.#output.children;
    this.#output.addEventListener("scroll", () => this.#scrolled());
  }

  connectedCallback() {
    this.disconnectedCallback();
    this.#output.ariaLabel = this.getAttribute("label") ?? words.label;
    this.#resized.observe(this.#output);
    const src = this.getAttribute("src");
    if (src !== this.#src) {
      [this.#src, this.#offset, this.#ended, this.#attempt] = [src, undefined, false, undefined];
      this.#clear();
      this.#status.textContent = src ? words.connecting : "";
    }
    if (src && !this.#ended) this.#follow((this.#watch = new AbortController()).signal);
  }

  disconnectedCallback() {
    this.#watch.abort();
    this.#resized.disconnect();
  }

  attributeChangedCallback() { if (this.isConnected) this.connectedCallback(); }

  /** Whether the end stays in view. */
  get following() { return this.#following; }
  set following(yes) {
    this.#stay(Boolean(yes));
    this.#changed();
  }

  /**
   * Show the next place of a text, or with `step` -1 the one before; letters in either case. Return
   * `{ index, total }`; the index of the first one is 1.
   */
  async find(needle, step = 1) {
    const wanted = needle.toLowerCase();
    const search = (this.#search = { ...this.#search, needle });
    const counts = [];
    for (const [number, block] of this.#blocks.entries()) {
      if (block.searched !== `${wanted} ${block.text.length}`) {
        block.searched = `${wanted} ${block.text.length}`;
        block.found = wanted ? plain(block.text).toLowerCase().split(wanted).length - 1 : 0;
      }
      counts.push(block.found);
      if (number % 64 === 63) await new Promise((resolve) => setTimeout(resolve)); // what is drawn meanwhile does not wait
      if (this.#search !== search) return undefined; // another one has begun
    }
    const total = counts.reduce((sum, count) => sum + count, 0);
    CSS.highlights?.delete("jobledger-found");
    if (!total) return { index: 0, total };
    const at = search.at < 0 ? (step < 0 ? total - 1 : 0) : (search.at + step + total) % total;
    this.#search.at = at;
    let within = at, number = 0;
    while (within >= counts[number]) within -= counts[number++];
    this.#show(this.#blocks[number], wanted, within);
    return { index: at + 1, total };
  }

  /** Begin the next search at the first place. */
  forget() {
    this.#search = { needle: "", at: -1 };
    CSS.highlights?.delete("jobledger-found");
  }

  #show(block, wanted, within) {
    this.following = false;
    this.#output.scrollTop = heightOf(this.#blocks.slice(0, this.#blocks.indexOf(block)));
    this.#update();
    const nodes = [], walker = document.createTreeWalker(block.element, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) nodes.push(walker.currentNode);
    let at = -1;
    const text = block.element.textContent.toLowerCase();
    for (let count = 0; count <= within; count++) at = text.indexOf(wanted, at < 0 ? 0 : at + wanted.length);
    if (at < 0) return;
    const range = new Range();
    range.setStart(...placeIn(nodes, at));
    range.setEnd(...placeIn(nodes, at + wanted.length));
    CSS.highlights?.set("jobledger-found", new Highlight(range));
    const [place, view] = [range.getBoundingClientRect(), this.#output.getBoundingClientRect()];
    if (place.top < view.top + 20 || place.bottom > view.bottom - 20) this.#output.scrollTop += place.top - view.top - view.height / 2;
  }

  /** Open one stream after the other, until the job has ended or the service refuses. */
  async #follow(stopped) {
    await undefined; // attributes that are set together make one watch
    for (let failures = 0; !stopped.aborted; failures++) {
      const before = this.#offset;
      const problem = (await this.#read(stopped).catch(() => undefined)) ?? {};
      if (stopped.aborted || this.#ended) return;
      const dropped = problem.status === 410 && problem.metadata?.truncated_before;
      if (dropped) {
        [this.#offset, this.#decoder] = [dropped, new TextDecoder()];
        this.#note("note", words.dropped);
        continue;
      }
      if (problem.status < 500 && problem.status !== 408 && problem.status !== 429) {
        this.#connected(false, problem.detail ?? problem.title ?? `HTTP ${problem.status}`);
        this.dispatchEvent(new CustomEvent("error", { detail: problem }));
        return;
      }
      this.#connected(false);
      if (this.#offset !== before) failures = 0;
      const pause = Math.min(500 * 2 ** failures, LONGEST_PAUSE) * (0.5 + Math.random() / 2);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  /** Read one stream to its end. Return the problem that ended it, if one was sent. */
  async #read(stopped) {
    const attempt = new AbortController();
    const headers = { Accept: "text/event-stream" };
    if (this.getAttribute("token")) headers.Authorization = `Bearer ${this.getAttribute("token")}`;
    const url = new URL(this.#src, this.baseURI);
    const from = this.#offset === undefined ? { last_bytes: this.#limit } : { offset: this.#offset };
    for (const [name, value] of Object.entries({ live: "sse", encoding: "base64", ...from })) url.searchParams.set(name, value);
    let timer = setTimeout(() => attempt.abort(), MAX_SILENCE);
    try {
      const answer = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.any([stopped, attempt.signal]) });
      if (!answer.ok || !answer.body) return { ...(await answer.json().catch(() => ({}))), status: answer.status };
      this.#connected(true);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = [], event = {}, data = "", part; !(part = await reader.read()).done; ) {
        clearTimeout(timer);
        timer = setTimeout(() => attempt.abort(), MAX_SILENCE);
        const lines = part.value.split("\n");
        if (lines.length === 1) { // of a long line: it is not searched again for its end
          rest.push(part.value);
          continue;
        }
        lines[0] = [...rest, lines[0]].join("");
        rest = [lines.pop()];
        for (const line of lines) {
          const [, field, text] = /^([^:]*):? ?(.*?)\r?$/.exec(line);
          if (field) event[field] = text;
          if (field || text) continue;
          if (event.event === "data") data = event.data;
          if (event.event === "upstream") this.#connected(JSON.parse(event.data).connected);
          if (event.event === "error") return JSON.parse(event.data);
          if (event.event === "control") {
            await this.#take(data, JSON.parse(event.data), stopped);
            data = "";
          }
          if (this.#ended || stopped.aborted) return undefined;
          event = {};
        }
      }
    } finally {
      clearTimeout(timer);
      attempt.abort();
    }
    return undefined;
  }

  /** Take in a piece, and what follows it says of it: a part at a time, so that the page stays quick. */
  async #take(data, { streamNextOffset, streamClosed, attempt, truncatedBefore }, stopped) {
    this.#connected(true);
    const bytes = bytesOf(data), start = Number(streamNextOffset) - bytes.length;
    if (this.#offset === undefined && start > 0) this.#note("note", truncatedBefore ? words.dropped : words.earlier);
    if (bytes.length && this.#attempt !== attempt) this.#begin(attempt);
    for (let at = 0; at < bytes.length; at += PART) {
      if (at) await new Promise((resolve) => setTimeout(resolve));
      if (stopped.aborted) return;
      const part = bytes.subarray(at, at + PART);
      this.#write(this.#decoder.decode(part, { stream: true }));
      this.#offset = start + at + part.length;
    }
    this.#offset = Number(streamNextOffset);
    if (bytes.length) this.dispatchEvent(new CustomEvent("output", { detail: { offset: this.#offset, attempt } }));
    if (!streamClosed) return;
    this.#write(this.#decoder?.decode() ?? "");
    this.#ended = true;
    this.dispatchEvent(new CustomEvent("end"));
  }

  #begin(attempt) {
    this.#write(this.#decoder?.decode() ?? "");
    const isAnother = this.#attempt !== undefined;
    this.#attempt = attempt;
    this.#decoder = new TextDecoder();
    if (isAnother && this.getAttribute("attempts") === "clear") this.#clear();
    if (isAnother || attempt > 1) this.#note("attempt", `${words.attempt} ${attempt}`);
  }

  /** Write a line of the element's own, between the output before it and after it. */
  #note(part, text) {
    const note = this.#open(PLAIN, (note) => { note.textContent = text; });
    note.element.setAttribute("part", part);
    [note.full, this.#style] = [true, PLAIN];
    this.#changed();
    return note;
  }

  /** Put a text behind the others: in blocks, each of which can be drawn by itself. */
  /** Write a text behind the others: in blocks, each of which can be drawn by itself. */
  #write(text) {
    for (let at = 0, end; at < text.length; at = end) {
      let block = this.#blocks.at(-1);
      if (!block || block.full) block = this.#open(this.#style);
      const room = Math.max(0, BLOCK - block.text.length);
      end = text.length;
      if (end - at > room) {
        const before = text.lastIndexOf("\n", at + room - 1) + 1, after = text.indexOf("\n", at + room) + 1;
        end = Math.min(before > at ? before : after || end, at + 2 * BLOCK - block.text.length);
        if (end > at + 1 && isHalf(text.charCodeAt(end - 1))) end--;
      }
      block.text += text.slice(at, end);
      this.#size += end - at;
      block.full = block.text.length >= (text[end - 1] === "\n" ? BLOCK : 2 * BLOCK - 1);
      if (block.full) this.#style = pieces(block.text, block.style, false).style;
      if (!this.#drawn.has(block)) block.height = linesOf(block.text) * this.#lineHeight;
    }
    while (this.#size > this.#limit && this.#blocks.length > 2) this.#drop();
    this.#changed();
  }

  #open(atStart, draw) {
    const element = document.createElement("div");
    element.className = "block";
    const block = { element, text: "", style: atStart, height: this.#lineHeight, full: false, draw };
    this.#blocks.push(block);
    return block;
  }

  #drop() {
    const isFirst = !this.#blocks[0].isEarlier;
    const [block] = this.#blocks.splice(isFirst ? 0 : 1, 1);
    this.#size -= block.text.length;
    if (!isFirst) return;
    const style = this.#style;
    this.#blocks.unshift(Object.assign(this.#note("note", words.earlier), { isEarlier: true }));
    this.#blocks.pop();
    this.#style = style;
  }

  #clear() {
    [this.#blocks, this.#size, this.#style] = [[], 0, PLAIN];
    this.forget();
    this.#changed();
  }

  get #lineHeight() { return (this.#height ??= parseFloat(getComputedStyle(this.#output).lineHeight) || 20); }

  get #limit() { return Number(this.getAttribute("limit")) || LIMIT; }

  /** Show what has changed in the next frame, once however much that is. */
  #changed() {
    this.#frame ||= requestAnimationFrame(() => this.#update());
  }

  /** Draw the blocks that are near to what is seen, and no others. */
  #update() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const { scrollTop, clientHeight } = this.#output, blocks = this.#blocks;
    const top = this.#following ? heightOf(blocks) - clientHeight : scrollTop;
    let from = 0, at = 0;
    while (from < blocks.length && at + blocks[from].height < top - NEAR) at += blocks[from++].height;
    const above = at;
    let to = from;
    while (to < blocks.length && at < top + clientHeight + NEAR) at += blocks[to++].height;
    const near = new Set(blocks.slice(from, to));
    for (const block of this.#drawn) {
      if (near.has(block)) continue;
      block.element.remove();
      block.element.replaceChildren();
      block.shown = undefined;
    }
    this.#drawn = near;
    let last = this.#above;
    for (const block of near) {
      this.#draw(block);
      if (last.nextSibling !== block.element) last.after(block.element);
      last = block.element;
    }
    this.#above.style.height = `${above}px`;
    this.#below.style.height = `${heightOf(blocks.slice(to))}px`;
    let wasGuessed = false;
    for (const block of near) {
      const { height } = block.element.getBoundingClientRect();
      wasGuessed ||= Math.abs(height - block.height) > 1;
      block.height = height;
    }
    if (this.#following) this.#output.scrollTop = this.#output.scrollHeight;
    if (wasGuessed) this.#changed(); // there may be room for more
  }

  #draw(block) {
    const { element, text } = block;
    if (block.draw) {
      block.draw(element);
      return;
    }
    // Whole lines are drawn once; the last one again, as long as it grows.
    const shown = (block.shown ??= { length: 0, whole: 0, style: block.style, tail: [] });
    if (shown.length === text.length) return;
    for (const node of shown.tail) node.remove();
    const end = text.lastIndexOf("\n") + 1;
    const whole = pieces(text.slice(shown.whole, end), shown.style);
    const tail = pieces(text.slice(end), whole.style);
    element.append(...whole.nodes, ...tail.nodes);
    block.shown = { length: text.length, whole: end, style: whole.style, tail: tail.nodes };
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#output;
    const isAtEnd = scrollHeight - clientHeight - scrollTop < 4;
    if (isAtEnd || scrollTop < this.#top) this.#stay(isAtEnd);
    this.#top = scrollTop;
    this.#changed();
  }

  #stay(yes) {
    if (this.#following === yes) return;
    this.#following = yes;
    this.dispatchEvent(new CustomEvent("follow", { detail: yes }));
  }

  #connected(yes, text = yes ? "" : words.lost) {
    if (yes && this.hasAttribute("lost")) this.#said.textContent = words.found;
    this.toggleAttribute("lost", !yes);
    if (this.#status.textContent === text) return;
    this.#status.textContent = text;
    if (!yes) this.#said.textContent = text;
  }
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const characters = atob(base64), bytes = new Uint8Array(characters.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = characters.charCodeAt(at);
  return bytes;
}

/** Return the lines as a terminal has them in the end: what a CR goes back over is overwritten. */
function lines(text) {
  if (!text.includes("\r")) return text;
  const last = (line) => line.replace(/\r+$/, "");
  return text.split("\n").map(last).map((line) => line.slice(line.lastIndexOf("\r") + 1)).join("\n");
}

function plain(text) { return lines(text).replace(ESCAPE, ""); }

function isHalf(code) { return code >= 0xd800 && code < 0xdc00; } // of a character

/** Return nodes for a text, and the style after it. */
function pieces(text, style, draws = true) {
  const nodes = [], shown = lines(text).replace(UNFINISHED, "");
  let at = 0;
  const put = (part) => { if (part && draws) nodes.push(node(part, style)); };
  for (const found of shown.matchAll(ESCAPE)) {
    put(shown.slice(at, found.index));
    at = found.index + found[0].length;
    if (found[2] === "m") style = styled(style, found[1]);
  }
  put(shown.slice(at));
  return { nodes, style };
}

function node(text, style) {
  if (style === PLAIN) return document.createTextNode(text);
  const span = document.createElement("span");
  span.textContent = text;
  const [front, back] = style.inverse ? [style.back ?? "#0d1117", style.front ?? "#e6edf3"] : [style.front, style.back];
  Object.assign(span.style, {
    color: front ?? "", backgroundColor: back ?? "", fontWeight: style.bold ? "bold" : "", opacity: style.dim ? "0.75" : "",
    fontStyle: style.italic ? "italic" : "", textDecoration: [style.under && "underline", style.strike && "line-through"].filter(Boolean).join(" "),
  });
  return span;
}

/** Return a style after the codes of one "select graphic rendition". */
function styled(style, codes) {
  const next = { ...style }, given = codes.split(/[;:]/).map(Number);
  for (let at = 0; at < given.length; at++) {
    const code = given[at];
    if (code === 0) for (const name of Object.keys(next)) delete next[name];
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 22) delete next.bold, delete next.dim;
    else if (code === 38 || code === 48) {
      const length = given[at + 1] === 5 ? 2 : given[at + 1] === 2 ? 4 : 0;
      const colour = length === 2 ? palette(given[at + 2]) : length === 4 ? `rgb(${given.slice(at + 2, at + 5).map((one) => one & 255).join(" ")})` : undefined;
      if (colour) next[code === 38 ? "front" : "back"] = colour;
      at += length;
    } else if (code in SIMPLE) next[SIMPLE[code]] = true;
    else if (code in ENDS) delete next[ENDS[code]];
    else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) next.front = palette(code < 90 ? code - 30 : code - 82);
    else if ((code >= 40 && code <= 47) || (code >= 100 && code <= 107)) {
      next.back = palette(code < 100 ? code - 40 : code - 92);
      next.front ??= "#0d1117";
    }
  }
  return Object.keys(next).length ? next : PLAIN;
}
const SIMPLE = { 3: "italic", 4: "under", 7: "inverse", 9: "strike" };
const ENDS = { 23: "italic", 24: "under", 27: "inverse", 29: "strike", 39: "front", 49: "back" };

/** Return one of the 256 colours of terminals. */
function palette(number) {
  if (!(number >= 0 && number < 256)) return undefined;
  if (number < 16) return `var(--jobledger-ansi-${number}, ${COLOURS[number]})`;
  const level = (one) => (one ? 55 + 40 * one : 0), cube = number - 16;
  if (number >= 232) return `rgb(${Array(3).fill(8 + 10 * (number - 232)).join(" ")})`;
  return `rgb(${[cube / 36, (cube / 6) % 6, cube % 6].map((one) => level(Math.floor(one))).join(" ")})`;
}

/** Guess how many lines a text takes. */
function linesOf(text) {
  let count = 0;
  for (let at = 0, end; at < text.length; at = end + 1) {
    end = text.indexOf("\n", at);
    if (end < 0) end = text.length;
    count += Math.ceil(Math.max(1, end - at) / COLUMNS);
  }
  return count;
}

function heightOf(blocks) { return blocks.reduce((sum, { height }) => sum + height, 0); }

/** Return the text node, and the place in it, of a place in a text of several nodes. */
function placeIn(nodes, at) {
  for (const one of nodes) {
    if (at <= one.length) return [one, at];
    at -= one.length;
  }
  return [nodes.at(-1), nodes.at(-1).length];
}

customElements.define("jobledger-output", JobledgerOutput);
