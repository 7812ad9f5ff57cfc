// What a turn of the conversation looks like.

import { button, hidden, icon, make, named, withIcon } from "./parts.js";
import { renderMarkdown } from "./markdown.js";
import { markReceipts } from "./receipts.js";
import { contactAddress, pathOf, sourceAddress } from "./transcript.js";

const REASONS = ["wrong", "incomplete", "unclear", "offTopic"];

/**
 * Fill the element of a turn. `view` holds `shown` (the part of the text to show, while it comes), `isLast`, `turns`,
 * `takesFeedback`, the `words`, the `settings`, the server's `base`, and the `actions` behind the buttons.
 */
export function drawTurn(node, turn, view) {
  const text = view.shown ?? turn.text;
  const body = node.querySelector(".text");
  if (body && turn.state === "waiting" && text) {
    body.replaceChildren(rendered(turn, text, null, view)); // nothing else changes while the answer comes
    return;
  }
  node.className = `turn ${turn.role === "user" ? "user" : "bot"}`;
  node.tabIndex = -1;
  node.replaceChildren(...(turn.role === "user" ? [question(turn, view)] : [markOf(view.settings), answer(turn, text, view)]));
}

/** Return the brand's mark: its logo, or the first letter of its title where there is none or it does not load. */
export function markOf(settings, className = "mark") {
  const mark = make("span", className);
  mark.setAttribute("aria-hidden", "true");
  const initial = [...settings.title.trim()][0]?.toUpperCase() ?? "?";
  if (!settings.logo) {
    mark.append(initial);
    return mark;
  }
  const image = make("img");
  image.alt = "";
  image.addEventListener("error", () => mark.replaceChildren(initial)); // a host page's policy may forbid pictures
  image.src = settings.logo;
  mark.classList.add("has-logo");
  mark.append(image);
  return mark;
}

function question(turn, { words }) {
  const bubble = make("div", "bubble", hidden(`${words.you}: `), turn.text);
  bubble.dir = "auto";
  return bubble;
}

function answer(turn, text, view) {
  const { words } = view;
  const isDone = turn.state === "done";
  const isUnsure = isDone && Boolean(turn.sources?.abstained);
  const bubble = make("div", `bubble${isUnsure ? " unsure" : ""}${turn.state === "failed" ? " failed" : ""}`);
  bubble.append(hidden(`${words.assistant}: `));
  if (isUnsure) bubble.append(withIcon("p", "badge", "unsure", words.unsure));
  if (text) bubble.append(textOf(turn, text, view));
  else if (turn.state === "waiting") bubble.append(waiting(words));
  if (turn.state === "failed") bubble.append(make("p", "problem", words[turn.problem] ?? words.failed));
  if (turn.problem === "locked" && view.isLast) bubble.append(keyForm(view));
  if (turn.state === "stopped") bubble.append(make("p", "note", words.stopped));
  if (isDone && turn.sources?.citations.length) bubble.append(sourcesOf(turn.sources, view));
  const wantsPerson = isUnsure || turn.sources?.escalate || turn.state === "failed" || turn.verdict === "down";
  const contact = view.settings.contact && wantsPerson && turn.state !== "waiting" ? [contactOf(isUnsure, view)] : [];
  if (isUnsure) bubble.append(...contact);
  if (turn.state !== "waiting") bubble.append(buttonsOf(turn, view));
  if (turn.verdict === "down" && !turn.isExplained && view.takesFeedback) bubble.append(reasonForm(turn, view));
  if (!isUnsure) bubble.append(...contact);
  if (isDone && view.isLast && turn.sources?.follow_ups.length) bubble.append(followUpsOf(turn, view));
  return bubble;
}

function textOf(turn, text, view) {
  const body = make("div", "text");
  body.dir = "auto";
  // links in the manual's text are relative to the page they stand on, which is known once the sources are
  const page = turn.sources?.citations[0];
  const base = turn.state === "waiting" ? null : (page && sourceAddress(page.url, view.base)) || view.base;
  body.append(rendered(turn, text, base, view));
  if (turn.state !== "waiting") for (const block of body.querySelectorAll("pre")) addCopyButton(block, view);
  for (const frame of body.querySelectorAll("pre, .table")) frame.tabIndex = 0; // they scroll: reachable by keyboard
  return body;
}

/** Return the text's nodes, each sentence that has a receipt with the number of its source. */
function rendered({ sources }, text, base, { words }) {
  const fragment = renderMarkdown(sources ? markReceipts(text, sources) : text, base);
  for (const mark of fragment.querySelectorAll(".cite")) {
    const { number } = mark.dataset; // the style shows it: what is selected and read out is the answer alone
    mark.href = `#${number}`;
    named(mark, `${words.source} ${number}: ${pathOf(sources.citations[number - 1]).at(-1)}`);
    mark.addEventListener("click", (event) => {
      event.preventDefault();
      mark.closest(".bubble").querySelectorAll(".source")[number - 1]?.focus(); // the list comes last
    });
  }
  return fragment;
}

function addCopyButton(block, { words, actions }) {
  const copy = button("copy", words.copy, () => actions.copy(block.textContent, copy), "mini");
  const frame = make("div", "code");
  block.replaceWith(frame);
  frame.append(block, copy);
}

function waiting(words) {
  const dots = make("span", "dots", make("i"), make("i"), make("i"));
  dots.setAttribute("aria-hidden", "true");
  return make("p", "waiting", dots, words.searching);
}

function sourcesOf(sources, { words, base }) {
  const list = make("ol");
  for (const [index, item] of sources.citations.entries()) {
    const path = pathOf(item);
    const address = sourceAddress(item.url, base);
    const label = make("span", "", make("b", "", make("bdi", "", path.at(-1))));
    if (path.length > 1) label.append(hidden(" – "), make("small", "", make("bdi", "", path.slice(0, -1).join(" › "))));
    const entry = make(address ? "a" : "div", "source", sources.receipts.length ? make("span", "number", `${index + 1}`) : icon("page"), label);
    if (address) {
      Object.assign(entry, { href: address, target: "_blank", rel: "noopener" });
      entry.append(icon("go", "go"), hidden(` (${words.newTab})`));
    }
    list.append(make("li", "", entry));
  }
  return make("section", "sources", make("h3", "", sources.abstained ? words.nearest : words.sources), list);
}

function contactOf(isUnsure, view) {
  const { words } = view;
  const link = withIcon("a", isUnsure ? "primary" : "secondary", "person", words.contact);
  const note = make("p", "note", words.contactNote);
  link.href = contactAddress(view.settings.contact, view.turns, view);
  link.target = "_blank";
  link.rel = "noopener";
  link.addEventListener("click", () => {
    view.actions.copyTranscript();
    note.textContent = words.contactCopied;
  });
  return make("section", "contact", make("h3", "", words.person), note, link);
}

function buttonsOf(turn, view) {
  const { words, actions } = view;
  const row = make("div", "actions");
  if (view.isLast && turn.state !== "done" && turn.problem !== "locked") {
    row.append(button("retry", words.retry, actions.retry, turn.state === "failed" ? "primary" : "mini"));
  }
  if (turn.text) {
    const copy = button("copy", words.copy, () => actions.copyTurn(turn, copy), "mini");
    row.append(copy);
  }
  if (turn.state === "done" && view.takesFeedback && turn.id) row.append(...thumbs(turn, view));
  if (turn.verdict && turn.isExplained) row.append(make("span", "note", words.thanks));
  return row;
}

function thumbs(turn, { words, actions }) {
  return [["up", words.good], ["down", words.bad]].map(([verdict, label]) => {
    const thumb = button("thumb", label, () => actions.judge(turn, verdict), `mini thumb ${verdict}`);
    thumb.setAttribute("aria-pressed", String(turn.verdict === verdict));
    return thumb;
  });
}

function reasonForm(turn, { words, actions }) {
  const legend = make("legend", "", words.why);
  const choices = REASONS.map((reason) => {
    const input = Object.assign(make("input"), { type: "radio", name: "reason", value: reason });
    return make("label", "choice", input, make("span", "", words[reason]));
  });
  const comment = Object.assign(make("textarea"), { rows: 2, maxLength: 1000, placeholder: words.comment });
  comment.setAttribute("aria-label", words.comment);
  const send = make("button", "primary", words.sendFeedback);
  const cancel = button("", words.cancel, () => actions.closeReasons(turn), "mini");
  const form = make("form", "reasons", make("fieldset", "", legend, ...choices), comment, make("div", "actions", send, cancel));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const reason = form.querySelector("input:checked")?.value ?? "";
    actions.judge(turn, "down", reason, comment.value.trim());
  });
  return form;
}

function keyForm({ words, actions }) {
  const input = Object.assign(make("input"), { type: "password", required: true, autocomplete: "off", placeholder: words.key });
  input.setAttribute("aria-label", words.key);
  const form = make("form", "key", input, make("button", "primary", words.send));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    actions.unlock(input.value.trim());
  });
  return form;
}

function followUpsOf(turn, { words, actions }) {
  const list = make("ul");
  for (const text of turn.sources.follow_ups) {
    list.append(make("li", "", button("next", make("bdi", "", text), () => actions.submit(text), "follow-up")));
  }
  return make("section", "related", make("h3", "", words.related), list);
}
