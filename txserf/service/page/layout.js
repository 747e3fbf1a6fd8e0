// Places in a plane whose distances are close to given ones. Nothing here touches the page.
//
// Network coordinates have eight dimensions, a height and an adjustment, so a plane can't show all round trips as they
// are. Classical scaling gives the start; stress majorization (Gansner, Koren, North 2004) then makes the error small.
// Each distance counts relative to itself, so that near members are as true as distant ones.

const LEAST = 1e-6; // seconds: two members at one place
const SWEEPS = 200;
const ENOUGH = 1e-3; // part of the error by which ten sweeps have to better it

/** Return the estimated round trip between two coordinates in seconds, as Serf's agents compute it. */
export function roundTrip(a, b) {
  let sum = 0;
  for (let index = 0; index < a.vec.length; index++) sum += (a.vec[index] - b.vec[index]) ** 2;
  const distance = Math.sqrt(sum) + a.height + b.height;
  const adjusted = distance + a.adjustment + b.adjustment;
  return adjusted > 0 ? adjusted : distance;
}

/** Return all round trips between *places*: one row a place. */
export function roundTrips(places) {
  return places.map((one) => places.map((other) => (one === other ? 0 : Math.max(roundTrip(one, other), LEAST))));
}

/**
 * Return points whose distances are close to *wanted*.
 *
 * @param wanted a matrix of distances.
 * @param start points to begin from, null where one is new; those that are known stay where they are, as far as they can.
 */
export function layOut(wanted, start = []) {
  const known = wanted.flatMap((_, index) => (start[index] ? [index] : []));
  const fresh = majorize(wanted, classical(wanted));
  if (known.length < 3) return known.length ? align(fresh, start) : fresh;
  const warm = majorize(wanted, wanted.map((row, index) => start[index] ?? near(row, start, known)));
  // A start that no longer fits may keep a bad layout for ever.
  const points = stressOf(wanted, fresh) < 0.9 * stressOf(wanted, warm) ? fresh : warm;
  return align(points, start);
}

// A new point begins between the known ones, the nearest of which count most.
function near(row, start, known) {
  let [x, y, sum] = [0, 0, 0];
  for (const index of known) {
    const weight = row[index] ** -2;
    x += weight * start[index][0];
    y += weight * start[index][1];
    sum += weight;
  }
  return [x / sum, y / sum];
}

/** Classical scaling: the two main axes of the points that would have these distances. */
export function classical(wanted) {
  const size = wanted.length;
  const squares = wanted.map((row) => row.map((value) => value * value));
  const means = squares.map((row) => row.reduce((sum, value) => sum + value, 0) / size);
  const mean = means.reduce((sum, value) => sum + value, 0) / size;
  const centred = squares.map((row, i) => row.map((value, j) => -(value - means[i] - means[j] + mean) / 2));
  const xs = mainAxis(centred);
  const ys = mainAxis(centred, xs);
  return xs.map((x, index) => [x, ys[index]]);
}

// Power iteration for the axis of the largest eigenvalue, or, given that axis, of the next one.
function mainAxis(matrix, first) {
  let axis = matrix.map((_, index) => Math.sin(index * 12.9898 + 1)); // the same each time
  let value = 0;
  for (let round = 0; round < 60; round++) {
    const next = matrix.map((row) => dot(row, axis));
    if (first) {
      const part = dot(first, axis);
      for (let index = 0; index < next.length; index++) next[index] -= part * first[index];
    }
    value = Math.sqrt(dot(next, next));
    if (value === 0) return axis.map(() => 0);
    axis = next.map((each) => each / value);
  }
  return axis.map((each) => each * Math.sqrt(value));
}

function dot(a, b) {
  return a.reduce((sum, value, index) => sum + value * b[index], 0);
}

/** Move points, one after the other, to where their distances fit best, until that betters little. */
export function majorize(wanted, start) {
  const points = start.map(([x, y], index) => [x + jitter(index), y + jitter(index + 0.5)]);
  let before = Infinity;
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    for (let index = 0; index < points.length; index++) points[index] = better(points, index, wanted[index]);
    if (sweep % 10 !== 9) continue;
    const now = stressOf(wanted, points);
    if (before - now < ENOUGH * before) break;
    before = now;
  }
  return points;
}

// Two points at one place could not be parted.
function jitter(number) {
  return 1e-9 * Math.sin(number * 78.233);
}

function better(points, index, row) {
  const [x, y] = points[index];
  let [sumX, sumY, sum] = [0, 0, 0];
  for (let other = 0; other < points.length; other++) {
    if (other === index) continue;
    const [dx, dy] = [x - points[other][0], y - points[other][1]];
    const distance = Math.sqrt(dx * dx + dy * dy) || LEAST;
    const weight = 1 / (row[other] * row[other]);
    sumX += weight * (points[other][0] + (row[other] * dx) / distance);
    sumY += weight * (points[other][1] + (row[other] * dy) / distance);
    sum += weight;
  }
  return sum === 0 ? [x, y] : [sumX / sum, sumY / sum];
}

/**
 * Turn, mirror and shift points so that they lie as near as they can to where they were.
 *
 * @param onto where they were; null for a new one.
 */
export function align(points, onto) {
  const known = points.flatMap((_, index) => (onto[index] ? [index] : []));
  if (known.length === 0) return points;
  const from = middle(points, known);
  const to = middle(onto, known);
  const fits = [1, -1].map((mirror) => {
    let [along, across] = [0, 0];
    for (const index of known) {
      const [px, py] = [points[index][0] - from[0], mirror * (points[index][1] - from[1])];
      const [qx, qy] = [onto[index][0] - to[0], onto[index][1] - to[1]];
      along += px * qx + py * qy;
      across += px * qy - py * qx;
    }
    return { mirror, angle: Math.atan2(across, along), fit: Math.hypot(along, across) };
  });
  const { mirror, angle } = fits[0].fit >= fits[1].fit ? fits[0] : fits[1];
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return points.map(([x, y]) => {
    const [px, py] = [x - from[0], mirror * (y - from[1])];
    return [to[0] + cos * px - sin * py, to[1] + sin * px + cos * py];
  });
}

function middle(points, indices) {
  const sum = (axis) => indices.reduce((total, index) => total + points[index][axis], 0) / indices.length;
  return [sum(0), sum(1)];
}

/**
 * Return how far the distances of *points* are from *wanted*.
 *
 * `stress` is the root of the mean square of the relative errors, `median` is the median of the relative errors.
 */
export function error(wanted, points) {
  const errors = [];
  eachPair(wanted, points, (part) => errors.push(part));
  errors.sort((a, b) => a - b);
  return { stress: stressOf(wanted, points), median: errors[errors.length >> 1] ?? 0 };
}

function stressOf(wanted, points) {
  let [squares, pairs] = [0, 0];
  eachPair(wanted, points, (part) => {
    squares += part * part;
    pairs++;
  });
  return Math.sqrt(squares / (pairs || 1));
}

// Call *take* with the relative error of each distance.
function eachPair(wanted, points, take) {
  for (let i = 0; i < points.length; i++) {
    const [[x, y], row] = [points[i], wanted[i]];
    for (let j = i + 1; j < points.length; j++) {
      const [dx, dy] = [points[j][0] - x, points[j][1] - y];
      take(Math.abs(Math.sqrt(dx * dx + dy * dy) - row[j]) / row[j]);
    }
  }
}
