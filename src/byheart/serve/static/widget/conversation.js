// A conversation: its turns, the question that is being answered, and what of it is kept over reloads.

import { Problem, ask, sendFeedback } from "./client.js";

const SENT_TURNS = 20;
const FRAME_MS = 24;
const STATES = new Set(["done", "stopped", "failed"]);

export class Conversation {
  /**
   * `server` is {base, key}. `onChange(index, shown)` is called when a turn looks different (`shown`: the part of
   * its text to show), without an index when turns came or went; `onEnd(turn)` when an answer is over.
   */
  constructor(server, { onChange, onEnd }) {
    this.server = server;
    this.onChange = onChange;
    this.onEnd = onEnd;
    this.store = `byheart:${server.base}`; // of this tab: kept over reloads, gone when the tab is closed
    this.turns = restore(this.store);
    this.running = null; // AbortController of the question being answered
    this.takesFeedback = true; // until the server says otherwise
  }

  /** Ask a question. Returns whether it is being asked. */
  submit(text) {
    if (this.running || !text.trim()) return false;
    this.turns.push({ role: "user", text: text.trim() });
    this.answer();
    return true;
  }

  stop() {
    this.running?.abort();
  }

  /** Ask the last question again. */
  retry() {
    if (this.running || this.turns.at(-1)?.role !== "assistant") return;
    this.turns.pop();
    this.answer();
  }

  /** Forget everything. */
  clear() {
    this.running?.abort();
    this.running = null;
    this.turns = [];
    save(this.store, this.turns);
    this.onChange();
  }

  async answer() {
    const turns = this.turns;
    const messages = sentMessages(turns);
    const turn = { role: "assistant", text: "", sources: null, state: "waiting", problem: "", id: "", verdict: "" };
    const controller = new AbortController();
    this.running = controller;
    turns.push(turn);
    save(this.store, turns);
    this.onChange();
    const pace = reveal(turn, controller.signal, (shown) => this.turns === turns && this.onChange(turns.length - 1, shown));
    try {
      for await (const piece of ask(this.server, messages, controller.signal)) {
        turn.text += piece.text ?? "";
        turn.id = piece.id ?? turn.id;
        turn.sources = cleanSources(piece.sources) ?? turn.sources;
        pace.hurry();
      }
      await pace.finished();
      turn.state = controller.signal.aborted ? "stopped" : "done";
    } catch (fault) {
      if (!(fault instanceof Problem) && !controller.signal.aborted) console.error(fault);
      turn.state = controller.signal.aborted ? "stopped" : "failed";
      turn.problem = fault instanceof Problem ? fault.problem : "failed";
    }
    if (turn.state !== "done") turn.text = pace.shown();
    pace.end();
    if (this.turns !== turns) return; // a new chat was started meanwhile
    this.running = null;
    save(this.store, turns);
    this.onChange();
    this.onEnd(turn);
  }

  /** Send what a customer thinks of an answer; where the server takes no feedback, stop asking for it. */
  async judge(turn, verdict, reason = "", comment = "") {
    turn.verdict = verdict;
    turn.isExplained = verdict === "up" || Boolean(reason || comment);
    try {
      this.takesFeedback = await sendFeedback(this.server, { completion_id: turn.id, verdict, reason, comment });
    } catch (fault) {
      if (!(fault instanceof Problem)) throw fault;
      turn.verdict = ""; // not sent: the thumbs stay, to be pressed again
    }
    save(this.store, this.turns);
    this.onChange();
  }
}

/** Return what the server said beside an answer, as far as it has the right form; null where it has none. */
export function cleanSources(sources) {
  if (!Array.isArray(sources?.citations)) return null;
  const isText = (value) => typeof value === "string";
  const list = (name, isRight) => (Array.isArray(sources[name]) ? sources[name].filter(isRight) : []);
  return {
    citations: list("citations", (item) => [item?.title, item?.heading, item?.url].every(isText)),
    receipts: list("receipts", (item) => [item?.text, item?.url].every(isText)),
    abstained: Boolean(sources.abstained),
    escalate: Boolean(sources.escalate),
    follow_ups: list("follow_ups", isText),
  };
}

/** Show the text word by word: answers come in one burst, which is hard to follow on the screen. */
function reveal(turn, signal, show) {
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let length = 0;
  let caughtUp = () => {};
  const step = () => {
    const left = turn.text.length - length;
    if (left > 0) {
      const next = turn.text.indexOf(" ", length + Math.max(4, Math.ceil(left / 14)));
      length = next < 0 || isCalm || document.hidden ? turn.text.length : next;
      show(turn.text.slice(0, length));
    }
    if (length >= turn.text.length || signal.aborted) caughtUp();
  };
  const timer = setInterval(step, FRAME_MS);
  return {
    hurry: () => isCalm && step(),
    shown: () => turn.text.slice(0, length),
    finished: () => new Promise((resolve) => {
      caughtUp = resolve;
      if (isCalm) step();
    }),
    end: () => clearInterval(timer),
  };
}

function sentMessages(turns) {
  return turns
    .filter((turn) => turn.role === "user" || turn.text)
    .slice(-SENT_TURNS)
    .map((turn) => ({ role: turn.role, content: turn.text }));
}

function save(store, turns) {
  keep(store, JSON.stringify(turns));
}

/** Keep a text for this tab, over reloads. */
export function keep(name, text) {
  try {
    sessionStorage.setItem(name, text);
  } catch (fault) {
    console.warn("byheart:", fault); // full, or forbidden: it will not survive a reload
  }
}

/** Return what was kept; null where nothing was, or keeping is forbidden. */
export function kept(name) {
  try {
    return sessionStorage.getItem(name);
  } catch {
    return null;
  }
}

function restore(store) {
  try {
    const stored = JSON.parse(kept(store) ?? "[]");
    const isTurn = (turn) => typeof turn?.text === "string" && ["user", "assistant"].includes(turn.role);
    if (!Array.isArray(stored) || !stored.every(isTurn)) return [];
    return stored.map((turn) => (turn.role === "user" ? { role: "user", text: turn.text } : asAnswer(turn)));
  } catch {
    return []; // damaged: a new conversation begins
  }
}

function asAnswer(turn) {
  const text = (value) => (typeof value === "string" ? value : "");
  return {
    role: "assistant",
    text: turn.text,
    sources: cleanSources(turn.sources),
    state: STATES.has(turn.state) ? turn.state : "stopped",
    problem: text(turn.problem),
    id: text(turn.id),
    verdict: text(turn.verdict),
    isExplained: true, // a form for the reason that was open is not opened again
  };
}
