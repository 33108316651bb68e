// Pictures: test images from a lossless sheet, and the reader's own, scaled to 32 x 32 in the page. Nothing leaves it.
const SIDE = 32;
const LARGEST_FILE = 40e6; // bytes
const LARGEST_PICTURE = 60e6; // pixels: what a browser needs to draw it is four bytes for each

// Planes R, G, B of each square of SIDE pixels, row by row, from the canvas' own bytes.
function squares(context, columns, count) {
  const { width, height } = context.canvas;
  const all = context.getImageData(0, 0, width, height).data;
  return Array.from({ length: count }, (_, n) => {
    const planes = new Uint8Array(3 * SIDE * SIDE);
    const [left, top] = [(n % columns) * SIDE, Math.floor(n / columns) * SIDE];
    for (let i = 0; i < SIDE * SIDE; i++) {
      const from = 4 * ((top + Math.floor(i / SIDE)) * width + left + (i % SIDE));
      for (let c = 0; c < 3; c++) planes[c * SIDE * SIDE + i] = all[from + c];
    }
    return planes;
  });
}
const canvasOf = (width, height) => {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  return canvas.getContext("2d", { willReadFrequently: true });
};
const adler = (arrays) => {
  let [a, b] = [1, 0];
  for (const bytes of arrays) {
    for (const byte of bytes) {
      a = (a + byte) % 65521;
      b = (b + a) % 65521;
    }
  }
  return b * 65536 + a;
};

// The test images of a sheet, exactly: refused where a browser gives a page other pixels than it draws, as some do against tracking.
async function readSheet(bytes, { columns, count, adler: expected }) {
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/webp" }), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const context = canvasOf(bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const images = squares(context, columns, count);
  if (adler(images) !== expected) throw new Error("this browser gives the page other pixels than the file's (a protection against tracking does so)");
  return images;
}

// Whether a picture moves, from its file's first bytes: GIF's loop, APNG's and WebP's animation chunks.
const moves = (bytes) => {
  const text = String.fromCharCode(...bytes.subarray(0, 4096));
  return /^GIF8[^]*NETSCAPE2\.0/.test(text) || /^\x89PNG[^]*acTL/.test(text) || /^RIFF[^]{4}WEBP[^]*ANIM/.test(text);
};

// The reader's own picture: its middle square, scaled down. Gives { pixels, remarks }, or throws one line that says what is wrong.
async function readOwn(file) {
  if (!file) throw new Error("That was no file: drop a picture, or choose one.");
  if (file.type && !file.type.startsWith("image/")) throw new Error(`${file.name} is no picture (${file.type}): choose a PNG, JPEG, WebP or GIF.`);
  if (!file.size) throw new Error(`${file.name} is empty: choose another picture.`);
  if (file.size > LARGEST_FILE) throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB: choose a picture below ${LARGEST_FILE / 1e6} MB.`);
  const remarks = moves(new Uint8Array(await file.slice(0, 4096).arrayBuffer())) ? ["it moves, and its first frame was taken"] : [];
  const address = URL.createObjectURL(file);
  try {
    const image = new Image();
    await new Promise((done, fail) => {
      image.onload = done;
      image.onerror = () => fail(new Error(`${file.name} is no picture that this browser can read: choose a PNG, JPEG, WebP or GIF.`));
      image.src = address;
    });
    const [width, height] = [image.naturalWidth, image.naturalHeight]; // known before the picture is decoded
    if (!width || !height) throw new Error(`${file.name} states no size: choose a PNG, JPEG, WebP or GIF.`);
    if (width * height > LARGEST_PICTURE) throw new Error(`${file.name} has ${width} × ${height} pixels: choose one below ${LARGEST_PICTURE / 1e6} million.`);
    return { pixels: scaled(image, width, height, remarks, file.name), remarks };
  } finally {
    URL.revokeObjectURL(address);
  }
}

function scaled(image, width, height, remarks, name) {
  const side = Math.min(width, height);
  if (width !== height) remarks.push("its middle square was taken");
  let size = Math.max(SIDE, Math.min(side, 1024));
  let from = canvasOf(size, size);
  from.imageSmoothingQuality = "high";
  from.drawImage(image, (width - side) / 2, (height - side) / 2, side, side, 0, 0, size, size);
  while (size > SIDE) { // by halves, so that every pixel counts
    const next = Math.max(SIDE, size >> 1);
    const to = canvasOf(next, next);
    to.imageSmoothingQuality = "high";
    to.drawImage(from.canvas, 0, 0, size, size, 0, 0, next, next);
    [from, size] = [to, next];
  }
  let data = null;
  try {
    data = from.getImageData(0, 0, SIDE, SIDE).data;
  } catch {
    throw new Error(`${name} cannot be read by a page (it draws on other files): choose a PNG, JPEG, WebP or GIF.`);
  }
  if (data.some((value, i) => i % 4 === 3 && value < 255)) {
    remarks.push("it is transparent in places, and was laid on white");
    const ground = canvasOf(SIDE, SIDE);
    ground.fillStyle = "#fff";
    ground.fillRect(0, 0, SIDE, SIDE);
    ground.drawImage(from.canvas, 0, 0);
    from = ground;
  }
  return squares(from, 1, 1)[0];
}

// A picture on a canvas, in its own pixels: enlarged by style.
function paint(canvas, pixels) {
  const context = Object.assign(canvas, { width: SIDE, height: SIDE }).getContext("2d");
  const data = context.createImageData(SIDE, SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) data.data.set([0, 1, 2].map((c) => pixels[c * SIDE * SIDE + i]).concat(255), 4 * i);
  context.putImageData(data, 0, 0);
}
