// The list of members. Only the rows that can be seen are elements, so that it is quick with thousands.

import { byId, eachFrame, make, setText } from "./dom.js";
import { COLUMNS, STATUSES, countByStatus, select } from "./filter.js";
import { address, count, tags, version } from "./format.js";

const SPARE = 6; // rows above and below those that can be seen
const CELLS = { name: (m) => m.name, status: (m) => m.status, address, tags, version };

export class MemberTable {
  #members = [];
  #shown = [];
  #known = false; // whether the members came at all
  #rows = []; // elements, which are used again
  #choice = { statuses: new Set(), search: "", column: "name", descending: false };
  #current = null; // the name of the member that the keyboard is on
  #view = byId("rows");
  #space = byId("space");
  #grid = byId("members-table");
  #height = 34; // px of a row
  #seen = 0; // px of the view
  #draw = eachFrame(() => this.#show());
  #picked;

  /** @param picked called with a member that a reader wants to know more about. */
  constructor(picked) {
    this.#picked = picked;
    this.#view.addEventListener("scroll", this.#draw, { passive: true });
    this.#grid.addEventListener("keydown", (event) => this.#key(event));
    this.#grid.addEventListener("focus", () => this.#move(this.#index));
    this.#space.addEventListener("click", (event) => this.#click(event));
    new ResizeObserver(() => this.#measure()).observe(this.#view);
    byId("search").addEventListener("input", (event) => this.#choose({ search: event.target.value }));
    for (const button of document.querySelectorAll("[data-column]")) {
      button.addEventListener("click", () => this.#sort(button.dataset.column));
    }
    for (const status of STATUSES) byId("statuses").append(this.#filter(status));
  }

  /** Show other members. */
  update(members) {
    this.#members = members;
    this.#known = true;
    const counts = countByStatus(members);
    for (const button of byId("statuses").children) {
      const number = counts.get(button.dataset.status) ?? 0;
      setText(button.lastChild, number.toLocaleString("en"));
      button.hidden = number === 0 && button.getAttribute("aria-pressed") !== "true";
    }
    this.#choose({});
  }

  #filter(status) {
    const parts = [make(`span.dot.${status}`), `${status} `, make("b", "0")];
    const button = make("button.chip", parts, { type: "button", "aria-pressed": "false", "data-status": status });
    button.hidden = true;
    button.addEventListener("click", () => {
      const { statuses } = this.#choice;
      if (!statuses.delete(status)) statuses.add(status);
      button.setAttribute("aria-pressed", String(statuses.has(status)));
      this.#choose({});
    });
    return button;
  }

  #sort(column) {
    const descending = this.#choice.column === column && !this.#choice.descending;
    this.#choose({ column, descending });
    for (const name of COLUMNS) {
      const order = name !== column ? "none" : descending ? "descending" : "ascending";
      byId(`column-${name}`).setAttribute("aria-sort", order);
    }
  }

  #choose(choice) {
    Object.assign(this.#choice, choice);
    this.#shown = select(this.#members, this.#choice);
    const all = count(this.#members.length, "member");
    const part = `${this.#shown.length.toLocaleString("en")} of ${all}`;
    setText(byId("found"), this.#shown.length === this.#members.length ? all : part);
    byId("nobody").hidden = this.#shown.length > 0;
    setText(byId("nobody"), this.#known ? "No member matches." : "The members are not known yet.");
    this.#grid.setAttribute("aria-rowcount", String(this.#shown.length + 1));
    this.#draw();
  }

  // What would make the browser lay out the page, asked for once and not at each frame.
  #measure() {
    this.#height = Number.parseFloat(getComputedStyle(this.#view).getPropertyValue("--row"));
    this.#seen = this.#view.clientHeight;
    this.#draw();
  }

  #show() {
    const [height, top] = [this.#height, this.#view.scrollTop];
    this.#space.style.height = `${height * this.#shown.length}px`;
    const first = Math.max(0, Math.floor(top / height) - SPARE);
    const last = Math.min(this.#shown.length, Math.ceil((top + this.#seen) / height) + SPARE);
    while (this.#rows.length < last - first) this.#addRow();
    // A row keeps its place while it can be seen: the member at index i is always in the row i modulo their number.
    const used = new Set();
    for (let index = first; index < last; index++) {
      const row = this.#rows[index % this.#rows.length];
      used.add(row);
      this.#fill(row, index, height);
    }
    for (const row of this.#rows) row.element.hidden = !used.has(row);
    const current = this.#rows.find((row) => used.has(row) && row.member.name === this.#current);
    if (current) this.#grid.setAttribute("aria-activedescendant", current.element.id);
    else this.#grid.removeAttribute("aria-activedescendant");
  }

  #addRow() {
    const cells = COLUMNS.map((name) => make(`div.cell.${name}`, [], { role: "gridcell" }));
    const text = make("span");
    const dot = make("span.dot");
    cells[COLUMNS.indexOf("status")].append(dot, text);
    const element = make("div.row", cells, { role: "row", id: `row-${this.#rows.length}` });
    this.#space.append(element);
    this.#rows.push({ element, dot, text, cells, member: null, index: -1 });
  }

  #fill(row, index, height) {
    const member = this.#shown[index];
    row.element.classList.toggle("current", member.name === this.#current);
    if (row.member === member && row.index === index && row.height === height) return;
    Object.assign(row, { member, index, height });
    row.element.style.transform = `translateY(${index * height}px)`;
    row.element.setAttribute("aria-rowindex", String(index + 2));
    row.element.dataset.status = member.status;
    COLUMNS.forEach((name, column) => {
      if (name === "status") setText(row.text, member.status);
      else setText(row.cells[column], CELLS[name](member));
    });
    row.dot.className = `dot ${member.status}`;
  }

  // -- the keyboard and the mouse

  get #index() {
    return this.#shown.findIndex((member) => member.name === this.#current);
  }

  #key(event) {
    if (event.target !== this.#grid) return; // it is a button's own
    const page = Math.max(1, Math.floor(this.#seen / this.#height) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === "Enter" || event.key === " ") this.#pick(this.#index);
    else if (event.key in steps) this.#move(this.#index + steps[event.key]);
    else return;
    event.preventDefault();
  }

  #move(index) {
    const to = Math.min(Math.max(index, 0), this.#shown.length - 1);
    if (to < 0) return;
    this.#current = this.#shown[to].name;
    const [height, view] = [this.#height, this.#view];
    view.scrollTop = Math.min(view.scrollTop, to * height);
    view.scrollTop = Math.max(view.scrollTop, (to + 1) * height - this.#seen);
    this.#draw();
  }

  #click(event) {
    const row = this.#rows.find(({ element }) => element.contains(event.target));
    if (!row) return;
    this.#current = row.member.name;
    this.#draw();
    this.#pick(row.index);
  }

  #pick(index) {
    if (this.#shown[index]) this.#picked(this.#shown[index]);
  }
}
