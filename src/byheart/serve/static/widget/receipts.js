// Receipts: which source bears out a sentence of an answer, as a mark after it.

/** Return the Markdown with U+FDD0, the source's number and ";" after each sentence; a text of its own has no U+FDD0. */
export function markReceipts(markdown, { receipts, citations }) {
  const text = markdown.replaceAll("\uFDD0", "");
  let marked = "";
  let from = 0;
  for (const receipt of receipts) {
    const number = citations.findIndex((item) => item.url === receipt.url) + 1;
    const start = text.indexOf(receipt.text, from);
    if (!number || start < 0) continue; // it has not come yet
    const end = start + receipt.text.replace(/[\s|\\]+$/, "").length; // behind a row's last bar would be another cell
    marked += `${text.slice(from, end)}\uFDD0${number};`;
    from = end;
  }
  return marked + text.slice(from);
}

/** Return the mark that begins at `at`, an empty link with the number, and where it ends. */
export function markAt(text, at) {
  const node = document.createElement("a");
  const end = text.indexOf(";", at);
  node.className = "cite";
  node.dataset.number = text.slice(at + 1, end);
  return { node, end: end + 1 };
}

/** Return text that is copied, code, as it was. */
export function unmarked(text) {
  return text.replace(/\uFDD0\d+;/g, "");
}
