// Run by tests/service/test_page.py: node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import * as format from "../../txserf/service/page/format.js";

const web = { name: "web-1", address: "10.0.0.4", port: 7946, status: "alive", tags: { zone: "a", role: "web" } };

test("markup stays as it is, for it goes in as text", () => {
  assert.equal(format.printable("<b>&amp;"), "<b>&amp;");
});

test("characters that hide or turn text are shown", () => {
  assert.equal(format.printable("a\nb\tc\u0000"), "a\\nb\\tc\\u0000");
  assert.equal(format.printable("evil\u202egpj"), "evil\\u202egpj");
  assert.equal(format.printable("a\u200bb"), "a\\u200bb");
});

test("a byte that is not UTF-8 is shown as one, and whole characters stay", () => {
  assert.equal(format.printable("\udcff\udc80 é 😀"), "\\xff\\x80 é 😀");
  assert.equal(format.printable("\ud800"), "\\ud800");
});

test("any name makes a part of a URL, its bytes as they were", () => {
  assert.equal(format.urlPart("web 1/&=é"), "web%201%2F%26%3D%C3%A9");
  assert.equal(format.urlPart("a\udcffb\udcfe"), "a%ffb%fe");
  assert.equal(format.urlPart("\ud800"), "%EF%BF%BD");
  assert.equal(format.urlPart(""), "");
});

test("an address has its port, and brackets where it needs them", () => {
  assert.equal(format.address(web), "10.0.0.4:7946");
  assert.equal(format.address({ ...web, address: "fe80::1" }), "[fe80::1]:7946");
  assert.equal(format.address({ ...web, address: null }), "");
});

test("tags are sorted", () => assert.equal(format.tags(web), "role=web, zone=a"));

test("a time of today has no day", () => {
  const now = new Date(2026, 10, 28, 17, 0, 0);
  assert.equal(format.time(new Date(2026, 10, 28, 9, 5, 3).toISOString(), now), "09:05:03");
  assert.equal(format.time(new Date(2026, 10, 2, 9, 5, 3).toISOString(), now), "2026-11-02 09:05:03");
  assert.equal(format.time("never", now), "");
});

test("durations are short", () => {
  const shown = [0.243, 1.04, 12, 180, 7200, 172800].map(format.duration);
  assert.deepEqual(shown, ["0.24 s", "1.0 s", "12 s", "3 min", "2.0 h", "2.0 d"]);
});

test("round trips are milliseconds", () => {
  assert.deepEqual([0.00042, 0.0015, 0.18].map(format.roundTrip), ["0.42 ms", "1.5 ms", "180 ms"]);
});

test("a number of things has their name", () => {
  assert.deepEqual([format.count(1, "member"), format.count(5000, "member")], ["1 member", "5,000 members"]);
});

test("each kind of record has its subject, and more", () => {
  const shown = (record) => Object.values(format.describe(record)).join(" | ");
  assert.equal(shown({ type: "user", name: "deploy", payload: "v2" }), "user | deploy | v2");
  assert.equal(shown({ type: "ack", node: "n1", query: "load" }), "ack | n1 | to load");
  assert.equal(shown({ type: "answer", node: "n1", query: "load", payload: "1" }), "answer | n1 | to load: 1");
  assert.equal(shown({ type: "gap", seconds: 1.2 }), "gap | 1.2 s | The agent was away. Events may have been missed.");
  assert.equal(shown({ type: "member-join", members: [web] }), "member-join | web-1 | 10.0.0.4:7946  role=web, zone=a");
  assert.equal(shown({ type: "member-join", members: [web, web] }), "member-join | 2 members | web-1, web-1");
});

test("a record of thousands of members names some", () => {
  const { subject, more } = format.describe({ type: "member-failed", members: Array(5000).fill(web) });
  assert.equal(subject, "5,000 members");
  assert.equal(more, `${Array(20).fill("web-1").join(", ")} …`);
});
