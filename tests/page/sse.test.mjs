// Run by tests/service/test_page.py: node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { EventParser, readEvents } from "../../txserf/service/page/sse.js";

const sent = ':\n\ndata: {"type": "ack"}\n\nevent: result\ndata: {"complete": true}\n\n';
const taken = [["message", { type: "ack" }], ["result", { complete: true }]];

test("events are read, and comments left out", () => {
  const found = [];
  new EventParser((...event) => found.push(event)).feed(sent);
  assert.deepEqual(found, taken);
});

test("it does not matter where the pieces end", () => {
  const found = [];
  const parser = new EventParser((...event) => found.push(event));
  for (const letter of sent) parser.feed(letter);
  assert.deepEqual(found, taken);
});

test("an event that is not complete is not told", () => {
  const found = [];
  new EventParser((...event) => found.push(event)).feed(sent.slice(0, -1));
  assert.deepEqual(found, taken.slice(0, 1));
});

test("an answer is read to its end", async () => {
  const found = [];
  await readEvents(new Response(sent), (...event) => found.push(event));
  assert.deepEqual(found, taken);
});
