// Checks a draw by "sha256-sort" the way anybody can: the seed must have the
// fingerprint that was published before, the entries must have the published
// digest, and the place of number i is the rank of SHA-256(seed, digest, i as
// eight bytes, big end first) among those of all who were drawn.
const most = 100000; // entries a browser is troubled with
const batch = 1000;  // hashes between two breaths of the page

export const hex = (bytes) => [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
export const unhex = (text) => Uint8Array.from(text.match(/../g) || [], (pair) => parseInt(pair, 16));

const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

// Order of two hashes, by their bytes.
export function before(a, b) {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i] < b[i];
  return false;
}

// Answers {place, of}, or {fault: one word}. entries(from) answers a page of them,
// progress(0..1) is told how far it is; seen is the fingerprint noted before the draw.
export async function check({ draw, entry, number, position, seen, entries, progress }, signal) {
  if (!globalThis.crypto?.subtle) return { fault: "insecure" };
  if (!draw.drawn || draw.algorithm !== "sha256-sort") return { fault: "unknown" };
  const of = draw.drawn_entries;
  if (of > most) return { fault: "large" };

  const seed = unhex(draw.seed);
  const commitment = hex(await sha256(seed));
  if (commitment !== draw.commitment || (seen && commitment !== seen)) return { fault: "commitment" };

  const ids = new Uint8Array(of * 16);
  for (let n = 0; n < of; ) {
    const page = await entries(n);
    if (!page.entries.length || n + page.entries.length > of) return { fault: "digest" };
    if (number >= n && number < n + page.entries.length && page.entries[number - n] !== entry) return { fault: "entry" };
    for (const id of page.entries) ids.set(unhex(id).subarray(0, 16), 16 * n++);
    progress(n / of / 2);
  }
  const digest = await sha256(ids);
  if (hex(digest) !== draw.digest) return { fault: "digest" };

  const rank = await rankOf(number, of, seed, digest, (part) => progress(0.5 + part / 2), signal);
  // Places only move forward, so nobody stands behind the drawn one.
  return position > rank + 1 ? { fault: "place" } : { place: rank + 1, of };
}

// How many of the numbers 0..of-1 come before this one.
export async function rankOf(number, of, seed, digest, progress, signal) {
  const ticket = (i) => {
    const text = new Uint8Array(seed.length + digest.length + 8);
    text.set(seed);
    text.set(digest, seed.length);
    new DataView(text.buffer).setBigUint64(seed.length + digest.length, BigInt(i));
    return sha256(text);
  };
  const own = await ticket(number);
  let rank = 0;
  for (let from = 0; from < of; from += batch) {
    signal?.throwIfAborted();
    const hashes = await Promise.all(Array.from({ length: Math.min(batch, of - from) }, (_, i) => ticket(from + i)));
    for (const hash of hashes) rank += before(hash, own);
    progress(Math.min(1, (from + batch) / of));
    await new Promise((done) => setTimeout(done)); // the page breathes
  }
  return rank;
}
