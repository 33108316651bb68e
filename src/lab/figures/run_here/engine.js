// Runs a network's steps (program.py) on one image with plain loops over typed arrays. Not a module: joined with its neighbours, and given to
// a worker as text, so all of it lies in one function. Weights are lists of (place, value): the sparse ones leave zeros out, the dense ones do not.
const Engine = () => {
  const LARGEST = 2 ** 22; // values of one result, and places of one step: far above what a small network needs
  const sized = (name, tensors) => {
    const tensor = tensors.get(name);
    if (!tensor) throw new Error(`no tensor ${name}`);
    return tensor;
  };
  const need = (holds, words) => {
    if (!holds) throw new Error(words);
  };

  // A list of kept weights for each output: where each one reads, counted from the output's own corner, and its value.
  function list({ data, shape }, place, dense) {
    const outputs = shape[0];
    const size = data.length / outputs;
    const start = new Int32Array(outputs + 1);
    let kept = 0;
    for (let i = 0; i < data.length; i++) {
      if (dense || data[i] !== 0) kept++;
      if ((i + 1) % size === 0) start[(i + 1) / size] = kept;
    }
    const offset = new Int32Array(kept);
    const value = new Float64Array(kept);
    for (let i = 0, k = 0; i < data.length; i++) {
      if (!dense && data[i] === 0) continue;
      offset[k] = place(i % size, Math.floor(i / size));
      value[k++] = data[i];
    }
    return { start, offset, value };
  }

  // BatchNorm in evaluation and bias as one factor and one term for each output.
  function affine(step, tensors, outputs) {
    const scale = new Float64Array(outputs).fill(1);
    const shift = new Float64Array(outputs);
    if (step.bias) {
      const { data } = sized(step.bias, tensors);
      need(data.length === outputs, `${step.bias} has ${data.length} values for ${outputs} outputs`);
      shift.set(data);
    }
    if (step.norm) {
      const [weight, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map((part) => {
        const { data } = sized(`${step.norm}.${part}`, tensors);
        need(data.length === outputs, `${step.norm}.${part} has ${data.length} values for ${outputs} channels`);
        return data;
      });
      for (let o = 0; o < outputs; o++) {
        scale[o] = weight[o] / Math.sqrt(variance[o] + step.eps);
        shift[o] = bias[o] + (shift[o] - mean[o]) * scale[o];
      }
    }
    return { scale, shift };
  }

  // The loop that all this is about: eight outputs side by side walk one list, a multiplication for each of its entries.
  function convolve({ start, offset, value }, input, out, { outputs, height, width, stride, row, plane }) {
    const s2 = 2 * stride;
    const s3 = 3 * stride;
    const s4 = 4 * stride;
    const s5 = 5 * stride;
    const s6 = 6 * stride;
    const s7 = 7 * stride;
    const whole = width - (width % 8);
    for (let o = 0; o < outputs; o++) {
      const first = start[o];
      const end = start[o + 1];
      for (let y = 0; y < height; y++) {
        const base = y * stride * row;
        const at = o * plane + y * width;
        for (let x = 0; x < whole; x += 8) {
          const corner = base + x * stride;
          let a = 0;
          let b = 0;
          let c = 0;
          let d = 0;
          let e = 0;
          let f = 0;
          let g = 0;
          let h = 0;
          for (let k = first; k < end; k++) {
            const from = corner + offset[k];
            const w = value[k];
            a += w * input[from];
            b += w * input[from + stride];
            c += w * input[from + s2];
            d += w * input[from + s3];
            e += w * input[from + s4];
            f += w * input[from + s5];
            g += w * input[from + s6];
            h += w * input[from + s7];
          }
          const to = at + x;
          out[to] = a;
          out[to + 1] = b;
          out[to + 2] = c;
          out[to + 3] = d;
          out[to + 4] = e;
          out[to + 5] = f;
          out[to + 6] = g;
          out[to + 7] = h;
        }
        for (let x = whole; x < width; x++) {
          const corner = base + x * stride;
          let a = 0;
          for (let k = first; k < end; k++) a += value[k] * input[corner + offset[k]];
          out[at + x] = a;
        }
      }
    }
  }

  function finish(out, plane, scale, shift, added, relu) {
    for (let o = 0, i = 0; o < scale.length; o++) {
      const a = scale[o];
      const b = shift[o];
      for (let n = 0; n < plane; n++, i++) {
        let value = out[i] * a + b;
        if (added) value += added[i];
        out[i] = relu && value < 0 ? 0 : value;
      }
    }
  }

  // The image with `by` values of zero on each side.
  function padded(input, [channels, height, width], by, room) {
    if (!by) return input;
    const row = width + 2 * by;
    for (let c = 0, from = 0; c < channels; c++) {
      for (let y = 0; y < height; y++, from += width) {
        const to = (c * (height + 2 * by) + y + by) * row + by;
        for (let x = 0; x < width; x++) room[to + x] = input[from + x];
      }
    }
    return room;
  }

  const product = (shape) => shape.reduce((a, b) => a * b, 1);
  const steps = {
    conv(step, [shape], tensors) {
      const weight = sized(step.weight, tensors);
      const [outputs, inputs, kh, kw] = weight.shape;
      const { stride, padding, groups } = step;
      need(weight.shape.length === 4 && inputs * groups === shape[0] && outputs % groups === 0, `${step.weight} does not fit its input`);
      const [tall, row] = [shape[1] + 2 * padding, shape[2] + 2 * padding];
      const [height, width] = [Math.floor((tall - kh) / stride) + 1, Math.floor((row - kw) / stride) + 1];
      need(height > 0 && width > 0, `${step.weight} is larger than its input`);
      const place = (i, o) => {
        const input = Math.floor(i / (kh * kw)) + Math.floor(o / (outputs / groups)) * inputs;
        return (input * tall + (Math.floor(i / kw) % kh)) * row + (i % kw);
      };
      const geometry = { outputs, height, width, stride, row, plane: height * width };
      const room = padding ? new Float64Array(shape[0] * tall * row) : null;
      const run = (lists, [x], out) => convolve(lists, padded(x, shape, padding, room), out, geometry);
      return { shape: [outputs, height, width], weight, place, positions: height * width, run };
    },
    linear(step, [shape], tensors) {
      const weight = sized(step.weight, tensors);
      need(weight.shape.length === 2 && weight.shape[1] === product(shape), `${step.weight} does not fit its input`);
      const geometry = { outputs: weight.shape[0], height: 1, width: 1, stride: 1, row: 1, plane: 1 };
      const run = (lists, [x], out) => convolve(lists, x, out, geometry);
      return { shape: [weight.shape[0]], weight, place: (i) => i, positions: 1, run };
    },
    norm: (step, [shape]) => ({ shape, scaled: true, run: (_, [x], out) => out.set(x) }),
    relu: (step, [shape]) => ({ shape, run: (_, [x], out) => out.forEach((_, i) => (out[i] = Math.max(0, x[i]))) }),
    add(step, [shape, other]) {
      need(String(shape) === String(other), "a sum of two shapes");
      return { shape, run: (_, [x, y], out) => out.forEach((_, i) => (out[i] = x[i] + y[i])) };
    },
    flatten: (step, [shape]) => ({ shape: [product(shape)], run: (_, [x], out) => out.set(x) }),
    mean(step, [shape]) {
      const plane = shape[1] * shape[2];
      const average = (x, c) => x.subarray(c * plane, (c + 1) * plane).reduce((sum, value) => sum + value, 0) / plane;
      return { shape: [shape[0]], run: (_, [x], out) => out.forEach((_, c) => (out[c] = average(x, c))) };
    },
    max: (step, [shape]) => pool(step, shape, -Infinity, Math.max, (value) => value),
    average: (step, [shape]) => pool(step, shape, 0, (sum, value) => sum + value, (sum) => sum / step.kernel ** 2),
    concat(step, shapes) {
      const run = (_, inputs, out) => void inputs.reduce((at, x) => (out.set(x, at), at + x.length), 0);
      return { shape: [shapes.reduce((sum, shape) => sum + shape[0], 0), ...shapes[0].slice(1)], run };
    },
    shuffle({ groups }, [shape]) {
      const plane = shape[1] * shape[2];
      const each = shape[0] / groups;
      const run = (_, [x], out) => {
        for (let c = 0; c < shape[0]; c++) {
          const from = ((c % groups) * each + Math.floor(c / groups)) * plane;
          out.set(x.subarray(from, from + plane), c * plane);
        }
      };
      return { shape, run };
    },
  };

  // Pooling with zeros beyond the edge (which the mean counts and the maximum does not see).
  function pool({ kernel, stride, padding }, [channels, tall, wide], start, join, end) {
    const [height, width] = [tall, wide].map((size) => Math.floor((size + 2 * padding - kernel) / stride) + 1);
    const run = (_, [x], out) => {
      for (let i = 0; i < out.length; i++) {
        const [c, y, z] = [Math.floor(i / (height * width)), Math.floor(i / width) % height, i % width];
        let value = start;
        for (let k = 0; k < kernel * kernel; k++) {
          const row = y * stride - padding + Math.floor(k / kernel);
          const column = z * stride - padding + (k % kernel);
          if (row >= 0 && row < tall && column >= 0 && column < wide) value = join(value, x[(c * tall + row) * wide + column]);
        }
        out[i] = end(value);
      }
    };
    return { shape: [channels, height, width], run };
  }

  // A network ready to run: buffers, lists and factors made once. Every loop is bounded by shapes that were checked first.
  function* compile(program, tensors, image = [3, 32, 32]) {
    const shapes = [image];
    const made = [];
    for (const step of program) {
      need(steps[step.do], `a step that this page does not know: ${step.do}`);
      const one = steps[step.do](step, step.of.map((n) => shapes[n]), tensors);
      need(product(one.shape) <= LARGEST, "a result that is too large");
      shapes.push(one.shape);
      need(step.add === undefined || String(shapes[step.add]) === String(one.shape), "a sum of two shapes");
      const lists = one.weight && { sparse: list(one.weight, one.place, false), dense: list(one.weight, one.place, true) };
      const ends = one.weight || one.scaled ? affine(step, tensors, one.shape[0]) : null;
      made.push({ ...one, ...lists, ends, step, out: new Float64Array(product(one.shape)) });
      yield;
    }
    const layers = made.flatMap(({ weight, shape, positions, step, sparse }, at) =>
      weight ? [{ at, name: step.weight.replace(/\.weight$/, ""), shape: weight.shape, result: shape, positions, kept: sparse.value.length }] : []);
    return { made, layers };
  }

  // One image through the network; it pauses after each step. Results of all steps stay in the network's buffers.
  function* run({ made }, image, dense) {
    const values = [image, ...made.map((one) => one.out)];
    for (const one of made) {
      const { step, out, ends } = one;
      one.run(dense ? one.dense : one.sparse, step.of.map((n) => values[n]), out);
      if (ends) finish(out, out.length / ends.scale.length, ends.scale, ends.shift, step.add === undefined ? null : values[step.add], step.relu);
      yield;
    }
    return values[values.length - 1];
  }
  return { compile, run };
};
