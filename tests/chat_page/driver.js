// Uses the chat page as a person would, and reports what was to be seen. Waits for changes of the page, not for time.

const QUESTION = "How do I move a card?";
const seen = {};
const report = document.createElement("pre");
report.id = "report";
document.body.append(report);
const note = (name, value) => {
  seen[name] = value;
  report.textContent = JSON.stringify(seen);
};

const $ = (query) => document.querySelector(query);
const all = (query) => [...document.querySelectorAll(query)];
const until = (isTrue) => new Promise((resolve) => {
  const watch = new MutationObserver(() => check());
  const check = () => {
    if (!isTrue()) return;
    watch.disconnect();
    resolve();
  };
  watch.observe($("body > main"), { subtree: true, childList: true, attributes: true, characterData: true });
  watch.observe($("#announce"), { childList: true });
  check();
});
const key = (init) => {
  const event = new KeyboardEvent("keydown", { bubbles: true, cancelable: true, key: "Enter", ...init });
  $("#question").dispatchEvent(event);
};
const type = (text) => {
  $("#question").value = text;
  $("#question").dispatchEvent(new Event("input"));
};
const askFor = async (text) => {
  const announced = $("#announce").textContent;
  type(text);
  key({});
  await until(() => $("#announce").textContent !== announced);
};

await until(() => $("#suggestions button"));
note("chips", all("#suggestions button").map((chip) => chip.textContent));
note("sendDisabled", $("#send").disabled);
type("a");
key({ shiftKey: true });
key({ isComposing: true });
note("asksOnShiftEnter", $(".turn") !== null);

await askFor(QUESTION);
note("answer", $(".turn.bot .text").innerHTML);
note("links", all(".source").map((link) => [link.href.replace(location.origin, ""), link.textContent]));
note("announced", $("#announce").textContent);
note("cleared", $("#question").value === "");

await askFor("short");
await askFor("fail");
note("problem", $(".turn.failed .problem").textContent);
$(".turn.failed .actions .strong").click();
await until(() => $(".turn.failed") === null);
await until(() => $(".turn.failed") !== null);
note("turnsAfterRetry", all(".turn").length);

type("wait");
key({});
await until(() => $(".dots"));
note("stopShown", !$("#stop").hidden && $("#send").hidden);
$("#stop").click();
await until(() => $(".note")?.textContent === "Stopped.");
note("stored", JSON.parse(sessionStorage.getItem("byheart:/drive")).map((turn) => turn.state ?? turn.role));

$("#new").click();
note("afterNew", [all(".turn").length, $("#welcome").hidden, sessionStorage.getItem("byheart:/drive")]);
note("finished", true);
fetch("/test/done");
