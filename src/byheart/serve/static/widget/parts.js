// Small parts that views are made of. Text becomes text nodes; nothing is parsed as HTML.

import { element } from "./markdown.js";

const ICONS = {
  page: "M6 2.5h5.5L15 6v11.5H6zM11.5 2.5V6H15",
  go: "M7 13l6-6M8 7h5v5",
  next: "M5 4v5a3 3 0 0 0 3 3h7M12 9l3 3-3 3",
  copy: "M7.5 7.5h8v8h-8zM12.5 7.5v-3h-8v8h3",
  check: "M4.5 10.5l3.5 3.5 7.5-8",
  retry: "M15.5 10a5.5 5.5 0 1 1-1.7-4M15.5 3.5v3h-3",
  unsure: "M10 6.5v4.2M10 13.6v.1M10 2.8a7.2 7.2 0 1 0 0 14.4 7.2 7.2 0 0 0 0-14.4z",
  person: "M10 3.2a3.1 3.1 0 1 0 0 6.2 3.1 3.1 0 0 0 0-6.2zM3.8 16.8c.6-3 3-4.6 6.2-4.6s5.6 1.6 6.2 4.6",
  thumb: "M6.6 9v7.3M6.6 9l2.9-5.8c1.2 0 2 .9 2 2V8h3.5c1 0 1.7.9 1.5 1.8l-1 5c-.2.9-.9 1.5-1.8 1.5H6.6M6.6 9H3.6v7.3h3",
  plus: "M10 4.5v11M4.5 10h11",
  close: "M5.5 5.5l9 9M14.5 5.5l-9 9",
  chat: "M4.5 4h11A1.5 1.5 0 0 1 17 5.5v7a1.5 1.5 0 0 1-1.5 1.5H9.5L6 17v-3H4.5A1.5 1.5 0 0 1 3 12.5v-7A1.5 1.5 0 0 1 4.5 4zM7 7.8h6M7 10.4h4",
  down: "M10 4v12M4.5 10.5 10 16l5.5-5.5",
  send: "M10 16V4M4.5 9.5 10 4l5.5 5.5",
  stop: "M6 6h8v8H6z",
};

/** Return an element with a class and children: nodes, or text. */
export function make(tag, className = "", ...children) {
  const node = element(tag, ...children);
  if (className) node.className = className;
  return node;
}

/** Return text for screen readers alone. */
export function hidden(text) {
  return make("span", "hidden", text);
}

export function icon(name, className = "") {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  if (className) svg.setAttribute("class", className);
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

export function withIcon(tag, className, iconName, label) {
  return make(tag, className, icon(iconName), make("span", "", label));
}

export function button(iconName, label, onClick, className = "") {
  const node = iconName ? withIcon("button", className, iconName, label) : make("button", className, label);
  node.type = "button";
  node.addEventListener("click", onClick);
  return node;
}

/** Return a button that shows an icon alone. */
export function iconButton(iconName, label, onClick, className = "") {
  return named(button("", icon(iconName), onClick, className), label);
}

/** Give an element a name that is read out and shown as a tooltip. */
export function named(node, name) {
  node.title = name;
  node.setAttribute("aria-label", name);
  return node;
}

/** Show for a moment that a button has done its work. */
export function confirmOn(node, text) {
  if (node.dataset.confirms) return;
  const before = [...node.childNodes];
  node.dataset.confirms = "true";
  node.replaceChildren(icon("check"), make("span", "", text));
  setTimeout(() => {
    node.replaceChildren(...before);
    delete node.dataset.confirms;
  }, 1600);
}
