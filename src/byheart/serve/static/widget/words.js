// The interface's words. English is here; every other language is a file of its own, loaded when it is needed.

export const ENGLISH = {
  subtitle: "Answers from the manual",
  welcome: "How can we help?",
  intro: "Ask in your own words. Every answer links to the pages it comes from.",
  suggestions: "Suggested questions",
  question: "Your question",
  placeholder: "Ask a question…",
  send: "Send",
  stop: "Stop",
  newChat: "New chat",
  open: "Open chat",
  close: "Close chat",
  conversation: "Conversation",
  you: "You",
  assistant: "Assistant",
  searching: "Looking it up…",
  latest: "Go to the latest message",
  sources: "Sources",
  source: "Source",
  newTab: "opens in a new tab",
  unsure: "Not sure",
  nearest: "Nearest pages",
  person: "Would you rather ask a person?",
  contact: "Contact us",
  contactNote: "Your conversation is passed on, so you need not repeat it.",
  contactCopied: "The conversation is copied: paste it into your message.",
  related: "Related questions",
  copy: "Copy",
  copied: "Copied",
  retry: "Try again",
  stopped: "Stopped.",
  good: "Helpful",
  bad: "Not helpful",
  why: "What was wrong?",
  wrong: "Not correct",
  incomplete: "Something is missing",
  unclear: "Hard to understand",
  offTopic: "Not what I asked",
  comment: "Tell us more (optional)",
  sendFeedback: "Send feedback",
  cancel: "Cancel",
  thanks: "Thank you for your feedback.",
  unreachable: "The assistant cannot be reached. Check your connection.",
  lost: "The connection was lost before the answer was complete.",
  busy: "Many people are asking right now. Try again in a moment.",
  locked: "This chat asks for a key. Whoever runs it can give you one.",
  key: "Key",
  failed: "Something went wrong while answering. Try again.",
  hint: "Answers come from the manual and can be wrong. The linked pages say more.",
};

const RIGHT_TO_LEFT = new Set(["ar", "fa", "he", "ur"]);

/** Return the first of the wanted languages (BCP 47, best first) that there are words for; English without any. */
export function chooseLanguage(wanted, available) {
  for (const tag of wanted) {
    const language = String(tag ?? "").toLowerCase().split(/[-_]/)[0];
    if (language === "en" || available.includes(language)) return language;
  }
  return "en";
}

/** Return the words in a language. What a file does not say, or a file that does not come, is in English. */
export async function loadWords(language, base) {
  if (language === "en") return { words: ENGLISH, language };
  try {
    const response = await fetch(new URL(`static/languages/${language}.json`, base));
    if (!response.ok) throw new Error(`status ${response.status}`);
    return { words: { ...ENGLISH, ...(await response.json()) }, language };
  } catch (fault) {
    console.warn("byheart: the chat is in English:", fault);
    return { words: ENGLISH, language: "en" };
  }
}

/** Return how the language is written: "rtl" or "ltr". */
export function directionOf(language) {
  return RIGHT_TO_LEFT.has(language) ? "rtl" : "ltr";
}
