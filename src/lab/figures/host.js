// The host for a page without a kernel: finds its figures, gives each a model, and calls the same module that Jupyter calls.
(key, packed) => {
  // The module comes packed (zlib, base64), to be imported as a data URL: a file beside the page would be refused under file://.
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const text = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  const load = () => text.then((source) => import("data:text/javascript;charset=utf-8," + encodeURIComponent(source)));
  const model = (values) => {
    const heard = {};
    const hear = (event) => (heard[event] ??= new Set());
    return {
      get: (name) => values[name],
      set(name, value) {
        if (values[name] === value) return;
        values[name] = value;
        for (const event of [`change:${name}`, "change"]) for (const listener of [...hear(event)]) listener();
      },
      on: (event, listener) => void hear(event).add(listener),
      off: (event, listener) => void (listener ? hear(event).delete(listener) : delete heard[event]),
      save_changes() {},
    };
  };
  // Identical figures share a key: each script takes those above it that no script has taken yet.
  for (const figure of document.querySelectorAll(`.pa-widget[data-key="${key}"]:not([data-live])`)) {
    figure.dataset.live = "";
    load().then(({ default: widget }) => {
      const el = document.createElement("div");
      widget.render({ model: model(JSON.parse(figure.querySelector("script").textContent)), el });
      figure.querySelector(".pa-still").replaceWith(el);
    });
  }
}
