// Follows a document until show(document) says that it has seen the end: by
// server-sent events, read with fetch because EventSource cannot send a token;
// by polling where streams do not get through.
import { get, Problem, send } from "./api.js";
import { jitter, sleep, visible } from "./dom.js";

// Longer without a byte, keep-alive comments included, and the line is dead.
const silence = 45000;

// Splits a byte stream into events: {id, data}.
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const event = { id: "", data: "" };
      for (const line of block.split(/\r?\n/)) {
        const [, field, rest] = /^(\w+): ?(.*)$/.exec(line) || [];
        if (field === "data") event.data += (event.data && "\n") + rest;
        else if (field === "id") event.id = rest;
      }
      yield event;
    }
  }
}

// There is an event stream under path + "/events". A document may say when to ask
// again (poll_after_ms). hidden: go on while the page is not being looked at.
export async function follow(path, show, signal, hidden) {
  let last = "";
  let broken = 0;

  const stream = async () => {
    const line = new AbortController();
    const hang = () => line.abort();
    signal.addEventListener("abort", hang);
    let watch = setTimeout(hang, silence);
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      return await send("GET", path + "/events", { headers, signal: line.signal }, async (answer) => {
        if (!answer.ok) throw new Problem("network", answer.status);
        for await (const event of events(answer.body)) {
          clearTimeout(watch);
          watch = setTimeout(hang, silence);
          if (event.id) last = event.id;
          if (!event.data) continue;
          broken = 0;
          if (show(JSON.parse(event.data))) return true;
        }
        return false;
      });
    } finally {
      clearTimeout(watch);
      signal.removeEventListener("abort", hang);
      line.abort();
    }
  };

  for (let pause = 1000; !signal.aborted; ) {
    if (!hidden) await visible(signal);
    let asked = 0;
    try {
      if (broken < 2) {
        if (await stream()) return;
      } else {
        const news = await get(path);
        if (show(news)) return;
        asked = news.poll_after_ms;
      }
    } catch (problem) {
      if (problem.status === 404 || problem.status === 401) return;
    }
    // A stream that ends early and often is not getting through: poll, gently.
    if (++broken > 2) pause = Math.min(10000, pause * 1.5);
    await sleep(asked ? asked + jitter(asked / 4) : jitter(pause), signal).catch(() => {});
  }
}
