// Answers requests about networks: in a worker where the browser gives one, else in slices of a few milliseconds between frames.
// A request is a generator that pauses after each step; what it is sent at a pause is the time that others had meanwhile.
const Service = (decoder, engine) => {
  const networks = new Map();
  const known = (name) => {
    if (!networks.has(name)) throw new Error(`${name} is not loaded`);
    return networks.get(name);
  };

  // Planes R, G, B of an image, 0 to 255, normalised as the network's training images were.
  const normalised = (pixels, { mean, std }) => {
    const plane = pixels.length / 3;
    return Float64Array.from(pixels, (value, i) => (value / 255 - mean[Math.floor(i / plane)]) / std[Math.floor(i / plane)]);
  };

  function* load(request) {
    try {
      return yield* read(request);
    } catch (error) {
      throw error.constructor === Error ? error : new Error("it contradicts itself"); // such as a property of nothing
    }
  }

  function* read({ name, file, program }) {
    const { about, tensors } = yield* decoder.decode(file);
    const [mean, std] = ["mean", "std"].map((key) => JSON.parse(about[key]));
    if (![mean, std].every((three) => Array.isArray(three) && three.length === 3 && three.every(Number.isFinite))) throw new Error("no mean and deviation of images");
    const network = yield* engine.compile(program, tensors);
    networks.set(name, { ...network, mean, std });
    return { about, layers: network.layers };
  }

  function* answer({ name, pixels, dense, repeats = 1 }) {
    const network = known(name);
    const image = normalised(pixels, network);
    const times = [];
    let scores = null;
    for (let i = 0; i < repeats; i++) {
      const run = engine.run(network, image, dense);
      const begun = performance.now();
      let away = 0;
      let step = run.next();
      while (!step.done) {
        away += (yield) ?? 0;
        step = run.next();
      }
      times.push(performance.now() - begun - away);
      scores = step.value;
    }
    times.sort((a, b) => a - b);
    return { scores: Array.from(scores), ms: times[times.length >> 1] };
  }

  // What a layer gave for the image that was answered last, and its weights.
  function* layer({ name, index }) {
    const { made, layers } = known(name);
    const one = made[layers[index].at];
    return { shape: one.shape, result: Float32Array.from(one.out), weights: Float32Array.from(one.weight.data) };
  }

  const does = { load, answer, layer };
  return (request) => does[request.do](request);
};

// In a worker: one request after the other, each to its end.
const inWorker = (serve) => {
  onmessage = ({ data: { id, request } }) => {
    try {
      const work = serve(request);
      let step = work.next();
      while (!step.done) step = work.next(0);
      postMessage({ id, result: step.value });
    } catch (error) {
      postMessage({ id, error: String(error?.message ?? error) });
    }
  };
};

const SLICE_MS = 8;
const FRAME_MS = 24; // after so long a frame is waited for
const STUCK_MS = 60_000; // no request of an honest file takes so long
// Gives `ask(request)`, a promise, and says whether a worker answers. A worker that fails before its first answer, as one that the page's
// host forbids, is done without.
function engineRoom() {
  const text = `const Decoder = ${Decoder};\nconst Engine = ${Engine};\nconst Service = ${Service};\n(${inWorker})(Service(Decoder(), Engine()));`;
  const waiting = new Map();
  const room = { worker: true, close: () => {} };
  let [last, answered, slices, worker] = [0, false, null, null];
  const without = () => {
    slices ??= inSlices(Service(Decoder(), Engine()));
    room.worker = false;
    for (const { request, resolve, reject, late } of waiting.values()) {
      clearTimeout(late);
      slices(request).then(resolve, reject);
    }
    waiting.clear();
  };
  const fail = (words) => {
    for (const { reject, late } of waiting.values()) {
      clearTimeout(late);
      reject(new Error(words));
    }
    waiting.clear();
  };
  try {
    worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    room.close = () => worker.terminate();
    worker.onmessage = ({ data: { id, result, error } }) => {
      answered = true;
      const asked = waiting.get(id);
      waiting.delete(id);
      clearTimeout(asked?.late);
      if (error === undefined) asked?.resolve(result);
      else asked?.reject(new Error(error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      if (answered) fail(event.message || "the worker failed");
      else without();
    };
  } catch {
    without();
  }
  let stuck = false;
  room.ask = (request) => {
    if (slices) return slices(request);
    if (stuck) return Promise.reject(new Error("an earlier request took more than a minute: load this page anew"));
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        stuck = true;
        worker.terminate();
        fail("it took more than a minute, and was stopped");
      }, STUCK_MS);
      waiting.set(++last, { request, resolve, reject, late });
      worker.postMessage({ id: last, request });
    });
  };
  return room;
}

function inSlices(serve) {
  const message = () =>
    new Promise((done) => {
      const { port1, port2 } = new MessageChannel(); // sooner than a timer: what the reader did meanwhile comes first
      port1.onmessage = () => (port1.close(), done());
      port2.postMessage(0);
    });
  const frame = () =>
    new Promise((done) => {
      const late = setTimeout(done, 2 * FRAME_MS); // a page that nobody looks at has no frames
      requestAnimationFrame(() => {
        clearTimeout(late);
        message().then(done);
      });
    });
  let drawn = 0;
  const pause = async () => {
    if (performance.now() - drawn < FRAME_MS) return message();
    await frame();
    drawn = performance.now();
  };
  let begun = 0; // of the slice, which small requests share: none of them may be long enough to pause
  const work = async (request) => {
    const task = serve(request);
    let step = task.next();
    while (!step.done) {
      let away = 0;
      if (performance.now() - begun > SLICE_MS) {
        const left = performance.now();
        await pause();
        begun = performance.now();
        away = begun - left;
      }
      step = task.next(away);
    }
    return step.value;
  };
  let queue = Promise.resolve();
  return (request) => {
    const done = queue.then(() => work(request));
    queue = done.catch(() => {});
    return done;
  };
}
