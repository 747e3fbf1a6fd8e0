// Values of the cluster as text for people. Nothing here touches the page.

// Characters that would not be seen, or that change the order of others.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
// Bytes that are not UTF-8 come as lone surrogates: "\udcff" is the byte 0xff.
const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Return a text in which each character can be seen. */
export function printable(text) {
  return String(text).replace(LONE, byte).replace(HIDDEN, escaped);
}

function byte(character) {
  const code = character.charCodeAt(0);
  return code >= 0xdc80 && code <= 0xdcff ? `\\x${(code - 0xdc00).toString(16)}` : escaped(character);
}

function escaped(character) {
  const simple = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
  return simple ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** Return a text as a part of a URL; a lone surrogate becomes the byte that it stands for. */
export function urlPart(text) {
  const lone = text.match(LONE) ?? [];
  const parts = text.split(LONE).map(encodeURIComponent);
  return parts.map((part, index) => (index < lone.length ? part + percent(lone[index]) : part)).join("");
}

function percent(character) {
  const code = character.charCodeAt(0);
  return code >= 0xdc80 && code <= 0xdcff ? `%${(code - 0xdc00).toString(16)}` : "%EF%BF%BD";
}

/** Return a member's address and port. */
export function address(member) {
  if (member.address === null) return "";
  return member.address.includes(":") ? `[${member.address}]:${member.port}` : `${member.address}:${member.port}`;
}

/** Return a member's tags, sorted: "role=web, zone=a". */
export function tags(member) {
  const names = Object.keys(member.tags).sort();
  return names.map((name) => `${name}=${member.tags[name]}`).join(", ");
}

/** Return the versions of the protocols that a member speaks now. */
export function version(member) {
  const { protocol, delegate } = member.versions;
  return `${protocol.current} / ${delegate.current}`;
}

/** Return a time in ISO 8601 as the hour, minute and second here; with the day where it is another than today. */
export function time(iso, now = new Date()) {
  const then = new Date(iso);
  if (Number.isNaN(then.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  const clock = [then.getHours(), then.getMinutes(), then.getSeconds()].map(two).join(":");
  if (then.toDateString() === now.toDateString()) return clock;
  return `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())} ${clock}`;
}

/** Return a duration: "0.24 s", "12 s", "3 min", "5 h", "2 d". */
export function duration(seconds) {
  const short = (number) => number.toFixed(number < 10 ? 1 : 0);
  if (seconds < 1) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${short(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return seconds < 86400 ? `${short(seconds / 3600)} h` : `${short(seconds / 86400)} d`;
}

/** Return a round trip: "0.42 ms", "180 ms". */
export function roundTrip(seconds) {
  const ms = seconds * 1000;
  return `${ms >= 10 ? ms.toFixed(0) : Number(ms.toPrecision(2))} ms`;
}

/** Return a number of things: "1 member", "1,204 members". */
export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** Return a record of the feed as its kind, its subject, and more about it. */
export function describe(record) {
  const kind = record.type;
  switch (kind) {
    case "user":
    case "query":
      return { kind, subject: record.name, more: record.payload };
    case "ack":
    case "answer":
      return { kind, subject: record.node, more: kind === "ack" ? `to ${record.query}` : `to ${record.query}: ${record.payload}` };
    case "gap":
      return { kind, subject: duration(record.seconds), more: record.more ?? "The agent was away. Events may have been missed." };
    default:
      return { kind, ...members(record.members ?? []) };
  }
}

function members(all) {
  if (all.length === 1) return { subject: all[0].name, more: [address(all[0]), tags(all[0])].filter(Boolean).join("  ") };
  const some = all.slice(0, 20).map((member) => member.name).join(", ");
  return { subject: count(all.length, "member"), more: all.length > 20 ? `${some} …` : some };
}
