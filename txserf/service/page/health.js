// The state of txserf itself, and the banner while its agent is away.

import { byId, make, setText } from "./dom.js";
import { duration, time } from "./format.js";

const BACK = 15_000; // ms for which the banner says that the agent is back

const ROWS = [
  ["Agent", (state) => state.agent ?? "none"],
  ["Since", (state) => time(state.since)],
  ["Agents there are", (state) => state.agents.join(", ")],
  ["Connections", (state) => state.connections],
  ["Failovers", (state) => state.failovers],
  ["Gaps", (state) => state.gaps],
  ["Dropped events", (state) => state.dropped],
  ["Unreadable records", (state) => state.unreadable],
  ["Members out of date", (state) => (state.stale ? "maybe" : "no")],
  ["Repairs", (state) => state.repairs],
  ["Readers of events", (state) => state.readers],
  ["Readers cut off", (state) => state.cut_off],
  ["Running since", (state) => time(state.started)],
  ["Version", (state) => state.txserf ?? "not installed"],
];

// Numbers that tell of trouble where they are not 0.
const TROUBLE = new Set(["Dropped events", "Unreadable records", "Readers cut off"]);

export class Health {
  #values = new Map();
  #troubledSince = null;
  #was = "starting";
  #hiding = 0;

  constructor() {
    for (const [name] of ROWS) {
      const value = make("dd", "–");
      this.#values.set(name, value);
      byId("state").append(make("div", [make("dt", name), value]));
    }
  }

  /** Show another state; null: txserf does not answer. */
  update(state) {
    const how = state === null ? "lost" : state.healthy ? "healthy" : "away";
    const light = byId("light");
    light.dataset.how = how;
    setText(light, { lost: "txserf does not answer", away: "no agent", healthy: `connected to ${state?.agent}` }[how]);
    if (state !== null) {
      for (const [name, value] of ROWS) {
        const element = this.#values.get(name);
        setText(element, value(state));
        element.classList.toggle("trouble", TROUBLE.has(name) && value(state) > 0);
      }
    }
    this.#tell(how, state);
    this.#was = how;
  }

  #tell(how, state) {
    if (how === "healthy") {
      if (this.#troubledSince === null) return;
      const away = duration((Date.now() - this.#troubledSince) / 1000);
      const back = this.#was === "lost" ? "txserf answers again" : "The agent is back";
      this.#banner("back", `${back}, after ${away}. Events may have been missed; the members were read anew.`);
      this.#troubledSince = null;
      this.#hiding = setTimeout(() => this.#banner("none", ""), BACK);
      return;
    }
    clearTimeout(this.#hiding);
    this.#troubledSince ??= how === "away" ? new Date(state.since).getTime() : Date.now();
    const since = time(new Date(this.#troubledSince).toISOString());
    if (how === "lost") this.#banner("lost", `txserf does not answer since ${since}. This page shows what it knew then.`);
    else this.#banner("away", `The agent is away since ${since}: ${state.reason.replace(/\.+$/, "")}. The members are those that were last known.`);
  }

  #banner(how, text) {
    const banner = byId("banner");
    banner.dataset.how = how;
    setText(banner, text);
  }
}
