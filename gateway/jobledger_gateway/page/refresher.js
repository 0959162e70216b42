/** Reads something again and again, as often as it is of use. */

/**
 * Calls `read(signal)`, never twice at a time, never more often than every `apart` milliseconds,
 * and not while nobody sees the page. It returns after how many milliseconds to read again;
 * undefined: not before it is asked for.
 */
export class Refresher {
  #read;
  #apart;
  #abort = new AbortController();
  #timer;
  #due = 0;
  #last = -Infinity;
  #busy = false;
  #missed = false;

  constructor(read, apart) {
    this.#read = read;
    this.#apart = apart;
    const seen = () => !document.hidden && this.#missed && this.ask(0);
    document.addEventListener("visibilitychange", seen, { signal: this.#abort.signal });
  }

  get stopped() {
    return this.#abort.signal.aborted;
  }

  stop() {
    clearTimeout(this.#timer);
    this.#abort.abort();
  }

  /** Read within so many milliseconds. */
  ask(delay) {
    const due = Math.max(performance.now() + delay, this.#last + this.#apart);
    if (this.stopped || (this.#timer !== undefined && this.#due <= due)) return;
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(() => this.#run(), due - performance.now());
  }

  async #run() {
    this.#timer = undefined;
    this.#missed = document.hidden;
    if (this.#missed) return;
    if (this.#busy) {
      this.ask(this.#apart);
      return;
    }
    this.#busy = true;
    const next = await this.#read(this.#abort.signal);
    this.#busy = false;
    this.#last = performance.now();
    if (next !== undefined) this.ask(next);
  }
}
