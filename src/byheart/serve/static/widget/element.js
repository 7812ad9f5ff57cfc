// <byheart-chat>: the chat as an element. It fills its box; with the attribute `launcher` it is a button in the
// page's corner that opens a panel, and with `page` it is the page itself.

import { palette } from "./colours.js";
import { Conversation, keep, kept } from "./conversation.js";
import { button, confirmOn, icon, iconButton, make, named } from "./parts.js";
import { transcript, turnText } from "./transcript.js";
import { drawTurn, markOf } from "./view.js";

const LONGEST_QUESTION = 4000;
const PHONE = "(max-width: 480px)";

export class ByheartChat extends HTMLElement {
  static shared = null; // {settings, words, language, direction, base, styles}: set before the element is defined

  connectedCallback() {
    if (this.shadowRoot) return; // moved within the page
    const { settings, base } = ByheartChat.shared;
    this.isPage = this.hasAttribute("page");
    this.isLauncher = this.hasAttribute("launcher");
    this.follows = true; // whether the view scrolls along with the answer
    this.nodes = [];
    this.openStore = `byheart:open:${base}`;
    this.keyStore = `byheart:key:${base}`; // of this tab, as the conversation
    this.conversation = new Conversation({ base, key: kept(this.keyStore) || settings.key }, {
      onChange: (index, shown) => (index === undefined ? this.drawAll() : this.draw(index, shown)),
      onEnd: (turn) => this.announce(this.announcement(turn)),
    });
    this.build();
    this.listen();
    this.paint();
    this.drawAll();
    if (this.isLauncher) this.toggle(kept(this.openStore) === "yes", { moveFocus: false });
    this.scroller.scrollTop = this.scroller.scrollHeight;
    if (this.isPage) this.startPage();
  }

  disconnectedCallback() {
    this.conversation.stop();
  }

  /** Open the panel; with a question, ask it. */
  open(question = "") {
    if (this.isLauncher) this.toggle(true);
    if (question) this.submit(String(question).slice(0, LONGEST_QUESTION));
  }

  /** Close the panel. */
  close() {
    if (this.isLauncher) this.toggle(false);
  }

  build() {
    const { settings, words, language, direction, styles } = ByheartChat.shared;
    const shadow = this.attachShadow({ mode: "open" });
    shadow.adoptedStyleSheets = [styles]; // no style element: a policy without 'unsafe-inline' lets it be
    this.root = make("div", "root");
    this.root.lang = language;
    this.root.dir = direction;
    this.frame = make("div", "frame");
    this.status = make("div", "hidden");
    this.status.setAttribute("role", "status");
    this.scroller = make("div", "scroll", this.welcome(), this.log());
    this.scroller.tabIndex = 0;
    label(this.scroller, "region", words.conversation);
    this.latest = iconButton("down", words.latest, () => this.goToLatest(), "latest");
    this.frame.append(this.header(), this.scroller, this.footer(), this.status);
    this.root.append(this.frame);
    if (this.isLauncher) {
      label(this.frame, "dialog", settings.title);
      label(this.root, "region", settings.title);
      this.root.classList.add("floating");
      if (settings.side === "left") this.root.classList.add("left");
      this.launcher = iconButton("chat", words.open, () => this.toggle(!this.isOpen), "launcher");
      this.launcher.append(icon("close"));
      this.root.append(this.launcher);
    }
    if (this.isPage) this.root.classList.add("page");
    shadow.append(this.root);
  }

  header() {
    const { settings, words } = ByheartChat.shared;
    const title = make(this.isPage ? "h1" : "h2", "", make("bdi", "", settings.title));
    this.newButton = button("plus", words.newChat, () => this.startAnew(), "quiet");
    this.newButton.setAttribute("aria-label", words.newChat);
    const inner = make("div", "column", markOf(settings), make("div", "name", title, make("p", "", words.subtitle)), this.newButton);
    if (this.isLauncher) inner.append(iconButton("close", words.close, () => this.toggle(false), "quiet close"));
    return make("div", "top", inner);
  }

  welcome() {
    const { settings, words } = ByheartChat.shared;
    const chips = make("ul", "chips", ...settings.suggestions.map((text) => make("li", "", button("", make("bdi", "", text), () => this.submit(text)))));
    chips.setAttribute("aria-label", words.suggestions);
    const heading = make("h2", "", make("bdi", "", settings.greeting || words.welcome));
    this.welcomeNode = make("section", "welcome column", markOf(settings, "mark big"), heading, make("p", "", words.intro), chips);
    return this.welcomeNode;
  }

  log() {
    const { words } = ByheartChat.shared;
    this.messages = make("div", "messages column", make("h2", "hidden", words.conversation));
    label(this.messages, "log", words.conversation);
    this.messages.setAttribute("aria-live", "off"); // answers are announced once, when they are whole
    return this.messages;
  }

  footer() {
    const { words } = ByheartChat.shared;
    this.question = Object.assign(make("textarea"), { rows: 1, maxLength: LONGEST_QUESTION, placeholder: words.placeholder });
    this.question.enterKeyHint = "send";
    this.question.setAttribute("aria-label", words.question);
    this.send = make("button", "send", icon("send"), icon("stop"));
    const field = make("div", "field", this.question, this.send);
    this.form = make("form", "column", field, make("p", "hint", words.hint));
    return make("div", "bottom", this.latest, this.form);
  }

  listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.conversation.running) this.conversation.stop();
      else this.submit(this.question.value);
    });
    this.question.addEventListener("input", () => this.fitField());
    this.question.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit(this.question.value);
    });
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    for (const kind of ["wheel", "touchmove", "keydown"]) {
      this.scroller.addEventListener(kind, () => (this.follows = false), { passive: true });
    }
    this.scroller.addEventListener("scroll", () => this.showLatest(), { passive: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
    window.visualViewport?.addEventListener("resize", () => this.fitViewport());
  }

  onKey(event) {
    if (event.key === "Escape" && !event.isComposing) {
      if (this.conversation.running) this.conversation.stop();
      else if (this.isLauncher && this.isOpen) this.toggle(false);
      else return;
      event.stopPropagation(); // the host page's own dialogs stay as they are
    }
    if (event.key === "Tab" && this.isLauncher && matchMedia(PHONE).matches) this.keepFocus(event);
  }

  /** On a phone the panel covers the page: Tab goes round in it. */
  keepFocus(event) {
    const inside = [...this.frame.querySelectorAll("a[href], button, textarea, input, [tabindex='0']")];
    const stops = inside.filter((node) => !node.disabled && node.checkVisibility());
    const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
    if (this.shadowRoot.activeElement !== from) return;
    event.preventDefault();
    to.focus();
  }

  startPage() {
    document.title = ByheartChat.shared.settings.title;
    const linked = new URLSearchParams(location.search).get("q");
    if (linked?.trim()) {
      history.replaceState(null, "", location.pathname); // a reload must not ask again
      this.submit(linked.slice(0, LONGEST_QUESTION));
    }
    this.focusField();
  }

  toggle(isOpen, { moveFocus = true } = {}) {
    const { words } = ByheartChat.shared;
    this.isOpen = isOpen;
    this.root.classList.toggle("open", isOpen);
    this.launcher.setAttribute("aria-expanded", String(isOpen));
    named(this.launcher, isOpen ? words.close : words.open);
    keep(this.openStore, isOpen ? "yes" : "no");
    this.fitViewport();
    if (isOpen) this.fitField();
    if (!moveFocus) return;
    if (isOpen) this.focusField();
    else this.launcher.focus();
  }

  /** Put the cursor into the field; on a phone this would open the keyboard over the welcome, so the panel gets it. */
  focusField() {
    if (matchMedia("(hover: hover)").matches) this.question.focus();
    else if (this.isLauncher) this.scroller.focus();
  }

  fitViewport() {
    const height = window.visualViewport?.height;
    if (this.isLauncher && height) this.root.style.setProperty("--viewport", `${height}px`);
  }

  paint() {
    const { theme, accent } = ByheartChat.shared.settings;
    const isDark = theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    this.root.classList.toggle("dark", isDark);
    for (const [name, value] of Object.entries(palette(accent, isDark))) this.root.style.setProperty(name, value);
  }

  submit(text) {
    if (!this.conversation.submit(text)) return;
    this.question.value = "";
    this.fitField();
  }

  startAnew() {
    this.conversation.clear();
    this.announce("");
    this.question.focus();
  }

  drawAll() {
    const { turns, running } = this.conversation;
    const { words } = ByheartChat.shared;
    const hadFocus = this.messages.contains(this.shadowRoot.activeElement);
    if (running) this.follows = true;
    while (this.nodes.length > turns.length) this.nodes.pop().remove();
    while (this.nodes.length < turns.length) {
      this.nodes.push(make("article"));
      this.messages.append(this.nodes.at(-1));
    }
    turns.forEach((_, index) => this.draw(index));
    const isEmpty = turns.length === 0;
    this.welcomeNode.hidden = !isEmpty;
    this.messages.hidden = isEmpty;
    this.newButton.hidden = isEmpty;
    this.showLatest();
    this.send.classList.toggle("stops", Boolean(running));
    named(this.send, running ? words.stop : words.send);
    this.fitField();
    if (hadFocus && !this.shadowRoot.activeElement) this.nodes.at(-1)?.focus({ preventScroll: true });
  }

  draw(index, shown) {
    const { settings, words, base } = ByheartChat.shared;
    const { turns, takesFeedback } = this.conversation;
    const isLast = index === turns.length - 1;
    const view = { shown, isLast, turns, takesFeedback, words, settings, base, actions: this.actions() };
    drawTurn(this.nodes[index], turns[index], view);
    if (this.follows && isLast) {
      const asked = this.nodes[Math.max(0, index - 1)].offsetTop - 16;
      this.scroller.scrollTop = Math.min(this.scroller.scrollHeight, asked); // a long answer is read from its beginning
    }
    this.showLatest();
  }

  actions() {
    const { words, base } = ByheartChat.shared;
    const { conversation } = this;
    return {
      submit: (text) => this.submit(text),
      retry: () => conversation.retry(),
      unlock: (key) => {
        conversation.server.key = key;
        keep(this.keyStore, key);
        conversation.retry();
      },
      copy: (text, node) => this.copy(text, node),
      copyTurn: (turn, node) => this.copy(turnText(turn, base), node),
      copyTranscript: () => this.copy(transcript(conversation.turns, { words, base })),
      judge: async (turn, ...verdict) => {
        await conversation.judge(turn, ...verdict);
        if (turn.verdict && turn.isExplained) this.announce(words.thanks);
        const form = this.messages.querySelector(".reasons");
        form?.querySelector("input").focus({ preventScroll: true });
        form?.scrollIntoView({ block: "nearest" });
      },
      closeReasons: (turn) => {
        turn.isExplained = true;
        this.drawAll();
      },
    };
  }

  async copy(text, node) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      this.copyBySelection(text); // without https, browsers have no clipboard for scripts
    }
    if (!node) return;
    confirmOn(node, ByheartChat.shared.words.copied);
    this.announce(ByheartChat.shared.words.copied);
  }

  copyBySelection(text) {
    const area = make("textarea", "hidden");
    area.value = text;
    const focused = this.shadowRoot.activeElement;
    this.root.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    focused?.focus();
  }

  /** Have a screen reader say something, once. */
  announce(text) {
    this.status.textContent = text;
  }

  announcement(turn) {
    const { words } = ByheartChat.shared;
    if (turn.state === "failed") return words[turn.problem] ?? words.failed;
    if (turn.state === "stopped") return words.stopped;
    const text = this.nodes.at(-1).querySelector(".text")?.innerText ?? "";
    const count = turn.sources?.citations.length;
    const isUnsure = Boolean(turn.sources?.abstained);
    return [isUnsure && `${words.unsure}.`, text, count && `${isUnsure ? words.nearest : words.sources}: ${count}`].filter(Boolean).join(" ");
  }

  showLatest() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    this.latest.hidden = scrollHeight - scrollTop - clientHeight < 120 || this.conversation.turns.length === 0;
  }

  goToLatest() {
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior: isCalm ? "instant" : "smooth" });
    this.scroller.focus({ preventScroll: true });
  }

  fitField() {
    this.question.dir = this.question.value ? "auto" : ByheartChat.shared.direction; // the placeholder's own
    this.send.disabled = !this.conversation.running && !this.question.value.trim();
    this.question.style.height = "auto";
    if (this.question.scrollHeight) this.question.style.height = `${this.question.scrollHeight}px`;
  }
}

function label(node, role, name) {
  node.setAttribute("role", role);
  node.setAttribute("aria-label", name);
}
