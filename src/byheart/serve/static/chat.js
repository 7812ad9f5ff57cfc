// The chat: the conversation and its life on the page.

import { ask } from "./client.js";
import { asText, confirmOn, drawTurn, make } from "./view.js";

const STORE = `byheart:${location.pathname}`; // of this tab: kept over reloads, gone when the tab is closed
const SENT_TURNS = 20;
const FRAME_MS = 24;

const $ = (id) => document.getElementById(id);
const scroll = $("scroll");
const question = $("question");

let turns = restore();
let nodes = [];
let running = null; // AbortController of the question being answered
let follows = true; // whether the page scrolls along with the answer

function start() {
  document.title = document.body.dataset.title;
  for (const text of JSON.parse(document.body.dataset.suggestions)) {
    const chip = make("button", "", text);
    chip.type = "button";
    chip.addEventListener("click", () => submit(text));
    $("suggestions").append(chip);
  }
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit(question.value);
  });
  question.addEventListener("input", fitField);
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit(question.value);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
  });
  $("stop").addEventListener("click", () => running?.abort());
  $("new").addEventListener("click", startAnew);
  for (const kind of ["wheel", "touchmove"]) scroll.addEventListener(kind, () => (follows = false), { passive: true });

  drawAll();
  scroll.scrollTop = scroll.scrollHeight;
  const linked = new URLSearchParams(location.search).get("q");
  if (linked?.trim()) {
    history.replaceState(null, "", location.pathname); // a reload must not ask again
    submit(linked.slice(0, question.maxLength));
  }
  if (matchMedia("(hover: hover)").matches) question.focus(); // on a phone this would open the keyboard
}

function submit(text) {
  if (running || !text.trim()) return;
  turns.push({ role: "user", text: text.trim() });
  question.value = "";
  fitField();
  answer();
}

function retry() {
  if (running || turns.at(-1)?.role !== "assistant") return;
  turns.pop();
  answer();
}

function startAnew() {
  running?.abort();
  running = null;
  turns = [];
  save();
  drawAll();
  $("announce").textContent = "";
  question.focus();
}

async function answer() {
  const conversation = turns;
  const messages = sentMessages();
  const turn = { role: "assistant", text: "", sources: null, state: "waiting", problem: "" };
  const controller = new AbortController();
  running = controller;
  turns.push(turn);
  follows = true;
  save();
  drawAll();
  const pace = reveal(turn, controller.signal);
  try {
    for await (const piece of ask(messages, controller.signal)) {
      turn.text += piece.text ?? "";
      turn.sources = piece.sources ?? turn.sources;
    }
    await pace.finished();
    turn.state = controller.signal.aborted ? "stopped" : "done";
  } catch (fault) {
    turn.state = controller.signal.aborted ? "stopped" : "failed";
    turn.problem = fault.message;
  }
  if (turn.state !== "done") turn.text = pace.shown();
  pace.end();
  if (turns !== conversation) return; // a new chat was started meanwhile
  running = null;
  save();
  drawAll();
  $("announce").textContent = announcement(turn);
}

/** Show the text word by word: answers come in one burst, which is hard to follow on the screen. */
function reveal(turn, signal) {
  let length = 0;
  let caughtUp = () => {};
  const step = () => {
    const left = turn.text.length - length;
    if (left > 0) {
      const next = turn.text.indexOf(" ", length + Math.max(4, Math.ceil(left / 14)));
      length = next < 0 ? turn.text.length : next;
      draw(turns.indexOf(turn), turn.text.slice(0, length));
    }
    if (length >= turn.text.length || signal.aborted) caughtUp();
  };
  const timer = setInterval(step, FRAME_MS);
  return {
    shown: () => turn.text.slice(0, length),
    finished: () => new Promise((resolve) => (caughtUp = resolve)),
    end: () => clearInterval(timer),
  };
}

function announcement(turn) {
  if (turn.state === "failed") return `${turn.problem} You can try again.`;
  if (turn.state === "stopped") return "Stopped.";
  const text = nodes.at(-1).querySelector(".text")?.textContent ?? "";
  const count = turn.sources?.citations.length ?? 0;
  const pages = turn.sources?.abstained ? "near pages" : "sources";
  return `${turn.sources?.abstained ? "Not sure. " : ""}${text}${count ? ` ${count} ${pages} below.` : ""}`;
}

function sentMessages() {
  return turns
    .filter((turn) => turn.role === "user" || turn.text)
    .slice(-SENT_TURNS)
    .map((turn) => ({ role: turn.role, content: turn.text }));
}

function drawAll() {
  while (nodes.length > turns.length) nodes.pop().remove();
  while (nodes.length < turns.length) {
    const node = make("article");
    $("messages").append(node);
    nodes.push(node);
  }
  turns.forEach((_, index) => draw(index));
  const isEmpty = turns.length === 0;
  $("welcome").hidden = !isEmpty;
  $("new").hidden = isEmpty;
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  fitField();
}

function draw(index, shown) {
  if (index < 0) return;
  const actions = { retry, copy };
  drawTurn(nodes[index], turns[index], { isLast: index === turns.length - 1, shown, actions });
  if (follows && index === turns.length - 1) {
    const asked = nodes[Math.max(0, index - 1)].offsetTop - scroll.offsetTop - 16;
    scroll.scrollTop = Math.min(scroll.scrollHeight, asked); // a long answer is read from its beginning
  }
}

async function copy(turn, node) {
  const text = asText(turn);
  try {
    await navigator.clipboard.writeText(text);
    confirmOn(node, "Copied");
  } catch {
    copyBySelection(text); // without https, browsers have no clipboard for scripts
    confirmOn(node, "Copied");
  }
}

function copyBySelection(text) {
  const area = make("textarea", "hidden");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

function fitField() {
  $("send").disabled = !question.value.trim();
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

function save() {
  try {
    sessionStorage.removeItem(STORE);
    sessionStorage.setItem(STORE, JSON.stringify(turns));
  } catch {
    // storage is full or forbidden: the chat goes on, and a reload starts a new one
  }
}

function restore() {
  let stored;
  try {
    stored = JSON.parse(sessionStorage.getItem(STORE) ?? "[]");
  } catch {
    return [];
  }
  const isTurn = (turn) => typeof turn?.text === "string" && (turn.role === "user" || turn.role === "assistant");
  if (!Array.isArray(stored) || !stored.every(isTurn)) return [];
  return stored.map((turn) => (turn.state === "waiting" ? { ...turn, state: "stopped" } : turn));
}

start();
