// Elements of the page. All text goes in as text: nothing here reads markup.

import { printable } from "./format.js";

/** Return the element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 *
 * @param kind its tag, with classes behind dots: "span.kind.gap".
 * @param content its text, made printable; or a list of children.
 * @param attributes further attributes.
 */
export function make(kind, content = [], attributes = {}) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  if (classes.length > 0) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (Array.isArray(content)) element.append(...content);
  else setText(element, content);
  return element;
}

/** Make an element of SVG. */
export function makeSvg(tag, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Set the text of an element, if it is another one. */
export function setText(element, text) {
  const shown = printable(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** Call a function once before the next frame, however often it is asked for. */
export function eachFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}
