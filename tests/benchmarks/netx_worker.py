"""Run a netx file in Lava's bit-accurate CPU simulation and record the spikes and voltages of its layers.

`check_netx.py` starts it under a Python that has lava-nc and lava-dl.

    python netx_worker.py FILE.net IMAGES.npy OUT.npz --steps S [--style spike|graded|events] [--reset-interval T]

IMAGES is an integer array `[n, ...]`, each image in netx's axis order (`[C]`, or `[W, H, C]`):

- `spike`: the file begins with an input layer that has neurons; the integers are their bias mantissas.
- `graded`: the file begins with dense or conv; the integers are injected at every step, unsigned, of `--message-bits`.
- `events`: the same, but each image has the integers of all S steps, time last.
- `frames`: the file begins with an input layer of sigma-delta neurons; the integers of all S steps, time last, are what
  they encode.

OUT contains for image n: `n/spikes/k`, the spikes of layer k, int8, or messages, int32, time last; `n/readout_voltage`,
the last layer's voltage after the last step, or sigma; `n/voltage`, the same after every step.

- Without `--reset-interval` each image runs from rest for S steps in a separate simulation. The arrays have all S
  steps, so layer k lags by k steps (injected: k + 1, since the way from the source is a synapse too).
- With it the images follow each other in one simulation, S must equal the interval, and netx clears each layer at the
  start of its window. The arrays have each layer's own window of S steps, without lag.
"""

import argparse
import contextlib
import json
import sys

import numpy as np


def load_network(path, style, message_bits, reset_interval):
    """Load the netx process and check that its first layer suits `style`."""
    from lava.lib.dl.netx import hdf5

    graded = style in ("graded", "events")
    network = hdf5.Network(
        net_config=path,
        input_message_bits=message_bits if graded else 0,
        reset_interval=reset_interval,
        # An injected input arrives through a synapse: every window opens one step later than netx assumes.
        reset_offset=int(graded and reset_interval is not None),
    )
    begins_with_neurons = type(network.in_layer).__name__ == "Input"
    if begins_with_neurons == graded:
        found = "an input layer with neurons" if begins_with_neurons else type(network.in_layer).__name__
        raise SystemExit(f"{path} begins with {found}, which does not suit --style {style}")
    return network


def simulate(network, images, style, steps_each, n_steps):
    """Run `n_steps` steps, each image for `steps_each` of them (the last until the end).

    Returns the spikes of each layer except the last, and the last layer's voltage, all `[..., n_steps]`.
    """
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io import sink, source
    from lava.proc.monitor.process import Monitor

    sinks = []
    for layer in network.layers[:-1]:
        recorder = sink.RingBuffer(shape=layer.out.shape, buffer=n_steps)
        layer.out.connect(recorder.a_in)
        sinks.append(recorder)
    readout, state = network.out_layer.neuron, "sigma" if style == "frames" else "v"
    monitor = Monitor()
    monitor.probe(getattr(readout, state), n_steps)
    bias = network.in_layer.neuron.bias_mant if style == "spike" else None
    if bias is None:
        if style in ("events", "frames"):
            repeated = np.concatenate([np.moveaxis(image, -1, 0) for image in images])  # [n * steps_each, ...]
        else:
            repeated = np.repeat(images, steps_each, axis=0)
        missing = n_steps - len(repeated)
        repeated = np.concatenate([repeated, np.repeat(repeated[-1:], missing, axis=0)])
        injector = source.RingBuffer(data=np.moveaxis(repeated, 0, -1).astype(np.int32))
        injector.s_out.connect(network.in_layer.neuron.a_in if style == "frames" else network.inp)
    else:
        bias.init = images[0].astype(np.int32)

    config = Loihi2SimCfg(select_tag="fixed_pt")
    try:
        if bias is None:
            network.run(condition=RunSteps(num_steps=n_steps), run_cfg=config)
        else:
            for i, image in enumerate(images):
                last = i == len(images) - 1
                if i > 0:
                    bias.set(image.astype(np.int32))
                count = n_steps - i * steps_each if last else steps_each
                network.run(condition=RunSteps(num_steps=count), run_cfg=config)
        spikes = [recorder.data.get().astype(np.int32 if style == "frames" else np.int8) for recorder in sinks]
        voltage = monitor.get_data()[readout.name][state]  # [n_steps, C]
    finally:
        network.stop()
    return spikes, np.moveaxis(voltage, 0, -1)


def record(path, images, *, steps, style, message_bits, reset_interval):
    """Return the arrays of OUT, see the module's docstring."""
    if reset_interval is None:
        runs = []
        for image in images:
            network = load_network(path, style, message_bits, None)
            runs.append(simulate(network, image[None], style, steps, steps))
    else:
        network = load_network(path, style, message_bits, reset_interval)
        lag, n_layers = int(style != "spike"), len(network.layers)
        n_steps = len(images) * steps + n_layers - 1 + lag
        spikes, voltage = simulate(network, images, style, steps, n_steps)
        runs = []
        for first in range(lag, len(images) * steps + lag, steps):
            windows = [s[..., first + k : first + k + steps] for k, s in enumerate(spikes)]
            last = first + n_layers - 1
            runs.append((windows, voltage[..., last : last + steps]))

    arrays = {}
    for n, (spikes, voltage) in enumerate(runs):
        arrays.update({f"{n}/spikes/{k}": array for k, array in enumerate(spikes)})
        arrays[f"{n}/voltage"] = voltage
        arrays[f"{n}/readout_voltage"] = voltage[..., -1]
    return arrays


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("images")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--style", choices=("spike", "graded", "events", "frames"), default="spike")
    parser.add_argument("--reset-interval", type=int)
    parser.add_argument("--message-bits", type=int, default=8)
    options = parser.parse_args()
    if options.reset_interval not in (None, options.steps):
        parser.error("--reset-interval must equal --steps: an image is shown for one window")

    images = np.load(options.images)
    if not np.issubdtype(images.dtype, np.integer):
        parser.error(f"{options.images} holds {images.dtype}, not integers")
    with contextlib.redirect_stdout(sys.stderr):  # lava prints to stdout
        arrays = record(
            options.net,
            images,
            steps=options.steps,
            style=options.style,
            message_bits=options.message_bits,
            reset_interval=options.reset_interval,
        )
    np.savez_compressed(options.out, **arrays)
    print(json.dumps({"images": len(images), "steps": options.steps, "arrays": len(arrays)}))


if __name__ == "__main__":
    main()
