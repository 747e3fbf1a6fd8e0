// The map: members where their network coordinates put them.

import { byId, eachFrame, makeSvg, setText } from "./dom.js";
import { sample } from "./filter.js";
import { count, printable, roundTrip, urlPart } from "./format.js";
import { error, layOut, roundTrips } from "./layout.js";

const MOST = 150; // members that are shown: each is one request to the agent, and n² distances
const LONGEST = 12_000; // characters of a request
const EVERY = 30_000; // ms between two readings: the site keeps coordinates as long
const AGAIN = 3000; // ms before those are asked for again that have none yet: they have just joined
const TRIES = 5;
const MARGIN = 36;
const LETTER = 6.6; // px that a letter of a label takes, about

export class NetworkMap {
  #members = [];
  #statuses = new Map(); // by name
  #places = new Map(); // by name: the coordinate and the point
  #marks = new Map(); // by name: the elements
  #scale = 0; // px a second
  #names = ""; // those that were asked for last
  #timer = 0;
  #tries = 0;
  #isSeen = false;
  #svg = byId("map");
  #draw = eachFrame(() => this.#show());

  constructor() {
    new ResizeObserver(() => {
      this.#scale = 0;
      this.#draw();
    }).observe(this.#svg);
    new IntersectionObserver(([entry]) => {
      this.#isSeen = entry.isIntersecting;
      if (this.#isSeen) this.#plan(0);
    }).observe(this.#svg);
  }

  /** Show other members. */
  update(members) {
    this.#members = members;
    if (this.#wanted().map((member) => member.name).join("\n") !== this.#names) {
      this.#tries = 0;
      this.#plan(300);
    }
    this.#statuses = new Map(members.map(({ name, status }) => [name, status]));
    for (const [name, mark] of this.#marks) mark.group.dataset.status = this.#statuses.get(name) ?? "none";
  }

  // Members that left have no place any more.
  #wanted() {
    return sample(this.#members.filter(({ status }) => status !== "left" && status !== "none"), MOST);
  }

  #plan(delay) {
    clearTimeout(this.#timer);
    if (this.#isSeen) this.#timer = setTimeout(() => this.#read(), delay);
  }

  async #read() {
    const wanted = this.#wanted();
    if (wanted.length > 0 && !document.hidden) {
      this.#names = wanted.map((member) => member.name).join("\n");
      try {
        const answer = await fetch(`/coordinates?${query(wanted)}`, { cache: "no-store" });
        if (answer.ok) this.#place(await answer.json());
      } catch {
        // txserf does not answer; the places stay
      }
    }
    const lacking = wanted.some(({ name }) => !this.#places.has(name));
    this.#tries = lacking ? this.#tries + 1 : 0;
    this.#plan(lacking && this.#tries < TRIES ? AGAIN : EVERY);
  }

  #place(found) {
    // Coordinates of other dimensions are of agents that are configured differently.
    const size = found[0]?.vec.length;
    const known = found.filter(({ vec }) => vec.length === size);
    const wanted = roundTrips(known);
    const points = layOut(wanted, known.map(({ name }) => this.#places.get(name)?.point ?? null));
    this.#places = new Map(known.map((place, index) => [place.name, { ...place, point: points[index] }]));
    setText(byId("map-error"), this.#about(known.length, error(wanted, points)));
    this.#draw();
  }

  #about(shown, { median, stress }) {
    if (shown < 2) return shown ? "One member has a coordinate." : "No member has a coordinate yet.";
    const part = this.#members.length > MOST ? `A sample of ${shown} of ${count(this.#members.length, "member")}. ` : "";
    const percent = (number) => `${Math.round(100 * number)} %`;
    return `${part}Half of the distances are within ${percent(median)} of the estimated round trip (stress ${stress.toFixed(2)}).`;
  }

  #show() {
    const { clientWidth: width, clientHeight: height } = this.#svg;
    if (width === 0) return;
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const at = this.#projection(width, height);
    for (const [name, mark] of this.#marks) if (!this.#places.has(name)) this.#leave(name, mark);
    const boxes = [];
    for (const [name, place] of this.#places) {
      const [x, y] = at(place.point);
      boxes.push([x - 5, y - 5, x + 5, y + 5]);
      this.#mark(name, x, y);
    }
    for (const [name, place] of this.#places) label(this.#marks.get(name), at(place.point), boxes, width);
    this.#showScale(width, height);
  }

  // A little more or less room leaves the scale as it is, so that a member that comes moves no other.
  #projection(width, height) {
    const points = [...this.#places.values()].map(({ point }) => point);
    const range = (axis) => {
      const values = points.map((point) => point[axis]);
      return [Math.min(...values), Math.max(...values)];
    };
    const [[left, right], [top, bottom]] = points.length ? [range(0), range(1)] : [[0, 0], [0, 0]];
    const fits = Math.min(
      (width - 2 * MARGIN - 60) / Math.max(right - left, 1e-6),
      (height - 2 * MARGIN) / Math.max(bottom - top, 1e-6),
    );
    if (this.#scale === 0 || this.#scale > fits || this.#scale < 0.6 * fits) this.#scale = fits * 0.95;
    const [x, y] = [(left + right) / 2, (top + bottom) / 2];
    return (point) => [width / 2 - 20 + (point[0] - x) * this.#scale, height / 2 + (point[1] - y) * this.#scale];
  }

  #mark(name, x, y) {
    let mark = this.#marks.get(name);
    if (!mark) {
      const group = makeSvg("g", { class: "place coming" });
      const title = makeSvg("title");
      const text = makeSvg("text", { dy: "0.35em" });
      group.append(title, makeSvg("circle", { r: 5 }), text);
      mark = { group, text, title };
      this.#marks.set(name, mark);
      setText(title, name);
      setText(text, printable(name).length > 20 ? `${printable(name).slice(0, 19)}…` : name);
      group.style.transform = `translate(${x}px, ${y}px)`;
      this.#svg.append(group);
      requestAnimationFrame(() => group.classList.remove("coming"));
    }
    mark.group.dataset.status = this.#statuses.get(name) ?? "none";
    mark.group.style.transform = `translate(${x}px, ${y}px)`; // the style sheet makes it move
  }

  #leave(name, { group }) {
    this.#marks.delete(name);
    group.classList.add("coming");
    setTimeout(() => group.remove(), 700);
  }

  #showScale(width, height) {
    const bar = byId("map-scale");
    bar.toggleAttribute("hidden", this.#places.size < 2);
    const exponent = 10 ** Math.floor(Math.log10(width / 4 / this.#scale));
    const seconds = [5, 2, 1].map((step) => step * exponent).find((each) => each * this.#scale <= width / 4) ?? exponent;
    const length = seconds * this.#scale;
    bar.firstElementChild.setAttribute("d", `M12 ${height - 16}v4h${length}v-4`);
    bar.lastElementChild.setAttribute("x", String(18 + length));
    bar.lastElementChild.setAttribute("y", String(height - 8));
    setText(bar.lastElementChild, roundTrip(seconds));
  }
}

function query(members) {
  let text = "status=alive&status=leaving&status=failed";
  for (const { name } of members) {
    const more = `&name=${urlPart(name)}`;
    if (text.length + more.length > LONGEST) break;
    text += more;
  }
  return text;
}

// The label of a member: right of it, left of it, or none where others are in the way; a pointer shows it then.
function label({ group, text }, [x, y], boxes, width) {
  const length = text.textContent.length * LETTER;
  const sides = [
    [x + 9, y - 8, x + 9 + length, y + 8],
    [x - 9 - length, y - 8, x - 9, y + 8],
  ];
  const isFree = (box) =>
    box[0] > 0 && box[2] < width && !boxes.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1]);
  const side = sides.findIndex(isFree);
  const left = side === 1 || (side === -1 && x > width / 2);
  text.setAttribute("x", left ? "-9" : "9");
  text.setAttribute("text-anchor", left ? "end" : "start");
  group.classList.toggle("crowded", side === -1);
  if (side !== -1) boxes.push(sides[side]);
}
