// Has the chat stream attacks through its own code, cut into pieces in every place, and reports what became of them.
// What runs here is the page's client, conversation and view; only the network is replaced.
async ({ attacks, seed }) => {
  const TAGS = new Set(("article div span p bdi b small a em strong del code pre blockquote ul ol li table thead tbody tr th td br hr "
    + "h2 h3 h4 h5 h6 section svg path i button form fieldset legend label input textarea").split(" "));
  const ATTRIBUTES = new Set(("class dir lang href target rel type aria-label aria-hidden aria-pressed tabindex title viewBox d start "
    + "name value rows maxlength placeholder role aria-live hidden").split(" "));
  const encoder = new TextEncoder();
  const chat = document.querySelector("byheart-chat");
  const shadow = chat.shadowRoot;
  const faults = [];
  const seen = new Set();
  let draws = 0;
  let attack = "";

  let state = seed;
  const random = (below) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0; // a generator of its own: the same cuts in every run
    return (state >>> 8) % below;
  };
  const cut = (things, longest) => {
    const parts = [];
    for (let at = 0; at < things.length; ) {
      const end = at + 1 + random(longest);
      parts.push(things.slice(at, end));
      at = end;
    }
    return parts;
  };

  const check = (node) => {
    for (const item of [node, ...node.querySelectorAll("*")]) {
      const problem = !TAGS.has(item.localName) ? `<${item.localName}>`
        : item.getAttributeNames().find((name) => !ATTRIBUTES.has(name))
        ?? (item.localName === "a" && !/^(https?|mailto):/.test(item.href) ? item.href : null);
      if (problem) faults.push([attack, problem]);
      if (item.localName === "a") seen.add(item.protocol);
    }
  };
  const watch = new MutationObserver((changes) => {
    draws += changes.length;
    for (const node of changes.flatMap((change) => [...change.addedNodes])) {
      if (node.nodeType === Node.ELEMENT_NODE) check(node);
    }
  });
  watch.observe(shadow, { subtree: true, childList: true });
  addEventListener("error", (event) => faults.push([attack, event.message]));

  window.fetch = async () => {
    const event = (value) => `data: ${JSON.stringify({ id: "chatcmpl-1", ...value })}\n\n`;
    const citation = { title: attack, heading: `${attack} › ${attack}`, url: attack, score: 1 };
    const said = { citations: [citation], abstained: random(2) === 0, follow_ups: [attack], confidence: 1 };
    const text = cut(attack, 4).map((content) => event({ choices: [{ delta: { content } }] })).join("");
    const bytes = encoder.encode(`${text}${event({ choices: [{ delta: {}, finish_reason: "stop" }], byheart: said })}data: [DONE]\n\n`);
    const chunks = cut(bytes, 90);
    return new Response(new ReadableStream({
      pull(controller) {
        if (chunks.length) controller.enqueue(chunks.shift());
        else controller.close();
      },
    }));
  };

  for (attack of attacks) {
    chat.startAnew();
    const answered = new Promise((resolve) => (chat.conversation.onEnd = resolve));
    chat.submit(attack);
    const turn = await answered;
    if (turn.state !== "done" || turn.text !== attack) faults.push([attack, `${turn.state}: ${turn.text}`]);
    check(shadow.querySelector(".messages"));
  }
  watch.disconnect();
  return { faults, draws, protocols: [...seen].sort(), hacked: window.hacked ?? null };
}
