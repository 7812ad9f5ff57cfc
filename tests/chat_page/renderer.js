// Renders every input, and reports the HTML, and which tags, attributes and addresses are really in it.

import { renderMarkdown } from "/static/markdown.js";

const inputs = JSON.parse(document.getElementById("inputs").textContent);
const outputs = inputs.map((text) => {
  const frame = document.createElement("div");
  frame.append(renderMarkdown(text, "http://manual.test/pages/page.md"));
  document.body.append(frame);
  const nodes = [...frame.querySelectorAll("*")];
  return {
    html: frame.innerHTML,
    tags: nodes.map((node) => node.tagName),
    attributes: nodes.flatMap((node) => node.getAttributeNames()),
    protocols: nodes.filter((node) => node.href !== undefined).map((node) => node.protocol),
  };
});
setTimeout(() => {
  const report = document.createElement("pre");
  report.id = "report";
  report.textContent = JSON.stringify({ outputs, hacked: window.hacked ?? null });
  document.body.append(report);
  fetch("/test/done");
}, 200);
