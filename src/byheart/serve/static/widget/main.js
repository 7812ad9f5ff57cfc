// What widget.js does when it runs: settings, language, and the element put into the page.

import { ByheartChat } from "./element.js";
import { chooseLanguage, directionOf, loadWords } from "./words.js";

const OVERRIDES = ["title", "accent", "greeting", "language", "theme", "contact", "side", "key"];

/**
 * Define <byheart-chat>. `settings` are the server's; data attributes of the script element take their place.
 * A page that has no <byheart-chat> gets one, as a button in its corner.
 */
export async function start(settings, script, css) {
  const isAttribute = (name) => script.dataset[name] !== undefined;
  const said = Object.fromEntries(OVERRIDES.filter(isAttribute).map((name) => [name, script.dataset[name]]));
  const base = new URL(".", script.src).href;
  const chosen = { ...settings, ...said };
  if (chosen.logo) chosen.logo = new URL(chosen.logo, base).href;
  await parsed();
  const element = document.querySelector("byheart-chat");
  const isOurs = element?.hasAttribute("page");
  const wanted = [chosen.language, ...(isOurs ? navigator.languages : [document.documentElement.lang, ...navigator.languages])];
  const styles = new CSSStyleSheet();
  styles.replaceSync(css);
  const { words, language } = await loadWords(chooseLanguage(wanted.filter(Boolean), settings.languages), base);
  if (customElements.get("byheart-chat")) return; // the script is in the page twice
  if (isOurs) document.documentElement.lang = language;
  ByheartChat.shared = { settings: chosen, words, language, direction: directionOf(language), base, styles };
  customElements.define("byheart-chat", ByheartChat);
  if (element) return;
  const added = document.createElement("byheart-chat");
  added.setAttribute("launcher", "");
  document.body.append(added);
}

function parsed() {
  if (document.readyState !== "loading") return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve, { once: true }));
}
