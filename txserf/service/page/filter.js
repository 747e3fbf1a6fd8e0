// Which members are listed, and in which order. Nothing here touches the page.

import { address, tags } from "./format.js";

/** The statuses of Serf, in the order in which they are shown. */
export const STATUSES = ["alive", "leaving", "left", "failed", "none"];

const KEYS = {
  name: (member) => member.name,
  status: (member) => STATUSES.indexOf(member.status),
  address: (member) => sortable(member.address ?? ""),
  tags,
  version: (member) => member.versions.protocol.current * 1000 + member.versions.delegate.current,
};

/** The columns that the members can be sorted by. */
export const COLUMNS = Object.keys(KEYS);

// Addresses sort by their numbers: 10.0.0.9 before 10.0.0.10.
function sortable(text) {
  return text.replace(/\d+/g, (digits) => digits.padStart(5, "0"));
}

/** Return what a search looks at: name, address and tags, in lower case. It is kept with the member. */
export function searchText(member) {
  member.searched ??= `${member.name}\n${address(member)}\n${tags(member)}`.toLowerCase();
  return member.searched;
}

/**
 * Return the members that match, sorted.
 *
 * @param members all of them, sorted by name.
 * @param statuses a Set of those to list; empty for any.
 * @param search words, of which a member has to have all.
 * @param column one of COLUMNS.
 * @param descending whether the last comes first.
 */
export function select(members, { statuses = new Set(), search = "", column = "name", descending = false } = {}) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = members.filter(
    (member) =>
      (statuses.size === 0 || statuses.has(member.status)) &&
      words.every((word) => searchText(member).includes(word)),
  );
  if (column !== "name") sortBy(found, KEYS[column]);
  return descending ? found.reverse() : found;
}

function sortBy(members, key) {
  const keys = new Map(members.map((member) => [member, key(member)]));
  members.sort((a, b) => {
    const [one, other] = [keys.get(a), keys.get(b)];
    return one < other ? -1 : one > other ? 1 : 0; // equal ones stay sorted by name
  });
}

/** Return how many members there are by status: all of STATUSES that occur, in their order. */
export function countByStatus(members) {
  const counts = new Map(STATUSES.map((status) => [status, 0]));
  for (const { status } of members) counts.set(status, (counts.get(status) ?? 0) + 1);
  return new Map([...counts].filter(([, number]) => number > 0));
}

/**
 * Return a part of the members that stays the same, as far as it can, when others come and go.
 *
 * @param size how many at most.
 */
export function sample(members, size) {
  if (members.length <= size) return members;
  const ranked = members.map((member) => [hash(member.name), member]);
  ranked.sort((a, b) => a[0] - b[0]);
  return ranked.slice(0, size).map(([, member]) => member);
}

// FNV-1a, and then mixed, for names that differ in their last letter only.
function hash(text) {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  return (value ^ (value >>> 13)) >>> 0;
}
