/** States that were read, by their address: a node answers 304 for one that has not changed. */

export class StateCache {
  /** @type {Map<string, {etag: string, text: string}>} */
  #kept = new Map();
  #size = 0;

  /** @param {number} most Bytes in memory, about: a character counts as two. 0: nothing is kept. */
  constructor(most) {
    this.most = most;
  }

  /** @param {string} path */
  get(path) {
    const found = this.#kept.get(path);
    if (found !== undefined) {
      this.#kept.delete(path);
      this.#kept.set(path, found);
    }
    return found;
  }

  /**
   * Keep an answer. Those that were not used for longest go.
   * @param {string} path
   * @param {string} etag
   * @param {string} text
   */
  put(path, etag, text) {
    this.#drop(path);
    if (2 * text.length > this.most) return;
    this.#kept.set(path, { etag, text });
    this.#size += 2 * text.length;
    for (const [oldest] of this.#kept) {
      if (this.#size <= this.most) return;
      this.#drop(oldest);
    }
  }

  /** @param {string} path */
  #drop(path) {
    const found = this.#kept.get(path);
    if (found !== undefined) this.#size -= 2 * found.text.length;
    this.#kept.delete(path);
  }
}
