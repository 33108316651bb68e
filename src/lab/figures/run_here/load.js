// Where the bytes of networks and test images come from when they are wanted: scripts beside a built page (file:// allows no fetch, but
// scripts), or the kernel of a notebook.
const KERNEL_MS = 20_000;

function pantry(model) {
  const from = model.send ? kernelPantry(model) : pagePantry();
  const known = new Map();
  return (name) => {
    if (!known.has(name)) {
      const bytes = from(name);
      bytes.catch(() => known.delete(name)); // so that another press tries again
      known.set(name, bytes);
    }
    return known.get(name);
  };
}

const unpack64 = (text) => {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    throw new Error("its bytes are damaged: build the book again");
  }
};

function pagePantry() {
  const root = document.documentElement.dataset.content_root ?? "";
  return (name) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${root}_static/run-here/${name}.js`;
      script.onload = () => {
        script.remove();
        const text = globalThis.paRunHere?.[name];
        if (text === undefined) return reject(new Error("its bytes are damaged: build the book again"));
        delete globalThis.paRunHere[name];
        resolve(text);
      };
      script.onerror = () => {
        script.remove();
        reject(new Error("its file is not beside this page: open the built book, or run this cell"));
      };
      document.head.append(script);
    }).then(unpack64);
}

function kernelPantry(model) {
  const waiting = new Map();
  model.on("msg:custom", (message, buffers) => {
    const asked = waiting.get(message?.name);
    waiting.delete(message?.name);
    if (message?.error) asked?.reject(new Error(message.error));
    else if (buffers?.[0]) asked?.resolve(new Uint8Array(buffers[0].buffer ?? buffers[0], buffers[0].byteOffset ?? 0, buffers[0].byteLength));
  });
  return (name) =>
    new Promise((resolve, reject) => {
      waiting.set(name, { resolve, reject });
      setTimeout(() => reject(new Error("no kernel answers: run this cell again")), KERNEL_MS);
      model.send({ load: name });
    });
}
