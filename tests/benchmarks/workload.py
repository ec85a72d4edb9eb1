"""Define the work that the benchmarks time: the same code for all programs, each of which supplies its network.

Needs only torch and numpy, so that it runs under the Python of any program. A worker calls `serve(make)`;
`make(request)` returns a program, an object with these methods, some of them optional:

- `parameters()`: the trainable parameters;
- `optimizer()` (optional): the optimiser, instead of `adam`;
- `train(on)`: switch training mode on or off;
- `logits(images, mode)`: `[N, 10]` for images in 0..1; mode is "snn" or, optionally, "ann", "sample", "fit";
- `inference()` (optional): a function from images to logits for SNN runs, faster than `logits`;
- `stepper(images)` (optional): a function that runs the next time step on these images, with the logits so far;
- `work(name, images)` (optional): a function that does other work, and the number of units of work in a call.

The driver writes requests to the worker's stdin, one JSON object a line, and reads an answer to each:

    {"work": "infer", "layers": [["dense", 512], ...], "time_steps": 16, "batch": 256, "seconds": 0.5, ...}
    {"wall": [0.012, ...]}     seconds of each call

A program is made at the first request for it, warmed up, and kept.
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

THRESHOLD, VOLTAGE_DECAY = 1.25, 0.03
"""Constants of the tutorial's neuron, a leaky integrator whose current decays within one step."""

CONV = [["conv", 16, 5, 2], ["conv", 32, 3, 2], ["dense", 128], ["affine", 10]]
"""Layers as kind, features; a convolution as kind, channels, kernel, stride."""

SAMPLE_PASSES = 10
"""Number of consecutive SAMPLE passes in the tutorial's schedule."""

WARM_UP = 3
"""Calls before the clock starts."""


def dense(width=512):
    """Return the layers of the tutorial's network."""
    return [["dense", width], ["dense", width], ["affine", 10]]


NETWORKS = {"dense": dense(), "conv": CONV}


def input_shape(layers):
    """Return the shape of one image."""
    return [1, 28, 28] if layers[0][0] == "conv" else [784]


def make_synapses(layers):
    """Return torch modules without bias, one for each layer; a dense layer after a convolution flattens its input."""
    shape, synapses = input_shape(layers), []
    for kind, features, *options in layers:
        if kind == "conv":
            kernel, stride = options
            synapses.append(nn.Conv2d(shape[0], features, kernel, stride, bias=False))
            shape = [features, *((size - kernel) // stride + 1 for size in shape[1:])]
        else:
            linear = nn.Linear(int(np.prod(shape)), features, bias=False)
            synapses.append(nn.Sequential(nn.Flatten(), linear) if len(shape) > 1 else linear)
            shape = [features]
    return synapses


RANDOM = "random"
"""Value of a request's `weights`: random weights that give the layers spike rates of 0.1 to 0.3, like trained ones.

With torch's initial weights the deeper layers are silent, an advantage for programs that skip zeros."""


def load_weights(request):
    """Return the weights of each layer (or None), and gain and offset of the input, from the request's file."""
    if not request.get("weights"):
        return None, (1.0, 0.0)
    if request["weights"] == RANDOM:
        generator, weights = np.random.default_rng(0), []
        for i, synapse in enumerate(make_synapses(request["layers"])):
            shape = tuple(next(synapse.parameters()).shape)
            scale = (4.0 if i == 0 else 3.0) / np.sqrt(np.prod(shape[1:]))
            drawn = generator.standard_normal(shape, np.float32) * np.float32(scale)
            weights.append(torch.from_numpy((drawn * 32).round() / 32))  # on snnzoo's grid of 2/64
        return weights, (2.0, 0.0)
    with np.load(request["weights"]) as arrays:
        weights = [torch.from_numpy(arrays[f"weight{i}"]) for i in range(len(request["layers"]))]
        return weights, (float(arrays["gain"]), float(arrays["offset"]))


def load_images(request):
    """Return digits of the sample, `[N, ...]` in 0..1, repeated to fill the batch, and their labels."""
    with np.load(request["data"]) as arrays:
        images, labels = arrays["test_images"], arrays["test_labels"]
    chosen = np.arange(request["batch"]) % len(images)
    x = torch.from_numpy(images[chosen]).float() / 255
    return x.reshape(len(x), *input_shape(request["layers"])), torch.from_numpy(labels[chosen].astype(np.int64))


def adam(parameters):
    """Return AdamW, fused if this torch supports it; the same optimiser for all programs."""
    parameters = list(parameters)
    try:
        return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0, fused=True)
    except RuntimeError:
        return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)


def prepare(program, request):
    """Return a function that does the work once, and the number of units of work in a call."""
    work = request["work"]
    images, labels = load_images(request)
    if work in ("infer", "one", "classes"):
        program.train(False)
        run = getattr(program, "inference", lambda: lambda x: program.logits(x, "snn"))()
        if work == "one":  # from call to class
            return torch.inference_mode()(lambda: int(run(images[:1]).argmax())), 1
        return torch.inference_mode()(lambda: run(images)), 1
    if work == "step":
        program.train(False)
        return torch.inference_mode()(program.stepper(images)), 1
    program.train(True)
    if work in ("snn_step", "ann_step"):
        mode = work[:3]
        if mode == "ann" and getattr(program, "bootstrap", False):
            for first in ["sample"] * 5 + ["fit"]:
                program.logits(images, first)
        optimizer = program.optimizer() if hasattr(program, "optimizer") else adam(program.parameters())

        def step():
            loss = F.cross_entropy(program.logits(images, mode), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step, 1
    if work == "forward":
        return torch.no_grad()(lambda: program.logits(images, "snn")), 1
    if work == "sample_forward":

        @torch.no_grad()
        def sample():
            """Run the SAMPLE passes with empty samplers, as training does."""
            program.forget_samples()
            for _ in range(SAMPLE_PASSES):
                program.logits(images, "sample")

        return sample, SAMPLE_PASSES
    return program.work(work, images)


def measure(call, units, seconds):
    """Return wall seconds per unit of work, for calls during about `seconds`, at least one."""
    wall, end = [], time.perf_counter() + seconds
    while not wall or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        wall.append((time.perf_counter() - start) / units)
    return {"wall": wall}


def peak_memory(make, request):
    """Return the peak memory of batches of work, in MiB above that of a run of one image and one step.

    The list has a figure for each number of batches in the request, counted from the start.
    """
    small = {**request, "time_steps": 1, "batch": 1}
    prepare(make(small), small)[0]()
    call, _ = prepare(make(request), request)
    with contextlib.suppress(OSError, AttributeError):  # return free memory, so that later use counts
        ctypes.CDLL(None).malloc_trim(0)
    before, done, peaks = reset_peak(), 0, []
    for batches in request["batches"]:
        for _ in range(batches - done):
            call()
        done = batches
        peaks.append(read_peak() - before)
    return {"mib": peaks}


def reset_peak():
    """Reset the peak memory of this process; return the present use in MiB. Not on Linux: return the peak so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return read_peak()


def read_peak():
    """Return the peak memory of this process, in MiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def describe():
    """Return versions and threads, in the form common to all workers."""
    return {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}


def serve(make, *, train=None, **versions):
    """Answer requests until stdin ends; the main program of a worker.

    `train(request)` writes the weights that all programs load; `versions` are added to the answer to "describe".
    """
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_num_interop_threads(1)
    kept, answers = {}, sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        with contextlib.redirect_stdout(sys.stderr):  # libraries print to stdout
            torch.manual_seed(0)
            answer = train(request) if request["work"] == "make_weights" else _answer(make, request, kept, versions)
        print(json.dumps(answer), file=answers, flush=True)


def _answer(make, request, kept, versions):
    seconds, work = request.pop("seconds", 0), request["work"]
    if work == "describe":
        return {**describe(), **versions}
    if "batches" in request:
        return peak_memory(make, request)
    key, begun = json.dumps(request), time.perf_counter()
    first = key not in kept
    if first:
        kept[key] = prepare(make(request), request)
    call, units = kept[key]
    if work == "classes":
        return {"classes": call().argmax(1).tolist()}
    answer = {}
    if first:
        start = time.perf_counter()
        call()
        done = time.perf_counter()
        answer |= {"first": done - start, "since_built": done - begun}
        for _ in range(request.get("warm_up", WARM_UP) - 1):
            call()
    return {**measure(call, units, seconds), **answer}
