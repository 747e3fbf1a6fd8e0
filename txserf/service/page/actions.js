// What changes the cluster, for a reader who has the token. It is kept in this page alone, until that is closed.

import { byId, make, setText } from "./dom.js";
import { count } from "./format.js";
import { readEvents } from "./sse.js";

export class Actions {
  #token = null;
  #asking = null; // ends the answers to a query

  constructor() {
    this.#on("unlock", () => this.#unlock(byId("token").value.trim()));
    byId("lock").addEventListener("click", () => this.#unlock(""));
    this.#on("send-event", (form) => this.#sendEvent(form));
    this.#on("ask-query", (form) => this.#askQuery(form));
    byId("stop-query").addEventListener("click", () => this.#asking?.abort());
  }

  /** Say whether the site has a token at all. */
  update(state) {
    if (state === null) return;
    byId("actions-off").hidden = state.actions;
    byId("unlock").hidden = !state.actions || this.#token !== null;
  }

  /** Let a failed member leave. */
  async forceLeave(node, prune) {
    const status = byId("leave-status");
    await this.#report(status, async () => {
      await this.#post("/force-leave", { node, prune });
      return "The agent was told that it left.";
    });
  }

  #on(id, submitted) {
    byId(id).addEventListener("submit", (event) => {
      event.preventDefault();
      submitted(event.target);
    });
  }

  #unlock(token) {
    this.#token = token || null;
    byId("token").value = "";
    document.body.classList.toggle("unlocked", this.#token !== null);
    byId("unlock").hidden = this.#token !== null;
    byId("acting").hidden = this.#token === null;
    setText(byId("refused"), "");
    if (this.#token !== null) byId("event-name").focus();
  }

  async #sendEvent(form) {
    const { name, payload, coalesce } = form.elements;
    await this.#report(byId("event-status"), async () => {
      await this.#post("/event", { name: name.value, payload: payload.value, coalesce: coalesce.checked });
      return `${name.value} was sent.`;
    });
  }

  async #askQuery(form) {
    const { name, payload, nodes, timeout } = form.elements;
    const asked = { name: name.value, payload: payload.value };
    const names = nodes.value.split(/[\s,]+/).filter(Boolean);
    if (names.length > 0) asked.nodes = names;
    if (timeout.value !== "") asked.timeout = Number(timeout.value);
    const answers = new Answers();
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    byId("stop-query").hidden = false;
    await this.#report(byId("query-status"), async () => {
      const response = await this.#post("/query", asked, asking.signal);
      await readEvents(response, (kind, record) => answers.take(kind, record));
      return answers.text;
    });
    byId("stop-query").hidden = this.#asking === asking;
  }

  async #report(element, act) {
    element.classList.remove("failed");
    setText(element, "…");
    try {
      setText(element, await act());
    } catch (error) {
      element.classList.toggle("failed", error.name !== "AbortError");
      setText(element, error.name === "AbortError" ? "Stopped." : error.message);
    }
  }

  async #post(path, fields, signal) {
    const headers = { Authorization: `Bearer ${this.#token}`, "Content-Type": "application/json" };
    const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(fields), signal });
    if (response.ok) return response;
    const { error } = await response.json();
    if (response.status === 401) {
      this.#unlock("");
      setText(byId("refused"), error);
    }
    throw new Error(error);
  }
}

// The acks and answers to one query, as they come.
class Answers {
  text = "Nobody answered.";
  #acks = 0;
  #answers = 0;
  #list = byId("answers");

  constructor() {
    this.#list.replaceChildren();
  }

  take(kind, record) {
    if (kind === "error") throw new Error(record.error);
    if (kind === "result") {
      const missing = record.missing.length > 0 ? ` Missing: ${record.missing.join(", ")}.` : "";
      this.text = `${this.#counts}.${record.complete ? " Complete." : ""}${missing}`;
      return;
    }
    if (record.type === "ack") this.#acks++;
    else this.#answers++;
    const parts = [make("span.kind", record.type), make("b.subject", record.node), " "];
    if (record.type === "answer") parts.push(make("span.more", record.payload));
    this.#list.append(make(`li.record.${record.type}`, parts));
    setText(byId("query-status"), `${this.#counts} so far …`);
  }

  get #counts() {
    return `${count(this.#acks, "ack")}, ${count(this.#answers, "answer")}`;
  }
}
