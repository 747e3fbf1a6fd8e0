// Run by tests/service/test_page.py: node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { countByStatus, sample, select } from "../../txserf/service/page/filter.js";

function member(name, status, address, tags = {}) {
  const version = { min: 1, max: 5, current: 4 };
  return { name, status, address, port: 7946, tags, versions: { protocol: version, delegate: version } };
}

const all = [
  member("db-1", "alive", "10.0.0.10", { role: "db" }),
  member("db-2", "failed", "10.0.0.9", { role: "db", zone: "B" }),
  member("web-1", "left", "10.0.0.2", { role: "web" }),
  member("web-2", "alive", null, { role: "web", zone: "b" }),
];

const names = (choice) => select(all, choice).map(({ name }) => name).join(" ");

test("without a choice all are listed", () => assert.equal(names(), "db-1 db-2 web-1 web-2"));

test("statuses are alternatives", () => {
  assert.equal(names({ statuses: new Set(["failed"]) }), "db-2");
  assert.equal(names({ statuses: new Set(["failed", "left"]) }), "db-2 web-1");
});

test("a search looks at name, address and tags, in any case", () => {
  assert.equal(names({ search: "WEB" }), "web-1 web-2");
  assert.equal(names({ search: "10.0.0.9" }), "db-2");
  assert.equal(names({ search: "zone=b" }), "db-2 web-2");
});

test("all words of a search have to be found", () => assert.equal(names({ search: " web  zone=b " }), "web-2"));

test("a search for what looks like a pattern is one for its letters", () => assert.equal(names({ search: ".*" }), ""));

test("the list is sorted by any column, both ways, and by name where that is equal", () => {
  assert.equal(names({ descending: true }), "web-2 web-1 db-2 db-1");
  assert.equal(names({ column: "status" }), "db-1 web-2 web-1 db-2");
  assert.equal(names({ column: "tags" }), "db-1 db-2 web-1 web-2");
  assert.equal(names({ column: "version" }), "db-1 db-2 web-1 web-2");
});

test("addresses are sorted by their numbers", () => assert.equal(names({ column: "address" }), "web-2 web-1 db-2 db-1"));

test("the list of all members stays as it is", () => {
  select(all, { column: "status", descending: true });
  assert.equal(names(), "db-1 db-2 web-1 web-2");
});

test("members are counted by status, in the order of the statuses", () => {
  assert.deepEqual([...countByStatus(all)], [["alive", 2], ["left", 1], ["failed", 1]]);
});

test("a sample is all members where they are few", () => assert.equal(sample(all, 4), all));

test("a sample loses one for each member that comes", () => {
  const many = Array.from({ length: 1000 }, (_, index) => member(`node-${index}`, "alive", null));
  const before = new Set(sample(many.slice(0, 990), 100).map(({ name }) => name));
  const after = sample(many, 100);
  assert.equal(after.length, 100);
  assert.ok(after.filter(({ name }) => !before.has(name)).length <= 10);
});
