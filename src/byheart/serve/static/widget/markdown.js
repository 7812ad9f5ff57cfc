// Markdown as manuals use it, to DOM nodes. Text from outside only ever becomes text nodes and checked addresses:
// nothing is parsed as HTML, so there is nothing to escape.

import { markAt, unmarked } from "./receipts.js";

const MAX_DEPTH = 12;
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +|$)/;
const DELIMITER_ROW = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", ndash: "–", mdash: "—" };
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;

/** Return a fragment with the text's blocks. Links are resolved against `base`; null makes all links plain text. */
export function renderMarkdown(text, base) {
  const fragment = document.createDocumentFragment();
  const lines = text.replace(/\r\n?/g, "\n").split("\n").map(expandTabs);
  fragment.append(...blocks(lines, base, 0));
  levelHeadings(fragment);
  return fragment;
}

/** Return the absolute address of a link, or null where it is none that may be followed. */
export function safeAddress(href, base) {
  if (base === null) return null;
  let url;
  try {
    url = new URL(href, base);
  } catch {
    return null;
  }
  if (url.username || url.password) return null; // https://help.example.com@evil.example/ looks like what it is not
  return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
}

/** Make the topmost headings of a text <h3> (what holds the conversation has the two above), and skip no level. */
function levelHeadings(fragment) {
  const headings = [...fragment.querySelectorAll("h1, h2, h3, h4, h5, h6")];
  const levels = [...new Set(headings.map((node) => node.tagName))].sort();
  for (const node of headings) {
    const level = Math.min(6, 3 + levels.indexOf(node.tagName));
    node.replaceWith(element(`h${level}`, ...node.childNodes));
  }
}

function blocks(lines, base, depth) {
  if (depth > MAX_DEPTH) return [element("p", lines.join("\n"))];
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (!line.trim()) {
      at += 1;
      continue;
    }
    const read = FENCE.test(line) ? readFence
      : HEADING.test(line) ? readHeading
      : RULE.test(line) ? readRule
      : QUOTE.test(line) ? readQuote
      : ITEM.test(line) ? readList
      : isTable(lines, at) ? readTable
      : readParagraph;
    const [node, next] = read(lines, at, base, depth);
    nodes.push(node);
    at = next;
  }
  return nodes;
}

function readFence(lines, start) {
  const mark = FENCE.exec(lines[start])[1];
  const indent = leadingSpaces(lines[start]);
  let end = start + 1;
  while (end < lines.length && !closesFence(lines[end], mark)) end += 1;
  const code = lines.slice(start + 1, end).map((line) => line.slice(Math.min(indent, leadingSpaces(line))));
  return [element("pre", element("code", unmarked(code.join("\n")))), end + 1];
}

function closesFence(line, mark) {
  const found = FENCE.exec(line);
  return found !== null && found[1][0] === mark[0] && found[1].length >= mark.length && line.trim() === found[1];
}

function readHeading(lines, start, base) {
  const match = HEADING.exec(lines[start]);
  const text = lines[start].slice(match[0].length).replace(/\{#[^{}\s]*\}\s*$/, "").trim().replace(/ #+$/, "");
  return [element(`h${match[1].length}`, ...inline(text, base)), start + 1];
}

function readRule(_lines, start) {
  return [element("hr"), start + 1];
}

function readQuote(lines, start, base, depth) {
  let end = start;
  const inside = [];
  while (end < lines.length && (QUOTE.test(lines[end]) || (lines[end].trim() && !startsBlock(lines, end)))) {
    inside.push(lines[end].replace(QUOTE, ""));
    end += 1;
  }
  return [element("blockquote", ...blocks(inside, base, depth + 1)), end];
}

function readList(lines, start, base, depth) {
  const first = ITEM.exec(lines[start])[2];
  const kind = first.at(-1);
  const items = [];
  let isLoose = false;
  let at = start;
  while (at < lines.length) {
    const match = ITEM.exec(lines[at]);
    if (!match || match[2].at(-1) !== kind || RULE.test(lines[at])) break;
    const item = readItem(lines, at, match);
    items.push(item.lines);
    const goesOn = item.next < lines.length && ITEM.exec(lines[item.next])?.[2].at(-1) === kind;
    isLoose ||= item.hasGap || (item.endsBlank && goesOn);
    at = item.next;
  }
  const list = element(/\d/.test(first) ? "ol" : "ul");
  if (/\d/.test(first) && parseInt(first, 10) !== 1) list.setAttribute("start", String(parseInt(first, 10)));
  for (const inside of items) {
    const children = blocks(inside, base, depth + 1);
    list.append(element("li", ...children.flatMap((child) => (!isLoose && child.tagName === "P" ? [...child.childNodes] : [child]))));
  }
  return [list, at];
}

function readItem(lines, start, match) {
  const spaces = match[3].length > 4 ? 1 : Math.max(1, match[3].length);
  const indent = match[1].length + match[2].length + spaces;
  const inside = [lines[start].slice(indent)];
  let next = start + 1;
  let blanks = 0;
  let hasGap = false;
  for (; next < lines.length; next += 1) {
    const line = lines[next];
    if (!line.trim()) {
      blanks += 1;
      continue;
    }
    const belongs = leadingSpaces(line) >= indent;
    if (!belongs && (blanks > 0 || startsBlock(lines, next))) break;
    // a nested list may follow a blank line without making this one loose
    if (blanks > 0 && !ITEM.test(line.slice(indent))) hasGap = true;
    inside.push(...Array(blanks).fill(""), belongs ? line.slice(indent) : line);
    blanks = 0;
  }
  return { lines: inside, next, hasGap, endsBlank: blanks > 0 };
}

function isTable(lines, at) {
  return lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DELIMITER_ROW.test(lines[at + 1])
    && cells(lines[at]).length === cells(lines[at + 1]).length;
}

function readTable(lines, start, base) {
  const head = cells(lines[start]);
  const row = (tag, texts) => element("tr", ...head.map((_, index) => element(tag, ...inline(texts[index] ?? "", base))));
  const body = element("tbody");
  let at = start + 2;
  while (at < lines.length && lines[at].trim() && !startsBlock(lines, at)) {
    body.append(row("td", cells(lines[at])));
    at += 1;
  }
  const table = element("table", element("thead", row("th", head)), body);
  const frame = element("div", table);
  frame.className = "table";
  return [frame, at];
}

function cells(line) {
  const texts = [""];
  const trimmed = line.trim().replace(/^\|/, "");
  for (let at = 0; at < trimmed.length; at += 1) {
    if (trimmed[at] === "\\" && trimmed[at + 1] === "|") {
      texts[texts.length - 1] += "|";
      at += 1;
    } else if (trimmed[at] === "|") texts.push("");
    else texts[texts.length - 1] += trimmed[at];
  }
  if (texts.length > 1 && !texts.at(-1).trim()) texts.pop();
  return texts.map((text) => text.trim());
}

function readParagraph(lines, start, base) {
  let end = start + 1;
  while (end < lines.length && lines[end].trim() && !startsBlock(lines, end)) end += 1;
  const text = lines.slice(start, end).map((line) => line.trimStart()).join("\n").trimEnd();
  return [element("p", ...inline(text, base)), end];
}

function startsBlock(lines, at) {
  const line = lines[at];
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line) || isTable(lines, at);
}

/** Return the nodes of a line of text: emphasis, code, links. `missing` remembers marks that nothing closes. */
export function inline(text, base, depth = 0, missing = new Set()) {
  const nodes = [];
  let plain = "";
  const put = (node) => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
    nodes.push(node);
  };
  let at = 0;
  while (at < text.length) {
    const found = depth > MAX_DEPTH ? null : spanAt(text, at, base, depth, missing);
    if (found === null) {
      plain += text[at];
      at += 1;
    } else {
      if (typeof found.node === "string") plain += found.node;
      else put(found.node);
      at = found.end;
    }
  }
  if (plain) nodes.push(document.createTextNode(plain));
  return nodes;
}

function spanAt(text, at, base, depth, missing) {
  switch (text[at]) {
    case "\\":
      if (text[at + 1] === "\n") return { node: element("br"), end: at + 2 };
      return PUNCTUATION.test(text[at + 1] ?? "") ? { node: text[at + 1], end: at + 2 } : null;
    case " ":
      return text.startsWith("  \n", at) ? { node: element("br"), end: at + 3 } : null;
    case "`":
      return codeAt(text, at);
    case "!":
      return text[at + 1] === "[" ? linkAt(text, at + 1, base, depth, missing, true) : null;
    case "[":
      return linkAt(text, at, base, depth, missing, false);
    case "<":
      return angleAt(text, at, base);
    case "&":
      return entityAt(text, at);
    case "*":
    case "_":
    case "~":
      return emphasisAt(text, at, base, depth, missing);
    case "\uFDD0":
      return markAt(text, at);
    default:
      return addressAt(text, at, base);
  }
}

function codeAt(text, at) {
  const mark = run(text, at);
  let end = at + mark.length;
  for (;;) {
    end = text.indexOf(mark, end);
    if (end < 0) return { node: mark, end: at + mark.length };
    const closing = run(text, end);
    if (closing.length === mark.length) break;
    end += closing.length;
  }
  const code = unmarked(text.slice(at + mark.length, end)).replace(/\n/g, " ");
  const padded = code.startsWith(" ") && code.endsWith(" ") && code.trim();
  return { node: element("code", padded ? code.slice(1, -1) : code), end: end + mark.length };
}

function linkAt(text, at, base, depth, missing, isImage) {
  const close = closingBracket(text, at);
  if (close < 0 || text[close + 1] !== "(") return null;
  const target = /^\(\s*(?:<([^<>\n]*)>|([^\s()<]*(?:\([^\s()]*\)[^\s()]*)*))(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(
    text.slice(close + 1, close + 2100),
  );
  if (!target) return null;
  const end = close + 1 + target[0].length;
  const label = inline(text.slice(at + 1, close), null, depth + 1, new Set(missing)); // no link within a link
  const address = isImage ? null : safeAddress(target[1] ?? target[2], base);
  if (address) return { node: link(address, base, ...label), end };
  const span = element("span", ...label);
  if (isImage) span.className = "picture";
  return { node: span, end };
}

function closingBracket(text, at) {
  let open = 0;
  for (let index = at; index < Math.min(text.length, at + 1000); index += 1) {
    if (text[index] === "\\") index += 1;
    else if (text[index] === "[") open += 1;
    else if (text[index] === "]") {
      open -= 1;
      if (open === 0) return index;
    }
  }
  return -1;
}

function angleAt(text, at, base) {
  const rest = text.slice(at, at + 2100);
  const lineBreak = /^<br\s*\/?>/i.exec(rest);
  if (lineBreak) return { node: element("br"), end: at + lineBreak[0].length };
  const address = /^<(https?:\/\/[^\s<>]+)>/i.exec(rest);
  const safe = address && safeAddress(address[1], base);
  return safe ? { node: link(safe, base, address[1]), end: at + address[0].length } : null;
}

function addressAt(text, at, base) {
  if (base === null || text[at] !== "h" || WORD.test(text[at - 1] ?? "")) return null;
  const match = /^https?:\/\/[^\s<>"'`|*\uFDD0]+/.exec(text.slice(at, at + 2100));
  if (!match) return null;
  let address = match[0].replace(/[.,;:!?]+$/, "");
  if (address.endsWith(")") && !address.includes("(")) address = address.slice(0, -1);
  const safe = safeAddress(address, base);
  return safe ? { node: link(safe, base, address), end: at + address.length } : null;
}

function entityAt(text, at) {
  const match = /^&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(\w{2,8}));/.exec(text.slice(at, at + 12));
  if (!match) return null;
  const code = match[1] ? parseInt(match[1], 10) : match[2] ? parseInt(match[2], 16) : null;
  const isText = code !== null && code >= 32 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
  const character = isText ? String.fromCodePoint(code) : ENTITIES[match[3]];
  return character === undefined ? null : { node: character, end: at + match[0].length };
}

function emphasisAt(text, at, base, depth, missing) {
  const whole = run(text, at);
  const mark = whole.slice(0, whole[0] === "~" ? 2 : 3);
  const after = text[at + mark.length] ?? " ";
  const skip = { node: whole, end: at + whole.length };
  if (whole.length > mark.length || (mark[0] === "~" && mark.length < 2) || /\s/.test(after) || missing.has(mark)) return skip;
  if (mark[0] === "_" && WORD.test(text[at - 1] ?? "")) return skip;
  const end = closingMark(text, at + mark.length, mark);
  if (end < 0) {
    missing.add(mark);
    return skip;
  }
  let inner = inline(text.slice(at + mark.length, end), base, depth + 1, new Set());
  if (mark.length === 3) inner = [element("em", ...inner)];
  const tag = mark[0] === "~" ? "del" : mark.length === 1 ? "em" : "strong";
  return { node: element(tag, ...inner), end: end + mark.length };
}

function closingMark(text, from, mark) {
  for (let index = from; index < text.length; index += 1) {
    if (text[index] === "\\") index += 1;
    else if (text[index] === "`") index = codeAt(text, index).end - 1;
    else if (text[index] === mark[0]) {
      const closing = run(text, index);
      const isOutside = mark[0] !== "_" || !WORD.test(text[index + closing.length] ?? "");
      if (closing.length === mark.length && index > from && !/\s/.test(text[index - 1]) && isOutside) return index;
      if (closing.length === 3 && mark.length < 3 && index > from && !/\s/.test(text[index - 1])) return index + 3 - mark.length;
      index += closing.length - 1;
    }
  }
  return -1;
}

function run(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return text.slice(at, end);
}

/** Return a link. One that leaves the manual's site says where it goes, whatever its label claims. */
function link(address, base, ...label) {
  const anchor = element("a", ...label);
  anchor.href = address;
  anchor.target = "_blank";
  anchor.rel = "noopener noreferrer";
  const { host } = new URL(address);
  if (![base, safeAddress(anchor.textContent)].some((known) => known && new URL(known).host === host)) {
    const note = element("span", ` (${host})`);
    note.className = "host";
    anchor.append(note);
  }
  return anchor;
}

export function element(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

function leadingSpaces(line) {
  return line.length - line.trimStart().length;
}

function expandTabs(line) {
  return line.replace(/^[ \t]+/, (indent) => indent.replace(/\t/g, "    "));
}
