// The events as they come, the latest first.

import { byId, eachFrame, make, setText } from "./dom.js";
import { count, describe, time } from "./format.js";

const KEPT = 300; // records; older ones go
const TOGETHER = 10_000; // ms in which the acks of a query are one line: there may be thousands

export class Feed {
  #waiting = []; // records that are not shown yet
  #left = 0; // how many of those that waited had to go
  #paused = false;
  #acks = new Map(); // by query: the line of its acks
  #list = byId("feed");
  #button = byId("pause");
  #draw = eachFrame(() => this.#show());

  constructor() {
    this.#button.addEventListener("click", () => {
      this.#paused = !this.#paused;
      this.#button.setAttribute("aria-pressed", String(this.#paused));
      this.#draw();
    });
    byId("clear").addEventListener("click", () => {
      this.#list.replaceChildren();
      this.#acks.clear();
    });
  }

  /** Show a further record, or keep it while the feed is paused. */
  add(record) {
    this.#waiting.push(record);
    if (this.#waiting.length > 2 * KEPT) {
      this.#left += KEPT;
      this.#waiting.splice(0, KEPT);
    }
    this.#draw();
  }

  #show() {
    const waiting = this.#left + this.#waiting.length;
    setText(this.#button, this.#paused ? `Resume${waiting ? ` (${count(waiting, "new record")})` : ""}` : "Pause");
    byId("quiet").hidden = waiting > 0 || this.#list.children.length > 0;
    if (this.#paused || waiting === 0) return;
    const lines = this.#waiting.filter((record) => !this.#counted(record));
    const latest = lines.slice(-KEPT);
    const left = this.#left + lines.length - latest.length;
    const rows = latest.map((record) => record.row ?? row(record)).reverse();
    if (left > 0) rows.push(make("li.left", `${count(left, "more record")}, too many to show`));
    this.#list.prepend(...rows);
    while (this.#list.children.length > KEPT) this.#list.lastChild.remove();
    [this.#waiting, this.#left] = [[], 0];
  }

  // Whether it is an ack that the line of an earlier one counts.
  #counted(record) {
    if (record.type !== "ack") return false;
    const now = performance.now();
    const line = this.#acks.get(record.query);
    if (line && now - line.since < TOGETHER) {
      line.count++;
      setText(line.row.querySelector(".subject"), count(line.count, "member"));
      return true;
    }
    record.row = row(record);
    this.#acks.set(record.query, { row: record.row, since: now, count: 1 });
    for (const [query, { since }] of this.#acks) if (now - since >= TOGETHER) this.#acks.delete(query);
    return false;
  }
}

function row(record) {
  const { kind, subject, more } = describe(record);
  return make(`li.record.${kind}`, [
    make("time", time(record.time), { datetime: record.time }),
    make("span.kind", kind),
    make("b.subject", subject),
    " ",
    make("span.more", more),
  ]);
}
