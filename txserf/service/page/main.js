// The page: what comes from the site goes to its parts.

import { Actions } from "./actions.js";
import { Cluster } from "./cluster.js";
import { Details } from "./details.js";
import { Feed } from "./feed.js";
import { Health } from "./health.js";
import { NetworkMap } from "./map.js";
import { MemberTable } from "./table.js";

const actions = new Actions();
const details = new Details((name, prune) => actions.forceLeave(name, prune));
const table = new MemberTable((member) => details.show(member));
const feed = new Feed();
const health = new Health();
const map = new NetworkMap();

const cluster = new Cluster({
  members(members) {
    table.update(members);
    details.update(members);
    map.update(members);
  },
  state(state) {
    health.update(state);
    actions.update(state);
  },
  record: (record) => feed.add(record),
});
cluster.start();
