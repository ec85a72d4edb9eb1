"use strict";
/* Runs a network that was compiled to WebAssembly, on what a visitor draws, drops or records, and shows its spikes. All
   arithmetic of the network is in the module; what is here makes its input from a file, as zoo predict does. */
(async () => {
const $ = id => document.getElementById(id);
const model = JSON.parse($("model").textContent);
const [channels, height, width] = model.shape;
const N_DRAWN = 96; /* rows of a raster */
const PLAY_MS = 3000; /* longest duration of the spikes' animation */

/* ---- the module ---- */

async function inflated(base64) {
  const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const module = (await WebAssembly.instantiate(await inflated(model.wasm))).instance.exports;
const Index = model.index_bytes === 2 ? Uint16Array : Uint32Array;
const Input = model.input_bytes === 2 ? Uint16Array : Uint8Array;

/* Runs the network on a picture, one array, or on events, an array for each step. Returns the state of each step. */
function run(frames) {
  const memory = module.memory.buffer;
  const input = new Input(memory, module.input_place(), channels * height * width);
  const steps = [], start = performance.now();
  input.set(frames[0]);
  module.begin();
  for (let t = 0; t < (model.is_timed ? frames.length : model.units.length); ++t) {
    if (model.is_timed) input.set(frames[t]);
    const answer = module.step();
    steps.push({
      answer,
      logits: [...new Int32Array(memory, module.logits_place(), model.classes.length)],
      spikes: model.layers.map((_, i) => new Index(memory, module.spikes_place(i), module.spike_count(i)).slice()),
      overflows: module.overflow_count(),
    });
  }
  performance.measure("snnzoo-run", {start, detail: steps.length});
  return steps;
}

/* ---- from pixels to the input: the rules of zoo/prediction.py and of Pillow's resize ---- */

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const triangle = x => Math.max(0, 1 - Math.abs(x));
const cubic = x => {
  const d = Math.abs(x);
  return d < 1 ? (1.5 * d - 2.5) * d * d + 1 : d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
};

/* Weights of a resize of `n` pixels to `m`: first pixel and weights for each new one. */
function taps(n, m, filter, reach) {
  const scale = n / m, wide = Math.max(scale, 1);
  return Array.from({length: m}, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach * wide + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach * wide + 0.5), n);
    const weights = Array.from({length: end - first}, (_, k) => filter((first + k - centre + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0);
    return [first, weights.map(w => w / sum)];
  });
}

/* Resizes a plane {data, width, height}; `finish` is applied to each sum of both passes. */
function resized(plane, w, h, filter, reach, finish) {
  let {data, width: from} = plane, rows = plane.height;
  if (from !== w) {
    const across = taps(from, w, filter, reach), next = new Float64Array(rows * w);
    for (let y = 0; y < rows; ++y) {
      across.forEach(([first, weights], x) => {
        next[y * w + x] = finish(weights.reduce((sum, weight, k) => sum + weight * data[y * from + first + k], 0));
      });
    }
    data = next;
  }
  if (rows !== h) {
    const down = taps(rows, h, filter, reach), next = new Float64Array(h * w);
    down.forEach(([first, weights], y) => {
      for (let x = 0; x < w; ++x) {
        next[y * w + x] = finish(weights.reduce((sum, weight, k) => sum + weight * data[(first + k) * w + x], 0));
      }
    });
    data = next;
  }
  return {data, width: w, height: h};
}

const greyOf = (r, g, b) => (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
const contrast = values => values.reduce((a, b) => Math.max(a, b), 0) - values.reduce((a, b) => Math.min(a, b), 1e9);

/* Red, green and blue of an image, as planes of 0..255. Transparent ones lie on white, or on black if that shows more. */
function opaque(image) {
  const {data, width: w, height: h} = image, n = w * h;
  const on = paper => [0, 1, 2].map(c => ({width: w, height: h, data: Float64Array.from({length: n}, (_, i) => {
    const a = data[4 * i + 3];
    return a === 255 ? data[4 * i + c] : Math.round((data[4 * i + c] * a + paper * (255 - a)) / 255);
  })}));
  const white = on(255);
  if (!data.some((v, i) => i % 4 === 3 && v < 255)) return white;
  const black = on(0), seen = planes => contrast(grey(planes).data);
  return seen(black) > 2 * seen(white) ? black : white;
}

function grey([r, g, b]) {
  return {...r, data: r.data.map((v, i) => greyOf(v, g.data[i], b.data[i]))};
}

/* Cuts out the content of a grey plane in 0..1, scales it and centres it on black, as in the training images. */
function framed(plane) {
  const {data, width: w, height: h} = plane;
  const edge = [...data.slice(0, w), ...data.slice(-w)];
  for (let y = 0; y < h; ++y) edge.push(data[y * w], data[y * w + w - 1]);
  edge.sort((a, b) => a - b);
  const background = edge[(edge.length - 1) >> 1];
  const least = data.reduce((a, b) => Math.min(a, b)), most = data.reduce((a, b) => Math.max(a, b));
  const ink = background - least > most - background; /* dark on light: inverted */
  const value = ink ? v => 1 - v : v => v, ground = value(background), top = ink ? 1 - least : most;
  if (w === width && h === height) return {...plane, data: data.map(value)};
  const spread = Math.max(top - ground, 1 / 255);
  const light = data.map(v => clamp((value(v) - ground) / spread, 0, 1));
  let x0 = w, x1 = -1, y0 = h, y1 = -1;
  light.forEach((v, i) => {
    if (v > 0.2) {
      const x = i % w, y = (i - x) / w;
      x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y);
    }
  });
  const out = {data: new Float64Array(height * width), width, height};
  if (x1 < 0) return out;
  const cut = {width: x1 - x0 + 1, height: y1 - y0 + 1, data: null};
  cut.data = Float64Array.from({length: cut.width * cut.height}, (_, i) =>
    light[(y0 + Math.floor(i / cut.width)) * w + x0 + i % cut.width]);
  const scale = model.framing.part * Math.min(height / cut.height, width / cut.width);
  const size = side => Math.max(1, Math.round(side * scale));
  const small = resized(cut, size(cut.width), size(cut.height), triangle, 1, v => v);
  small.data = small.data.map(v => clamp(v, 0, 1));
  let content = [(small.height - 1) / 2, (small.width - 1) / 2], middle = [(height - 1) / 2, (width - 1) / 2];
  if (model.framing.by_mass) {
    let sum = 0, down = 0, across = 0;
    small.data.forEach((v, i) => {
      sum += v; down += v * Math.floor(i / small.width); across += v * (i % small.width);
    });
    content = [down / sum, across / sum];
    middle = [height / 2, width / 2];
  }
  const y = clamp(Math.round(middle[0] - content[0]), 0, height - small.height);
  const x = clamp(Math.round(middle[1] - content[1]), 0, width - small.width);
  small.data.forEach((v, i) => { out.data[(y + Math.floor(i / small.width)) * width + x + i % small.width] = v; });
  return out;
}

/* Bytes of an image for the network, in the order channel, row, column. */
function pixelsOf(image) {
  const colours = opaque(image);
  if (channels === 1 && model.framing) {
    const plane = grey(colours);
    return Uint8Array.from(framed({...plane, data: plane.data.map(v => v / 255)}).data, v => Math.round(255 * v));
  }
  const planes = channels === 1 ? [grey(colours)] : colours;
  const whole = v => clamp(Math.round(v), 0, 255);
  return Uint8Array.from(planes.flatMap(plane => [...resized(plane, width, height, cubic, 2, whole).data]));
}

async function readImage(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {premultiplyAlpha: "none", colorSpaceConversion: "none"});
  } catch {
    throw new Error(`${file.name}: not an image that this browser reads`);
  }
  if (bitmap.width * bitmap.height > 2 ** 24) throw new Error(`${file.name}: more than 16 million pixels`);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return [pixelsOf(context.getImageData(0, 0, bitmap.width, bitmap.height))];
}

/* ---- recordings of events: bootstrap_core/data/events ---- */

async function readEvents(file) {
  const kind = /\.(bin|bs1|bs2)$/i.exec(file.name);
  if (!kind) throw new Error(`${file.name}: the page reads recordings in .bin, .bs1 and .bs2`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (!bytes.length || bytes.length % 5) throw new Error(`${file.name}: ${bytes.length} bytes are not events of 5 bytes`);
  const flat = kind[1].toLowerCase() === "bs1", frames = framesOf(model.units.length);
  for (let i = 0, late = 0; i < bytes.length; i += 5) {
    const [a, b, high, middle, low] = bytes.subarray(i, i + 5);
    if (!flat && b === 240) {
      late += 8192;
      continue;
    }
    const [x, y] = flat ? [a << 8 | b, 0] : [a, b];
    if (x >= width || y >= height) {
      throw new Error(`${file.name}: event ${i / 5} is at row ${y}, column ${x}; the network takes ${height} x ${width}`);
    }
    const step = Math.floor(((high & 127) << 16 | middle << 8 | low) + late) / model.bin_us | 0;
    const cell = ((channels === 2 ? high >> 7 : 0) * height + y) * width + x;
    if (step < frames.length) frames[step][cell] = Math.min(frames[step][cell] + 1, 2 ** model.bits - 1);
  }
  return frames;
}

const framesOf = n => Array.from({length: n}, () => new Input(channels * height * width));

/* ---- sounds: bootstrap_core/data/sound_files.py ---- */

/* Samples of a WAV file of 16 bits at the network's rate; null for any other, which the browser may decode. */
function wavSamples(buffer) {
  const view = new DataView(buffer), name = at => String.fromCharCode(...new Uint8Array(buffer, at, 4));
  if (view.byteLength < 12 || name(0) !== "RIFF" || name(8) !== "WAVE") return null;
  let head = null;
  for (let at = 12; at + 8 <= view.byteLength;) {
    const id = name(at), n = view.getUint32(at + 4, true);
    at += 8;
    if (at + n > view.byteLength) return null;
    if (id === "fmt ") head = at;
    if (id === "data" && head !== null) {
      const n_channels = view.getUint16(head + 2, true);
      if (view.getUint16(head, true) !== 1 || view.getUint16(head + 14, true) !== 16) return null;
      if (view.getUint32(head + 4, true) !== model.log_mel.sample_rate || !n_channels) return null;
      return Float64Array.from({length: Math.floor(n / 2 / n_channels)}, (_, i) => {
        let sum = 0;
        for (let c = 0; c < n_channels; ++c) sum += view.getInt16(at + 2 * (i * n_channels + c), true);
        return sum / n_channels / 32768;
      });
    }
    at += n + n % 2;
  }
  return null;
}

async function samplesOf(buffer, name) {
  const samples = wavSamples(buffer);
  if (samples) return samples;
  try {
    const sound = await new OfflineAudioContext(1, 1, model.log_mel.sample_rate).decodeAudioData(buffer);
    const mono = new Float64Array(sound.length);
    for (let c = 0; c < sound.numberOfChannels; ++c) {
      sound.getChannelData(c).forEach((v, i) => { mono[i] += v / sound.numberOfChannels; });
    }
    return mono;
  } catch {
    throw new Error(`${name}: not a sound that this browser reads`);
  }
}

function melFilters({window, bands, sample_rate, low_hz, high_hz}) {
  const [low, high] = [low_hz, high_hz].map(hz => 2595 * Math.log10(1 + hz / 700));
  const corners = Array.from({length: bands + 2}, (_, i) =>
    700 * (10 ** ((low + (high - low) * i / (bands + 1)) / 2595) - 1));
  return Array.from({length: bands}, (_, b) => Array.from({length: (window >> 1) + 1}, (_, k) => {
    const hz = k * sample_rate / window, [left, peak, right] = corners.slice(b, b + 3);
    return Math.max(0, Math.min((hz - left) / (peak - left), (right - hz) / (right - peak)));
  }));
}

/* The picture of a sound, rows from the highest band down. */
function logMel(samples) {
  const {window, hop, bands, frames, range_db} = model.log_mel, filters = melFilters(model.log_mel);
  if (!samples.length) throw new Error("the sound is empty");
  const turn = Array.from({length: window}, (_, i) => 2 * Math.PI * i / window);
  const cos = turn.map(Math.cos), sin = turn.map(Math.sin), hann = cos.map(v => 0.5 - 0.5 * v);
  const n = Math.floor((samples.length + 2 * (window >> 1) - window) / hop) + 1;
  const power = Array.from({length: n}, (_, column) => {
    const start = column * hop - (window >> 1), spectrum = [];
    const part = hann.map((weight, i) => weight * (samples[start + i] ?? 0));
    for (let k = 0; k <= window >> 1; ++k) {
      let real = 0, imaginary = 0;
      for (let i = 0; i < window; ++i) {
        real += part[i] * cos[k * i % window];
        imaginary += part[i] * sin[k * i % window];
      }
      spectrum.push(real * real + imaginary * imaginary);
    }
    return filters.map(filter => filter.reduce((sum, weight, k) => sum + weight * spectrum[k], 0));
  });
  const strongest = power.reduce((a, column) => Math.max(a, ...column), 0);
  const picture = new Uint8Array(bands * frames);
  if (!strongest) return picture;
  let sum = 0, moment = 0;
  power.forEach((column, i) => column.forEach(v => { sum += v; moment += v * i; }));
  const first = Math.round(moment / sum - (frames - 1) / 2);
  for (let x = 0; x < frames; ++x) {
    (power[first + x] ?? []).forEach((v, band) => {
      const level = clamp(1 + 10 * Math.log10(v / strongest) / range_db, 0, 1);
      picture[(bands - 1 - band) * frames + x] = Math.round(255 * level);
    });
  }
  return picture;
}

/* A picture of a sound as the network takes it: whole, or a column of fewer levels in each step. */
function soundInput(picture) {
  const {bands, frames} = model.log_mel, most = 2 ** model.bits - 1;
  if (!model.is_timed) return [picture];
  return Array.from({length: frames}, (_, x) =>
    Input.from({length: bands}, (_, y) => Math.round(picture[y * frames + x] * (most / 255))));
}

async function readSound(file) {
  return soundInput(logMel(await samplesOf(await file.arrayBuffer(), file.name)));
}

const read = model.log_mel ? readSound : model.is_timed ? readEvents : readImage;

/* ---- the page ---- */

let shown = null; /* {frames, steps} */
let timer = 0;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const slider = $("steps"), rasters = [...document.querySelectorAll("#rasters canvas")];
const rows = [...document.querySelectorAll("#classes tbody tr")];
const rowsOf = model.layers.map(({size}) => {
  const n = Math.min(size, N_DRAWN), found = new Map();
  for (let row = 0; row < n; ++row) found.set(Math.floor(row * size / n), row);
  return found;
});

function say(text, {isError = false, lead = ""} = {}) {
  const strong = document.createElement("strong");
  strong.textContent = lead;
  $("answer").replaceChildren(strong, text);
  $("answer").classList.toggle("failed", isError);
}

function paintInput(t) {
  const canvas = $("seen"), context = canvas.getContext("2d");
  const columns = model.log_mel && model.is_timed;
  [canvas.width, canvas.height] = columns ? [shown.frames.length, height] : [width, height];
  const image = context.createImageData(canvas.width, canvas.height), area = canvas.width * canvas.height;
  const values = shown.frames[model.is_timed ? Math.min(t, shown.frames.length) - 1 : 0];
  for (let i = 0; i < area; ++i) {
    let colour;
    if (columns) {
      const x = i % canvas.width, y = (i - x) / canvas.width;
      const v = x < t ? 255 * shown.frames[x][y] / (2 ** model.bits - 1) : 0;
      colour = [v, v, v];
    } else if (model.is_timed && channels === 2) {
      colour = values[area + i] ? [255, 176, 0] : values[i] ? [86, 140, 255] : [0, 0, 0];
    } else {
      const scale = model.is_timed ? 255 / (2 ** model.bits - 1) : 1;
      colour = [0, 1, 2].map(c => scale * values[(channels === 3 ? c : 0) * area + i]);
    }
    image.data.set([...colour, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

/* Shows the first `t` steps; of the last one, only the first `n` layers. */
function show(t, n = rasters.length) {
  const {steps} = shown;
  slider.max = steps.length;
  slider.value = t;
  $("step").textContent = `${t} of ${steps.length}`;
  paintInput(t);
  rasters.forEach((canvas, layer) => {
    const {size} = model.layers[layer], context = canvas.getContext("2d");
    canvas.width = steps.length;
    canvas.height = Math.min(size, N_DRAWN);
    context.fillStyle = getComputedStyle(canvas).color;
    const last = layer < n ? t : t - 1;
    for (let step = 0; step < last; ++step) {
      for (const place of steps[step].spikes[layer]) {
        const row = rowsOf[layer].get(place);
        if (row !== undefined) context.fillRect(step, row, 1, 1);
      }
    }
    canvas.nextElementSibling.lastElementChild.textContent = last
      ? `${steps[last - 1].spikes[layer].length} spikes in step ${last}` : "";
  });
  const {logits, answer, overflows} = steps[t - 1];
  const unit = model.units[0] === model.units.at(-1) ? model.units[0] : model.units[0] * t;
  const scaled = logits.map(v => model.logit_scale * v / unit), most = Math.max(...scaled);
  const exps = scaled.map(v => Math.exp(v - most)), total = exps.reduce((a, b) => a + b, 0);
  rows.forEach((row, c) => {
    const cell = row.cells[1];
    cell.style.setProperty("--part", exps[c] / total);
    cell.textContent = `${(100 * exps[c] / total).toFixed(1)} %`;
    row.cells[2].textContent = (logits[c] / unit).toFixed(2);
    row.classList.toggle("leads", c === answer);
  });
  return {answer, part: exps[answer] / total, overflows};
}

function conclude(t) {
  const {answer, part, overflows} = show(t);
  let settled = t;
  while (settled > 1 && shown.steps[settled - 2].answer === answer) --settled;
  const steps = `${t} step${t > 1 ? "s" : ""}`;
  say(`: ${(100 * part).toFixed(1)} % after ${steps}, in the lead from step ${settled} on.` +
    (overflows ? " A state left the chip's 24 bits, so the chip would answer otherwise." : ""),
    {lead: model.classes[answer]});
}

function stop() {
  clearTimeout(timer);
}

function play() {
  stop();
  const n = rasters.length || 1, last = shown.steps.length * n;
  const pause = clamp(PLAY_MS / last, 8, 60);
  let tick = 0;
  const next = () => {
    if (++tick >= last) return conclude(shown.steps.length);
    show(Math.floor(tick / n) + 1, tick % n);
    timer = setTimeout(next, pause);
  };
  if (still.matches) conclude(shown.steps.length);
  else next();
}

function answer(frames, {animated = true} = {}) {
  stop();
  const steps = run(frames);
  shown = {frames, steps};
  document.querySelectorAll(".outcome").forEach(part => { part.hidden = false; });
  if (animated) play();
  else conclude(steps.length);
}

async function take(file) {
  try {
    answer(await read(file));
  } catch (error) {
    stop();
    say(error.message, {isError: true});
  }
}

slider.addEventListener("input", () => { stop(); conclude(Number(slider.value)); });
$("play").addEventListener("click", play);
$("file").addEventListener("change", event => event.target.files.length && take(event.target.files[0]));
const live = $("live");
live.addEventListener("dragover", event => { event.preventDefault(); live.classList.add("over"); });
live.addEventListener("dragleave", () => live.classList.remove("over"));
live.addEventListener("drop", event => {
  event.preventDefault();
  live.classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});

/* ---- a drawing: by finger, mouse, pen, or the arrow keys ---- */

const pad = $("draw");
if (pad) {
  const context = pad.getContext("2d"), pen = $("pen"), stride = pad.width / 20;
  let at = {x: pad.width / 2, y: pad.height / 2}, isDown = false;
  const {hint} = pad.parentElement.dataset;
  const clear = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, pad.width, pad.height);
    pad.parentElement.dataset.hint = hint;
  };
  const line = to => {
    delete pad.parentElement.dataset.hint;
    context.strokeStyle = "#fff";
    context.lineWidth = pad.width / 13;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(at.x, at.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    at = to;
  };
  const finish = animated => answer([pixelsOf(context.getImageData(0, 0, pad.width, pad.height))], {animated});
  const placeOf = event => {
    const box = pad.getBoundingClientRect();
    return {x: (event.clientX - box.x) * pad.width / box.width, y: (event.clientY - box.y) * pad.height / box.height};
  };
  const showPen = () => {
    pen.style.left = `${100 * at.x / pad.width}%`;
    pen.style.top = `${100 * at.y / pad.height}%`;
    pen.classList.toggle("down", isDown);
  };
  clear();
  showPen();
  pad.addEventListener("pointerdown", event => {
    pad.setPointerCapture(event.pointerId);
    stop();
    at = placeOf(event);
    isDown = true;
    line(at);
  });
  pad.addEventListener("pointermove", event => isDown && pad.hasPointerCapture(event.pointerId) && line(placeOf(event)));
  pad.addEventListener("pointerup", () => { isDown = false; showPen(); finish(true); });
  pad.addEventListener("pointercancel", () => { isDown = false; showPen(); });
  const MOVES = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  pad.addEventListener("keydown", event => {
    const move = MOVES[event.key];
    if (event.key === " ") {
      isDown = !isDown;
      if (isDown) line(at);
      finish(false);
    } else if (move) {
      const to = {x: clamp(at.x + stride * move[0], 0, pad.width), y: clamp(at.y + stride * move[1], 0, pad.height)};
      if (isDown) {
        line(to);
        finish(false);
      } else at = to;
    } else return;
    event.preventDefault();
    showPen();
  });
  $("clear").addEventListener("click", () => { stop(); clear(); say("The drawing is empty."); });
}

/* ---- a sound from the microphone ---- */

const button = $("record");
if (button) {
  let recorder = null;
  button.addEventListener("click", async () => {
    if (recorder) return recorder.stop();
    try {
      const stream = await navigator.mediaDevices.getUserMedia({audio: true});
      const parts = [];
      recorder = new MediaRecorder(stream);
      recorder.addEventListener("dataavailable", event => parts.push(event.data));
      recorder.addEventListener("stop", () => {
        stream.getTracks().forEach(track => track.stop());
        recorder = null;
        button.textContent = "Record";
        take(new File(parts, "recording"));
      });
      recorder.start();
      button.textContent = "Stop";
      setTimeout(() => recorder?.stop(), 3000);
    } catch {
      recorder = null;
      say("No microphone: the browser gives none to this page. Pages of a server need https.", {isError: true});
    }
  });
}

/* ---- the examples of the card ---- */

const examples = [];
if (model.golden) {
  const bytes = await inflated(model.golden.images), [n, ...shape] = model.golden.shape;
  const size = channels * height * width, steps = model.is_timed ? shape[0] : 1;
  for (let i = 0; i < n; ++i) {
    const start = i * steps * size;
    examples.push(Array.from({length: steps}, (_, t) => Input.from(bytes.subarray(start + t * size, start + (t + 1) * size))));
  }
  document.querySelectorAll("#examples-of-card button").forEach((one, i) =>
    one.addEventListener("click", () => answer(examples[i])));
}

/* For the console, and for tests: the class and the logits of bytes, as the module gives them. */
globalThis.snnzoo = {
  run(frames) {
    const {answer, logits, overflows} = run(frames).at(-1);
    return {answer, logits, overflows};
  },
  read, pixelsOf, examples,
};
live.hidden = false;
performance.mark("snnzoo-ready");
if (model.golden && !model.golden.is_noise) answer(examples[0]);
})();
