// The shopper API. Whatever goes wrong becomes a Problem with a stable code.
import { jitter, sleep } from "./dom.js";
import { renew, token } from "./session.js";

export class Problem extends Error {
  constructor(code, status = 0, fields = {}, retryAfter = 0) {
    super(code);
    Object.assign(this, { fields, code, status, retryAfter });
  }
}

const read = async (answer) => {
  const body = await answer.json().catch(() => null);
  if (answer.ok && (body || answer.status === 204)) return body;
  // A reply cut short is a reply not received.
  if (answer.ok) throw new Problem("network");
  throw new Problem(body?.code || "internal", answer.status, body || {}, Number(answer.headers.get("Retry-After")) || 0);
};

// Sends a request and hands the raw answer to take. One refused token is renewed.
export async function send(method, path, { body, headers, signal = AbortSignal.timeout(10000) } = {}, take = read) {
  for (let fresh = false; ; fresh = true) {
    let answer;
    try {
      answer = await fetch(path, {
        method,
        signal,
        cache: "no-store",
        headers: {
          ...(body && { "Content-Type": "application/json" }),
          ...(token && { Authorization: "Bearer " + token }),
          ...headers,
        },
        body: body && JSON.stringify(body),
      });
    } catch {
      throw new Problem("network");
    }
    if (answer.status === 401 && !fresh && (await renew().catch(() => false))) continue;
    return take(answer);
  }
}

export const get = (path) => send("GET", path);
export const post = (path, body, headers) => send("POST", path, { body, headers });

const passing = new Set(["rate_limited", "overloaded", "unknown", "not_ready", "network"]);

// Does it again while what is wrong will pass, as patiently as the server asks,
// never in step with the crowd. waiting(problem) is told before each pause.
export async function patiently(work, signal, waiting = () => {}, tries = 12) {
  for (let n = 1; ; n++) {
    try {
      return await work();
    } catch (problem) {
      if (!passing.has(problem.code) || n >= tries) throw problem;
      waiting(problem);
      const pause = problem.retryAfter * 1000;
      await sleep(pause ? pause + jitter(pause / 4) : jitter(Math.min(8000, 300 * 2 ** n)), signal);
    }
  }
}
