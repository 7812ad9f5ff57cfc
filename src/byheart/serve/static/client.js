// Questions to the server: one request, its answer as pieces, every way it can fail as a sentence for the reader.

/** Yield {text} pieces of the answer, and {sources} at its end. Throws an Error whose message can be shown. */
export async function* ask(messages, signal) {
  const response = await send(messages, signal);
  let isFinished = false;
  for await (const event of events(response.body)) {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) isFinished = true;
    if (event.byheart) yield { sources: event.byheart };
  }
  if (!isFinished) throw new Error("The connection was lost before the answer was complete.");
}

async function send(messages, signal) {
  let response;
  try {
    response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ messages, stream: true }),
      signal,
    });
  } catch (fault) {
    if (signal.aborted) throw fault;
    throw new Error("The assistant cannot be reached. Check your connection.", { cause: fault });
  }
  if (!response.ok) throw new Error(await reasonOf(response));
  return response;
}

async function reasonOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The assistant is not available at the moment (status ${response.status}).`; // a proxy's page, say
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}
