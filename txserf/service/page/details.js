// All that is known of one member.

import { byId, make, setText } from "./dom.js";
import { address } from "./format.js";

export class Details {
  #name = null;
  #dialog = byId("details");
  #leave = byId("leave");

  /** @param forceLeave called with the name of a failed member that is to leave. */
  constructor(forceLeave) {
    byId("details-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => (this.#name = null));
    this.#leave.addEventListener("click", () => forceLeave(this.#name, byId("prune").checked));
  }

  /** Show a member. */
  show(member) {
    this.#name = member.name;
    setText(byId("leave-status"), "");
    this.#fill(member);
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  /** Show the member as it is now, if it is there still. */
  update(members) {
    if (this.#name === null) return;
    const member = members.find(({ name }) => name === this.#name);
    if (member) this.#fill(member);
    else this.#dialog.close();
  }

  #fill(member) {
    setText(byId("details-name"), member.name);
    const range = ({ min, max, current }) => `${current} (from ${min} to ${max})`;
    const pairs = [
      ["Status", member.status],
      ["Address", address(member) || "unknown"],
      ["Serf's protocol", range(member.versions.delegate)],
      ["Memberlist's protocol", range(member.versions.protocol)],
    ];
    byId("details-facts").replaceChildren(...pairs.map(pair));
    const names = Object.keys(member.tags).sort();
    byId("details-tags").replaceChildren(...names.map((name) => pair([name, member.tags[name]])));
    byId("details-untagged").hidden = names.length > 0;
    byId("leaving").hidden = member.status !== "failed" || !document.body.classList.contains("unlocked");
  }
}

function pair([name, value]) {
  return make("div", [make("dt", name), make("dd", value)]);
}
