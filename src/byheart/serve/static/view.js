// What a turn of the conversation looks like.

import { renderMarkdown, safeAddress } from "./markdown.js";

const ICONS = {
  page: "M6 2.5h5.5l3.5 3.5v11.5H6zM11.5 2.5V6H15",
  go: "M7 13l6-6M8 7h5v5",
  copy: "M7.5 7.5h8v8h-8zM12.5 7.5v-3h-8v8h3",
  check: "M4.5 10.5l3.5 3.5 7.5-8",
  retry: "M15.5 10a5.5 5.5 0 1 1-1.7-4M15.5 3.5v3h-3",
  unsure: "M10 6.5v4.2M10 13.6v.1M10 2.8a7.2 7.2 0 1 0 0 14.4 7.2 7.2 0 0 0 0-14.4z",
};

/** Return where a citation leads: its address, or the manual's page on this server. */
export function citationAddress(url) {
  if (/^https?:\/\//i.test(url)) return safeAddress(url, document.baseURI);
  const mark = url.lastIndexOf("#");
  const path = mark < 0 ? url : url.slice(0, mark);
  const anchor = mark < 0 ? "" : `#${encodeURIComponent(url.slice(mark + 1))}`;
  return safeAddress(`pages/${path.split("/").map(encodeURIComponent).join("/")}${anchor}`, document.baseURI);
}

/** Fill the element of a turn. `actions` holds the functions behind its buttons. */
export function drawTurn(node, turn, { isLast, shown, actions }) {
  node.className = `turn ${turn.role === "user" ? "user" : "bot"}`;
  const bubble = make("div", "bubble");
  if (turn.role === "user") {
    bubble.append(hiddenLabel("You: "), turn.text);
    node.replaceChildren(bubble);
    return;
  }
  const isUnsure = turn.state === "done" && Boolean(turn.sources?.abstained);
  node.classList.toggle("unsure", isUnsure);
  node.classList.toggle("failed", turn.state === "failed");
  bubble.append(hiddenLabel("Assistant: "));
  if (isUnsure) bubble.append(withIcon("p", "badge", "unsure", "Not sure"));
  const text = shown ?? turn.text;
  if (text) bubble.append(textOf(turn, text));
  else if (turn.state === "waiting") bubble.append(dots());
  if (turn.state === "failed") bubble.append(make("p", "problem", turn.problem));
  if (turn.state === "stopped") bubble.append(make("p", "note", "Stopped."));
  if (turn.state === "done" && turn.sources?.citations.length) bubble.append(sourcesOf(turn.sources));
  if (turn.state !== "waiting") bubble.append(buttonsOf(turn, isLast, actions));
  const mark = make("span", "mark", document.querySelector(".mark").textContent);
  mark.setAttribute("aria-hidden", "true");
  node.replaceChildren(mark, bubble);
}

/** Return a turn as plain text with its sources, to be pasted elsewhere. */
export function asText(turn) {
  const sources = (turn.sources?.citations ?? []).map((item) => `- ${pathOf(item).join(" › ")}: ${citationAddress(item.url) ?? item.url}`);
  return sources.length ? `${turn.text}\n\n${sources.join("\n")}` : turn.text;
}

export function make(tag, className, text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function textOf(turn, text) {
  const body = make("div", "text");
  // links in the manual's text are relative to the page they stand on, which is known once the sources are
  const page = turn.sources?.citations[0];
  const base = turn.state === "waiting" ? null : page ? citationAddress(page.url) : document.baseURI;
  body.append(renderMarkdown(text, base));
  return body;
}

function sourcesOf(sources) {
  const section = make("section", "sources");
  section.append(make("h3", "", sources.abstained ? "Nearest pages" : "Sources"));
  const list = make("ol");
  for (const item of sources.citations) {
    const path = pathOf(item);
    const address = citationAddress(item.url);
    const entry = make(address ? "a" : "div", "source");
    if (address) {
      entry.href = address;
      entry.target = "_blank";
      entry.rel = "noopener";
    }
    const label = make("span");
    label.append(make("b", "", path.at(-1)));
    if (path.length > 1) label.append(hiddenLabel(" in "), make("small", "", path.slice(0, -1).join(" › ")));
    entry.append(icon("page"), label);
    if (address) entry.append(icon("go", "go"));
    const row = make("li");
    row.append(entry);
    list.append(row);
  }
  section.append(list);
  return section;
}

function pathOf(citation) {
  const parts = citation.heading.split(" › ").filter(Boolean);
  return parts[0] === citation.title ? parts : [citation.title, ...parts];
}

function buttonsOf(turn, isLast, actions) {
  const row = make("div", "actions");
  if (turn.text) {
    const copy = button("copy", "Copy", () => actions.copy(turn, copy));
    row.append(copy);
  }
  if (isLast && turn.state !== "done") {
    const retry = button("retry", "Try again", actions.retry);
    if (turn.state === "failed") retry.className = "strong";
    row.append(retry);
  }
  return row;
}

/** Show for a moment that a button has done its work. */
export function confirmOn(node, text) {
  const before = [...node.childNodes];
  node.replaceChildren(icon("check"), make("span", "", text));
  setTimeout(() => node.replaceChildren(...before), 1600);
}

function button(iconName, label, onClick) {
  const node = withIcon("button", "", iconName, label);
  node.type = "button";
  node.addEventListener("click", onClick);
  return node;
}

function withIcon(tag, className, iconName, text) {
  const node = make(tag, className);
  node.append(icon(iconName), make("span", "", text));
  return node;
}

function icon(name, className = "") {
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

function dots() {
  const node = make("span", "dots");
  node.setAttribute("aria-hidden", "true");
  node.append(make("i"), make("i"), make("i"));
  return node;
}

function hiddenLabel(text) {
  return make("span", "hidden", text);
}
