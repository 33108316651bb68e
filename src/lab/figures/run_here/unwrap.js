// The container of a packed network (docs/file-format.md): digest, header and sections, by what the browser itself offers. Nothing is believed
// before the digest is right, and nothing is inflated beyond a limit.
const MAGIC = "PRINCIP1";
const LONGEST_HEADER = 2 ** 24;
const LARGEST_BLOB = 2 ** 26;

async function inflate(bytes, limit) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const parts = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw new Error("it contradicts itself");
    });
    if (done) break;
    size += value.length;
    if (size > limit) {
      reader.cancel().catch(() => {});
      throw new Error("it claims to be larger than this page reads");
    }
    parts.push(value);
  }
  const whole = new Uint8Array(size);
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

const header = (bytes) => {
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    throw new Error("its header is none");
  }
};

async function unwrap(bytes) {
  const short = () => new Error("it is cut short");
  if (bytes.length < 48) throw short();
  if (String.fromCharCode(...bytes.subarray(0, 8)) !== MAGIC) throw new Error("it is no packed network");
  const digest = globalThis.crypto?.subtle && new Uint8Array(await crypto.subtle.digest("SHA-256", bytes.subarray(40))); // absent on plain http
  if (digest && !digest.every((byte, i) => byte === bytes[8 + i])) throw new Error("it was altered: its digest is another");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [headed, count] = [view.getUint32(40, true), view.getUint32(44, true)];
  const first = 48 + headed;
  const rest = first + 4 * count;
  if (rest > bytes.length) throw short();
  const { meta, tables, tensors, blob } = header(await inflate(bytes.subarray(48, first), LONGEST_HEADER));
  if (!Number.isInteger(blob) || blob < 0 || rest + blob > bytes.length) throw short();
  const words = Uint32Array.from({ length: count }, (_, i) => view.getUint32(first + 4 * i, true));
  const raw = bytes.slice(rest, bytes.length - blob);
  const whole = blob ? await inflate(bytes.subarray(bytes.length - blob), LARGEST_BLOB) : new Uint8Array();
  return { meta, tables, tensors, words, raw, blob: whole, size: bytes.length };
}
