// The conversation as plain text, for the clipboard and for a person who takes over; and where sources lead.

import { safeAddress } from "./markdown.js";

const LONGEST_ADDRESS = 1900; // Windows hands at most about 2,000 characters of a mailto: to the mail program

/** Return where a citation leads: its address, or the manual's page on this server; null where that is unsafe. */
export function sourceAddress(url, base) {
  if (/^https?:\/\//i.test(url)) return safeAddress(url, base);
  const mark = url.lastIndexOf("#");
  const path = mark < 0 ? url : url.slice(0, mark);
  const anchor = mark < 0 ? "" : `#${encodeURIComponent(url.slice(mark + 1))}`;
  return safeAddress(`pages/${path.split("/").map(encodeURIComponent).join("/")}${anchor}`, base);
}

/** Return a citation's headings from the page's title down. */
export function pathOf({ title, heading }) {
  const parts = heading.split(" › ").filter(Boolean);
  return parts[0] === title ? parts : [title, ...parts];
}

/** Return a turn with its sources. */
export function turnText(turn, base) {
  const sources = (turn.sources?.citations ?? []).map((item) => `- ${pathOf(item).join(" › ")}: ${sourceAddress(item.url, base) ?? item.url}`);
  return sources.length ? `${turn.text}\n\n${sources.join("\n")}` : turn.text;
}

/** Return the whole conversation. */
export function transcript(turns, { words, base }) {
  const name = (turn) => (turn.role === "user" ? words.you : words.assistant);
  const said = (turn) => turnText(turn, base) || words[turn.problem] || "–";
  return turns.map((turn) => `${name(turn)}: ${said(turn)}`).join("\n\n");
}

/**
 * Return the address behind "contact us". A mail address becomes a mail with the conversation's end in it; in a link,
 * {transcript} stands for it. Both as far as it fits; the whole conversation goes through the clipboard.
 */
export function contactAddress(contact, turns, view) {
  const isMail = !/^https?:/i.test(contact);
  const asked = turns.findLast((turn) => turn.role === "user")?.text.slice(0, 80) ?? "";
  const subject = encode(`${view.settings.title}: ${asked.replace(/\s+/g, " ")}`);
  const pattern = isMail ? `mailto:${encodeURI(contact)}?subject=${subject}&body={transcript}` : contact;
  const room = LONGEST_ADDRESS - pattern.length;
  return pattern.replaceAll("{transcript}", ending(transcript(turns, view), room));
}

/** Encode for an address; half of a surrogate pair, which a cut leaves, would make encodeURIComponent throw. */
function encode(text) {
  return encodeURIComponent(text.replace(/[\uD800-\uDFFF]/gu, ""));
}

/** Return the end of a text, encoded for an address, in at most `room` characters. */
function ending(text, room) {
  let encoded = encode(text);
  for (let cut = 0; encoded.length > room && cut < text.length; ) {
    cut += Math.max(20, Math.floor((encoded.length - room) / 9)); // a character takes at most nine when encoded
    encoded = encode(`… ${text.slice(cut)}`);
  }
  return encoded.length > room ? "" : encoded;
}
