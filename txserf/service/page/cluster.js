// What the page knows of the cluster, and how it gets it: the members, the state of txserf, the events.

const POLL = 1000; // ms between two readings of the state: a lost agent is seen by it
const SLOW_POLL = 10_000; // ms between two readings of the members without an event: for repairs, which have none
const SOON = 60; // ms that the members are read behind an event, so that a burst costs one reading
const RETRY = 3000; // ms before the events are asked for again, where the browser has given up

/**
 * The cluster as the site shows it.
 *
 * @param told has these functions: `members(list)`, `state(state)` with null while txserf does not answer,
 *   `record(record)` for each record of the events.
 */
export class Cluster {
  /** The members, sorted by name, as of the last answer. */
  members = [];
  /** The answer of /state; null while there is none. */
  state = null;

  #told;
  #etag = null;
  #reading = null; // a timer, or a request under way
  #again = false; // whether members changed while they were read
  #cost = 0; // ms that the last reading took
  #readAt = 0;
  #lostAt = null;

  constructor(told) {
    this.#told = told;
  }

  /** Begin. */
  start() {
    this.#poll();
    this.#follow();
  }

  /** Read the members soon. */
  changed() {
    if (this.#reading !== null) {
      this.#again = true;
      return;
    }
    // A long list that changes all the time must not keep the browser from all else.
    const wait = Math.max(SOON, 5 * this.#cost - (performance.now() - this.#readAt));
    this.#reading = setTimeout(() => this.#readMembers(), wait);
  }

  async #readMembers() {
    this.#again = false;
    try {
      const headers = this.#etag === null ? {} : { "If-None-Match": this.#etag };
      const answer = await fetch("/members", { headers, cache: "no-store" });
      if (answer.status === 200) {
        const begun = performance.now();
        this.members = await answer.json();
        this.#etag = answer.headers.get("ETag");
        this.#told.members(this.members);
        this.#cost = performance.now() - begun;
      }
      this.#readAt = performance.now();
    } catch {
      // txserf does not answer, which the reading of its state tells
    }
    this.#reading = null;
    if (this.#again) this.changed();
  }

  async #poll() {
    const was = this.state;
    this.state = await this.#readState();
    this.#told.state(this.state);
    const known = this.state !== null && Object.keys(this.state.members).length > 0; // else /members is refused
    const isBack = this.state?.healthy && !was?.healthy;
    if (known && (isBack || performance.now() - this.#readAt > SLOW_POLL || this.#readAt === 0)) this.changed();
    setTimeout(() => this.#poll(), document.hidden ? 5 * POLL : POLL);
  }

  async #readState() {
    try {
      const answer = await fetch("/state", { cache: "no-store", signal: AbortSignal.timeout(5 * POLL) });
      return answer.ok ? await answer.json() : null;
    } catch {
      return null;
    }
  }

  #follow() {
    const events = new EventSource("/events");
    events.onopen = () => {
      if (this.#lostAt === null) return;
      const seconds = (Date.now() - this.#lostAt) / 1000;
      this.#lostAt = null;
      const more = "This page had no connection to txserf. Events may have been missed.";
      this.#take({ type: "gap", seconds, more, time: new Date().toISOString() });
    };
    events.onerror = () => {
      this.#lostAt ??= Date.now();
      if (events.readyState === EventSource.CLOSED) setTimeout(() => this.#follow(), RETRY);
    };
    events.onmessage = (message) => this.#take(JSON.parse(message.data));
    events.addEventListener("gap", (message) => this.#take(JSON.parse(message.data)));
  }

  #take(record) {
    this.#told.record(record);
    if (record.type === "gap" || record.type.startsWith("member-")) this.changed();
  }
}
