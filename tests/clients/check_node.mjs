// What openai for Node and Vercel's ai SDK make of the API:  node check_node.mjs http://127.0.0.1:8000
import assert from "node:assert/strict";
import OpenAI from "openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateText, streamText } from "ai";

const address = process.argv[2];
const QUESTION = "How do I move a card?";
const START = "Drag the card, or press **M**.";
const model = "example-bot";

async function checkOpenai() {
  const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "none", maxRetries: 0 });
  const messages = [{ role: "user", content: QUESTION }];
  const create = (more) => client.chat.completions.create({ model, messages, ...more });
  const whole = await create({ temperature: 0 });
  const text = whole.choices[0].message.content;
  assert(text.startsWith(START));
  assert(whole.byheart.citations.length > 0);
  let streamed = "";
  let usage = null;
  for await (const chunk of await create({ stream: true, stream_options: { include_usage: true } })) {
    streamed += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(streamed, text);
  assert.deepEqual(usage, whole.usage);
  const helper = client.chat.completions.stream({ model, messages });
  assert.equal(await helper.finalContent(), text);
  assert.equal((await create({ stop: [" or"] })).choices[0].message.content, "Drag the card,");
  assert.equal((await create({ max_tokens: 4 })).choices[0].finish_reason, "length");
  await assert.rejects(create({ n: 2 }), (e) => e instanceof OpenAI.BadRequestError && e.param === "n");
  await assert.rejects(create({ model: "gpt-9" }), (e) => e instanceof OpenAI.NotFoundError);
  const failing = [{ role: "user", content: "fail" }];
  await assert.rejects(create({ messages: failing }), (e) => e instanceof OpenAI.InternalServerError);
  await assert.rejects(async () => {
    for await (const _ of await create({ messages: failing, stream: true }));
  }, /went wrong/);
  const vectors = await client.embeddings.create({ model, input: ["a", "bcd"] });
  assert.deepEqual(Array.from(vectors.data[1].embedding), [1, 0, 3]);
}

async function checkAi() {
  const provider = createOpenAICompatible({ name: "byheart", baseURL: `${address}/v1`, includeUsage: true });
  const base = { model: provider(model), maxRetries: 0 };
  const whole = await generateText({ ...base, prompt: QUESTION });
  assert(whole.text.startsWith(START));
  assert(whole.usage.outputTokens > 5);
  const stream = streamText({ ...base, prompt: QUESTION });
  let streamed = "";
  let pieces = 0;
  for await (const piece of stream.textStream) {
    streamed += piece;
    pieces += 1;
  }
  assert.equal(streamed, whole.text);
  assert(pieces > 5);
  assert.equal(await stream.finishReason, "stop");
  assert.deepEqual((await stream.usage).outputTokens, whole.usage.outputTokens);
  assert.equal((await generateText({ ...base, prompt: QUESTION, stopSequences: [" or"] })).text, "Drag the card,");
  assert.equal((await generateText({ ...base, prompt: QUESTION, maxOutputTokens: 4 })).finishReason, "length");
  await assert.rejects(generateText({ ...base, prompt: "fail" }), (e) => APICallError.isInstance(e) && e.statusCode === 500);
  let told = null;
  const failing = streamText({ ...base, prompt: "fail", onError: ({ error }) => { told = error; } });
  for await (const _ of failing.textStream);
  assert.match(String(told?.message ?? told), /went wrong/);
  const { embeddings } = await embedMany({ model: provider.embeddingModel(model), values: ["a", "bcd"], maxRetries: 0 });
  assert.deepEqual(embeddings[1], [1, 0, 3]);
}

await checkOpenai();
console.log("openai for Node: as it should be");
await checkAi();
console.log("ai SDK: as it should be");
