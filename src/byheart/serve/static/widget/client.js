// Questions to the server: one request, its answer as pieces, and every way it can fail as the name of a sentence.

const PROBLEMS = { 401: "locked", 403: "locked", 429: "busy", 503: "busy" };

/** Why there is no answer: `problem` is the key of the words that say it. */
export class Problem extends Error {
  constructor(problem, cause) {
    super(problem, { cause });
    this.problem = problem;
  }
}

/** Yield {id}, {text} pieces of the answer, and {sources} at its end. Throws a Problem. */
export async function* ask(server, messages, signal) {
  const response = await post(server, "v1/chat/completions", { messages, stream: true }, signal);
  if (!response.ok) throw new Problem(PROBLEMS[response.status] ?? "failed", new Error(await response.text()));
  let isFinished = false;
  for await (const event of events(response.body)) {
    if (event.error) throw new Problem("failed", new Error(event.error.message));
    const choice = event.choices?.[0];
    if (event.id) yield { id: event.id };
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) isFinished = true;
    if (event.byheart) yield { sources: event.byheart };
  }
  if (!isFinished) throw new Problem("lost");
}

/** Send a verdict on an answer. Returns false where the server takes none. Throws a Problem. */
export async function sendFeedback(server, feedback) {
  const response = await post(server, "v1/feedback", feedback);
  if (response.status === 404) return false;
  if (!response.ok) throw new Problem("failed", new Error(await response.text()));
  return true;
}

async function post(server, path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (server.key) headers.Authorization = `Bearer ${server.key}`;
  try {
    return await fetch(new URL(path, server.base), { method: "POST", headers, body: JSON.stringify(body), signal });
  } catch (fault) {
    throw new Problem("unreachable", fault);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await read(reader);
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield parseEvent(data);
    }
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (fault) {
    throw new Problem("lost", fault);
  }
}

function parseEvent(data) {
  try {
    return JSON.parse(data);
  } catch (fault) {
    throw new Problem("lost", fault); // a proxy cut into the stream
  }
}
