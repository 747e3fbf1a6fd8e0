// Run by tests/service/test_page.py: node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { align, classical, error, layOut, roundTrip, roundTrips } from "../../txserf/service/page/layout.js";

const place = (...vec) => ({ vec, height: 0, adjustment: 0 });

// Points that are the same each time.
function random(seed) {
  let value = seed;
  return () => (value = (value * 16807) % 2147483647) / 2147483647;
}

function points(number, dimensions, seed = 7) {
  const next = random(seed);
  return Array.from({ length: number }, () => place(...Array.from({ length: dimensions }, () => next() * 0.01)));
}

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

test("a round trip is the distance, both heights and both adjustments", () => {
  const a = { vec: [3, 0], height: 1, adjustment: 0.5 };
  const b = { vec: [0, 4], height: 2, adjustment: 0.25 };
  assert.equal(roundTrip(a, b), 8.75);
});

test("adjustments that would make a round trip negative do not count", () => {
  const a = { vec: [0, 0], height: 1, adjustment: -9 };
  assert.equal(roundTrip(a, { vec: [0, 0], height: 1, adjustment: 0 }), 2);
});

test("members of a plane lie as far apart as their round trips take", () => {
  const wanted = roundTrips(points(40, 2));
  assert.ok(error(wanted, classical(wanted)).stress < 1e-3);
  assert.ok(error(wanted, layOut(wanted)).stress < 1e-3);
});

test("the layout betters what classical scaling makes of eight dimensions", () => {
  const wanted = roundTrips(points(40, 8));
  const found = error(wanted, layOut(wanted));
  assert.ok(found.stress < error(wanted, classical(wanted)).stress);
  assert.ok(found.median < 0.3);
});

test("the same members lie where they lay", () => {
  const wanted = roundTrips(points(30, 8));
  const before = layOut(wanted);
  const after = layOut(wanted, before);
  const widest = Math.max(...wanted.flat());
  for (const [index, point] of after.entries()) assert.ok(distance(point, before[index]) < 0.05 * widest);
});

test("a member that comes moves the others little", () => {
  const all = points(31, 8);
  const before = layOut(roundTrips(all.slice(0, 30)));
  const after = layOut(roundTrips(all), [...before, null]);
  const widest = Math.max(...roundTrips(all).flat());
  const moves = before.map((point, index) => distance(point, after[index])).sort((a, b) => a - b);
  assert.ok(moves[15] < 0.1 * widest, `half of them move ${moves[15] / widest}`);
});

test("a layout that is turned, mirrored and shifted is brought back", () => {
  const onto = [[0, 0], [2, 0], [0, 1], [5, 5]];
  const moved = onto.map(([x, y]) => [-y + 7, -x - 3]); // turned and mirrored
  for (const [index, point] of align(moved, onto).entries()) assert.ok(distance(point, onto[index]) < 1e-12);
});

test("those without a place before do not count when a layout is brought back", () => {
  const onto = [[0, 0], [2, 0], [0, 1], null];
  const found = align([[1, 1], [3, 1], [1, 2], [9, 9]], onto);
  assert.deepEqual(found.map((point) => point.map((each) => Math.round(each) + 0)), [[0, 0], [2, 0], [0, 1], [8, 8]]);
});

test("few members have a layout too", () => {
  assert.deepEqual(layOut([]), []);
  assert.equal(layOut(roundTrips([place(1, 2)])).length, 1);
  const two = layOut(roundTrips([place(0, 0), place(3, 4)]));
  assert.ok(Math.abs(distance(...two) - 5) < 1e-6);
});

test("members at one place lie at one place, and have finite coordinates", () => {
  const found = layOut(roundTrips([place(1, 1), place(1, 1), place(1, 1), place(2, 1)]));
  assert.ok(found.flat().every(Number.isFinite));
  assert.ok(distance(found[0], found[1]) < 0.01);
});

test("the error is none where all distances are right", () => {
  assert.deepEqual(error([[0, 5], [5, 0]], [[0, 0], [3, 4]]), { stress: 0, median: 0 });
  assert.deepEqual(error([[0, 4], [4, 0]], [[0, 0], [3, 4]]), { stress: 0.25, median: 0.25 });
});
