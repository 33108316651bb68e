// A packed network's sections to its tensors (docs/file-format.md). One function, since a worker gets it as text; every loop is bounded by
// sizes that were checked, and pauses, so that a hostile file takes neither memory nor the page.
const Decoder = () => {
  const MOST = 2 ** 22; // numbers in a network: ten times what a page shows
  const PAUSE = 4096; // symbols between two pauses
  const need = (holds, words) => {
    if (!holds) throw new Error(words);
  };
  const whole = (value, low, high) => Number.isInteger(value) && value >= low && value <= high;

  // -- models --

  // Cumulative shares of 2^24, and where to start looking for the symbol of a quantile.
  function model([first, text]) {
    need(Number.isInteger(first) && typeof text === "string" && whole(text.length, 1, 65536), "a table that is none");
    const n = text.length;
    const sums = new Float64Array(n + 1);
    let k = 0;
    for (let i = 0; i < n; i++) {
      k = (((k + text.charCodeAt(i) - 35) % 65) + 65) % 65;
      sums[i + 1] = sums[i] + (k ? [16, 19, 23, 27][(k - 1) % 4] * 2 ** Math.floor((k - 1) / 4) : 0);
    }
    need(whole(sums[n], 1, 2 ** 28), "a table without weights");
    const F = Float64Array.from(sums, (sum, i) => i + Math.floor((sum * (2 ** 24 - n)) / sums[n]));
    const start = new Int32Array(4096);
    for (let bucket = 0, i = 0; bucket < 4096; bucket++) {
      while (F[i + 1] <= bucket * 4096) i++;
      start[bucket] = i;
    }
    return { first, n, F, start };
  }

  // -- the coder: a stack of words and a state of 64 bits, kept as two halves --

  function coder(words) {
    let left = words.length;
    let [high, low] = [0, 0];
    const pop = () => words[--left];
    if (left) low = pop();
    if (left) [high, low] = [low, pop()];
    const read = ({ first, n, F, start }) => {
      if (n === 1) return first;
      const q = low & 0xffffff;
      let i = start[q >> 12];
      while (F[i + 1] <= q) i++;
      const share = F[i + 1] - F[i];
      const top = high * 256 + (low >>> 24); // below 2^40: exact
      const a = Math.floor(top / 1048576) * share; // times 2^20
      const b = (top % 1048576) * share + q - F[i];
      const sum = (a % 4096) * 1048576 + b;
      low = sum % 4294967296;
      high = Math.floor(a / 4096) + Math.floor(sum / 4294967296);
      if (high === 0 && left) [high, low] = [low, pop()];
      return first + i;
    };
    return { read, used: () => left === 0 && high === 0 && low === 0 };
  }

  // -- the sections of one file --

  function sections(file) {
    const tables = file.tables.map(model);
    const table = (index) => {
      need(whole(index, 0, tables.length - 1), "a table that there is not");
      return tables[index];
    };
    const coded = coder(file.words);
    const cursor = (bytes) => {
      let at = 0;
      const take = (size) => {
        need(at + size <= bytes.length, "it is cut short");
        return bytes.subarray(at, (at += size));
      };
      return { take, used: () => at === bytes.length };
    };
    return { table, coded, raw: cursor(file.raw), blob: cursor(file.blob) };
  }

  function* symbols(coded, table, count, keep) {
    for (let i = 0; i < count; i++) {
      keep(i, coded.read(table));
      if (i % PAUSE === PAUSE - 1) yield;
    }
  }

  function* array(file, { t, r, c }, count, shape) {
    need(Array.isArray(t) && t.length > 0, "an array without a table");
    const out = new Int32Array(count);
    const tables = t.map(file.table);
    if (tables.length === 1) {
      yield* symbols(file.coded, tables[0], count, (i, symbol) => (out[i] = symbol));
      return out;
    }
    need(typeof r === "string" && typeof c === "string" && shape.length > 1, "an array without classes");
    const [rows, columns] = shape;
    need(r.length === rows && c.length === columns, "classes that do not fit");
    const rest = count / (rows * columns);
    const members = tables.map(() => []);
    for (let row = 0, i = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const own = members[r.charCodeAt(row) - 35 + c.charCodeAt(column) - 35];
        need(own, "a class that there is not");
        for (let k = 0; k < rest; k++) own.push(i++);
      }
    }
    for (let n = 0; n < tables.length; n++) {
      const own = members[n];
      yield* symbols(file.coded, tables[n], own.length, (k, symbol) => (out[own[k]] = symbol));
    }
    return out;
  }

  // -- types --

  const half = (bits) => {
    const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
  };
  const bits32 = new DataView(new ArrayBuffer(4));
  const single = (bits) => (bits32.setUint32(0, bits), bits32.getFloat32(0));
  const types = {
    float32: { size: 4, read: (view, at) => view.getFloat32(at, true), low: 22, planes: [6, 8, 8], of: single },
    bfloat16: { size: 2, read: (view, at) => single(view.getUint16(at, true) << 16), low: 6, planes: [6], of: (bits) => single(bits << 16) },
    float16: { size: 2, read: (view, at) => half(view.getUint16(at, true)), low: 8, planes: [8], of: half },
    float64: { size: 8, read: (view, at) => view.getFloat64(at, true) },
    int64: { size: 8, read: (view, at) => Number(view.getBigInt64(at, true)) },
    int32: { size: 4, read: (view, at) => view.getInt32(at, true) },
    int8: { size: 1, read: (view, at) => view.getInt8(at) },
    uint8: { size: 1, read: (view, at) => view.getUint8(at) },
    bool: { size: 1, read: (view, at) => view.getUint8(at) },
  };
  const numbers = (bytes, { size, read }) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return Float64Array.from({ length: bytes.length / size }, (_, i) => read(view, i * size));
  };

  // -- forms --

  const forms = {
    *float(file, { base, s, m }, type, count, shape) {
      need(type.planes && Number.isInteger(base) && Array.isArray(m) && m.length === type.planes.length, "a form that this page does not read");
      const head = yield* array(file, s, count, shape);
      const kept = head.reduce((sum, symbol) => sum + (symbol !== 0), 0);
      const tails = new Uint32Array(kept);
      for (const [n, bits] of type.planes.entries()) {
        if (m[n] >= 0) {
          yield* symbols(file.coded, file.table(m[n]), kept, (i, symbol) => (tails[i] = tails[i] * 2 ** bits + (symbol & (2 ** bits - 1))));
          continue;
        }
        const bytes = file.raw.take(Math.ceil((kept * bits) / 8));
        for (let i = 0, at = 0; i < kept; i++, at += bits) {
          const two = (bytes[at >> 3] << 8) | (bytes[(at >> 3) + 1] ?? 0);
          tails[i] = tails[i] * 2 ** bits + ((two >> (16 - bits - (at & 7))) & (2 ** bits - 1));
        }
        yield;
      }
      const width = 8 * type.size;
      const out = new Float32Array(count);
      for (let i = 0, k = 0; i < count; i++) {
        if (head[i] === 0) continue;
        const turned = (head[i] - 1 + base) * 2 ** type.low + tails[k++];
        out[i] = type.of(Math.floor(turned / 2) + (turned % 2) * 2 ** (width - 1));
      }
      return out;
    },
    *palette(file, { n, s }, type, count, shape) {
      need(whole(n, 1, 65536), "a palette without values");
      const values = numbers(file.raw.take(n * type.size), type);
      const which = yield* array(file, s, count, shape);
      need(which.every((symbol) => symbol >= 0 && symbol < n), "a value that there is not");
      return Float32Array.from(which, (symbol) => values[symbol]);
    },
    *scaled(file, { first, n, s }, type, count, shape) {
      need(type === types.float32 && Number.isInteger(first) && (n === 1 || n === shape[0]), "scales that do not fit");
      const scales = numbers(file.raw.take(4 * n), type);
      const which = yield* array(file, s, count, shape);
      const each = count / n;
      return Float32Array.from(which, (symbol, i) => Math.fround(symbol + first) * scales[Math.floor(i / each)]);
    },
    *levels(file, { scale, block, p, l }, type, count, shape) {
      need(type === types.float32 && Number.isFinite(scale) && whole(block, 1, 2 ** 32) && l && typeof l === "object", "levels without a scale");
      const blocks = yield* array(file, p, Math.ceil(count / block), block === 1 ? shape : []);
      const out = new Float32Array(count);
      const bits = Uint8Array.from(out, (_, i) => blocks[Math.floor(i / block)]);
      need(blocks.every((one) => one >= 0 && one <= 24 && (one === 0 || String(one) in l)), "a precision that there is not");
      for (let width = 1; width <= 24; width++) {
        if (!(String(width) in l)) continue;
        const own = [];
        for (let i = 0; i < count; i++) if (bits[i] === width) own.push(i);
        const low = Math.max(0, width - 10);
        const level = new Float64Array(own.length);
        yield* symbols(file.coded, file.table(l[width]), own.length, (i, symbol) => (level[i] = symbol * 2 ** low));
        const size = low ? (low > 8 ? 2 : 1) : 0;
        const bytes = file.raw.take(size * own.length);
        own.forEach((i, k) => {
          const number = level[k] + (size ? bytes[k * size] + (size > 1 ? bytes[k * size + 1] * 256 : 0) : 0);
          out[i] = Math.fround((2 * number + 1 - 2 ** width) * 2 ** (1 - width)) * scale;
        });
        yield;
      }
      return out;
    },
    *bytes(file, _, type, count) {
      return Float32Array.from(numbers(file.blob.take(count * type.size), type));
    },
  };

  function* decode(file) {
    need(Array.isArray(file.tables) && Array.isArray(file.tensors), "a header that is none");
    const open = sections(file);
    const tensors = new Map();
    let total = 0;
    for (const [name, dtype, shape, form, how] of file.tensors) {
      need(typeof name === "string" && Array.isArray(shape) && shape.length <= 8 && shape.every((size) => whole(size, 0, MOST)), "a shape that is none");
      const count = shape.reduce((a, b) => a * b, 1);
      if (form === "same") {
        const first = tensors.get(how.as);
        need(first && String(first.shape) === String(shape), "a second name of nothing");
        tensors.set(name, first);
        continue;
      }
      need((total += count) <= MOST, "it has more numbers than this page reads");
      need(Object.hasOwn(forms, form) && Object.hasOwn(types, dtype), `${name} has a form or a type that this page does not read`);
      tensors.set(name, { shape, data: yield* forms[form](open, how, types[dtype], count, shape) });
      yield;
    }
    need(open.coded.used() && open.raw.used() && open.blob.used(), "something is left over");
    return { about: file.meta, tensors };
  }
  return { decode };
};
