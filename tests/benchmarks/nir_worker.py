"""Write NIR files with another program, and read and run our NIR files in it.

`check_nir.py` starts it under a Python that has that program.

    python nir_worker.py snntorch|sinabs|norse|spikingjelly FOLDER

Except in spikingjelly, writes `FOLDER/theirs/CASE.nir`, and beside it `CASE.npz` with `x` `[N, ...]`, zeros and ones
that enter in each of T steps; `spikes` `[T, N, ...]`, the output; `options`, JSON of the arguments of `read_nir`.

For each `FOLDER/ours/CASE.nir`, with its input `[N, ...]` in `CASE.npy`, writes the output `[T, N, ...]` of the program
to `CASE.TOOL.npy`, or its error to `CASE.TOOL.txt`. `FOLDER/TOOL.json` contains the versions.

Weights are multiples of 2/64 and decays 1/2, so that eight steps are exact in float32 and on our grid of 1/4096. These
settings make the programs agree:

- snntorch: `reset_delay=False`, otherwise a spike is subtracted one step later, and the voltage of Synaptic stays 0 for
  one step. Its subtraction takes the threshold off a second time if the rest is still above it: thresholds are so high
  that this never happens. The exporter drops `reset_mechanism`. Parameters are vectors, since nir 1.0.8 refuses scalars
  from all three programs.
- sinabs: `SingleSpike`, otherwise a neuron fires several spikes in one step; `min_v_mem=None`, which its importer sets
  to minus the threshold. It fires at `v >= threshold`: with thresholds that no sum of weights can equal, this is the
  same as `v > threshold`.
- norse: `LIFBoxCell`, `IAFCell`. Its LIFCell takes input one step late, which the exporter ignores. The exporter writes
  `dt / tau_mem_inv`, dt times the time constant.
- spikingjelly: it fires at `v >= threshold`, so thresholds are raised by less than our grid of voltages.
"""

import json
import math
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import nir
import numpy as np
import torch
from torch import nn

TOOL = sys.argv[1] if len(sys.argv) > 1 else ""
if TOOL == "snntorch":
    import snntorch as snn
    from snntorch.export_nir import export_to_nir
    from snntorch.import_nir import import_from_nir
elif TOOL == "sinabs":
    import sinabs.activation as sina
    import sinabs.layers as sinl
    import sinabs.nir as sinn
elif TOOL == "norse":
    import norse.torch as norse
elif TOOL == "spikingjelly":
    from spikingjelly.activation_based.nir_exchange import import_from_nir as from_nir

STEPS, IMAGES = 8, 16


def on_grid(module, generator, most=0.5, least=-0.25):
    """Set weights and biases to random multiples of 2/64 in `least..most`, by default more of them positive."""
    with torch.no_grad():
        for parameter in (module.weight, module.bias):
            if parameter is not None:
                drawn = least + (most - least) * torch.rand(parameter.shape, generator=generator)
                parameter.copy_((drawn * 32).round() / 32)
    return module


def leaky(shape, beta=0.5, threshold=1.0, **options):
    """Return leaky neurons with their own parameters each."""
    return snn.Leaky(
        beta=beta * torch.ones(shape),
        threshold=threshold * torch.ones(shape),
        init_hidden=True,
        reset_delay=False,
        **{"reset_mechanism": "zero", **options},
    )


def drawing(generator):
    """Return functions that make a dense layer and a convolution with random weights on the grid."""

    def dense(n_in, n_out, bias=True, **bounds):
        return on_grid(nn.Linear(n_in, n_out, bias=bias), generator, **bounds)

    def conv(*sizes, least=-0.4, **options):
        return on_grid(nn.Conv2d(*sizes, **options), generator, least=least)

    return dense, conv


def snntorch_cases(generator):
    """Yield names, networks and input shapes."""
    dense, conv = drawing(generator)
    yield "snntorch_dense", (dense(12, 10), leaky(10), dense(10, 5, bias=False), leaky(5)), 12
    subtract = {"reset_mechanism": "subtract", "threshold": 2.0}
    layers = dense(12, 10, least=-0.1), leaky(10, **subtract), dense(10, 5, least=0.0), leaky(5, **subtract)
    yield "snntorch_subtract", layers, 12
    synaptic = {"alpha": 0.5 * torch.ones(10), "beta": 0.5 * torch.ones(10), "threshold": 1.5 * torch.ones(10)}
    options = {"init_hidden": True, "reset_delay": False, "reset_mechanism": "zero"}
    yield (
        "snntorch_synaptic",
        (dense(12, 10, bias=False), snn.Synaptic(**synaptic, **options), dense(10, 5), leaky(5)),
        12,
    )
    channels = torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1)
    neurons = leaky((3, 6, 6), beta=torch.tensor([0.5, 0.75, 0.0]).reshape(3, 1, 1), threshold=channels)
    yield "snntorch_channels", (conv(1, 3, 3), neurons, nn.Flatten(), dense(108, 4, least=-0.4), leaky(4)), (1, 8, 8)
    first = conv(2, 4, 3, padding=1), leaky((4, 8, 8)), nn.AvgPool2d(2)
    second = conv(4, 4, 3, padding=1, least=-0.3), leaky((4, 4, 4)), nn.AvgPool2d(2)
    yield "snntorch_cnn", (*first, *second, nn.Flatten(), dense(16, 5), leaky(5)), (2, 8, 8)


def run_snntorch(net, x):
    """Return the spikes `[T, N, ...]`."""
    with torch.no_grad():
        return np.stack([np.asarray(first(net(x))) for _ in range(STEPS)])


def first(output):
    """Return the output of a step without the state that some executors return with it."""
    return output[0] if isinstance(output, tuple) else output


def iaf(threshold=33 / 64, **options):
    """Return integrate-and-fire neurons that behave as snnzoo's."""
    return sinl.IAFSqueeze(
        num_timesteps=STEPS,
        spike_threshold=torch.tensor(threshold),
        spike_fn=sina.SingleSpike,
        min_v_mem=None,
        **{"reset_fn": sina.MembraneReset(), **options},
    )


def lif(n):
    """Return leaky neurons with a decay of 1/2 per step."""
    return sinl.LIFSqueeze(
        tau_mem=torch.full((n,), 1 / math.log(2)),
        num_timesteps=STEPS,
        spike_threshold=torch.full((n,), 0.3),
        spike_fn=sina.SingleSpike,
        reset_fn=sina.MembraneReset(),
        norm_input=True,
    )


def sinabs_cases(generator):
    """Yield names, networks and input shapes."""
    dense, conv = drawing(generator)
    maps = conv(2, 4, 3, bias=False), iaf(), sinl.SumPool2d(2), conv(4, 4, 2, stride=1, least=-0.6), iaf()
    yield "sinabs_cnn", (*maps, nn.Flatten(), dense(16, 5, least=-0.5), iaf()), (2, 8, 8)
    subtract, bounds = {"reset_fn": sina.MembraneSubtract(), "threshold": 265 / 512}, {"most": 0.4, "least": -0.3}
    layers = dense(12, 10, **bounds), iaf(**subtract), dense(10, 5, **bounds), iaf(**subtract)
    yield "sinabs_subtract", layers, 12
    yield "sinabs_lif", (dense(12, 10), lif(10), dense(10, 5), lif(5)), 12


def run_sinabs(net, x):
    """Return the spikes `[T, N, ...]`; sinabs keeps time inside the batch, `[N * T, ...]`."""
    with torch.no_grad():
        out = first(net(x.repeat_interleave(STEPS, 0)))
    return out.reshape(len(x), STEPS, *out.shape[1:]).movedim(0, 1).numpy()


def norse_cases(generator):
    """Yield names, networks and input shapes."""
    dense, _ = drawing(generator)

    def box(n):
        constants = {"tau_mem_inv": torch.full((n,), 500.0), "v_leak": torch.zeros(n), "v_th": torch.full((n,), 0.5)}
        return norse.LIFBoxCell(norse.LIFBoxParameters(**constants))

    def free(n):
        return norse.IAFCell(norse.IAFParameters(v_th=torch.ones(n)))

    yield "norse_lif", (dense(12, 10), box(10), dense(10, 5), box(5)), 12
    yield "norse_if", (dense(12, 10), free(10), dense(10, 5), free(5)), 12


def run_with_state(net, x):
    """Return the spikes `[T, N, ...]` of a network of norse or spikingjelly, which takes and returns its state."""
    spikes, state = [], None
    with torch.no_grad():
        for _ in range(STEPS):
            out, state = net(x, state)
            spikes.append(out.numpy())
    return np.stack(spikes)


def with_types(graph):
    """Add the types of Flatten, which sinabs leaves out and nir needs for writing."""
    if any(isinstance(node, nir.Flatten) for node in graph.nodes.values()):
        graph.infer_types()
    return graph


def export(net, x):
    """Export a network to a NIR graph, which has no batch axis; norse needs a sample without one."""
    if TOOL == "snntorch":
        return export_to_nir(net, x[:1], ignore_dims=[0])
    if TOOL == "sinabs":
        return with_types(sinn.to_nir(net, x[:1].repeat_interleave(STEPS, 0)))
    return norse.to_nir(net, x[0])


def write_theirs(folder, cases, run, options):
    """Write all cases of the program, with input and spikes."""
    generator = torch.Generator().manual_seed(1)
    for name, layers, shape in cases(generator):
        x = (torch.rand(IMAGES, *([shape] if isinstance(shape, int) else shape), generator=generator) < 0.5).float()
        net = (norse.SequentialState if TOOL == "norse" else nn.Sequential)(*layers)
        spikes = run(net, x)
        for module in net.modules():  # the state of the run must not reach the export
            for reset in ("reset_states", "reset_mem"):
                getattr(module, reset, lambda: None)()
        graph = export(net, x)
        uncompressed = {} if TOOL != "snntorch" else {"compression": None}  # smaller, for small arrays
        nir.write(folder / f"{name}.nir", graph, **uncompressed)
        told = {**options, **({"reset": "subtract"} if "subtract" in name else {})}
        np.savez_compressed(
            folder / f"{name}.npz",
            x=x.numpy().astype(np.uint8),
            spikes=spikes.astype(np.uint8),
            options=json.dumps({**told, "time_steps": STEPS, "input_bits": 1}),
        )


def read(path):
    """Read one of our files into the program, with the settings listed in the module's docstring."""
    graph = nir.read(path)
    if TOOL == "snntorch":
        return import_from_nir(graph)
    if TOOL == "norse":
        return norse.from_nir(graph, dt=1e-4)
    if TOOL == "spikingjelly":
        for node in graph.nodes.values():
            if hasattr(node, "v_threshold"):
                node.v_threshold = node.v_threshold + 2.0**-16
        return from_nir(graph, dt=1e-4)
    net = sinn.from_nir(graph, num_timesteps=STEPS)
    for module in net.modules():
        if isinstance(module, sinl.StatefulLayer):
            module.spike_fn, module.reset_fn, module.min_v_mem = sina.SingleSpike, sina.MembraneReset(), None
    return net


def run_ours(folder, run):
    """Run each of our files and write the output, or the error."""
    for path in sorted(folder.glob("*.nir")):
        x = torch.from_numpy(np.load(path.with_suffix(".npy")))
        try:
            # One image at a time: snntorch and norse flatten the batch too, as they take NIR's axes for torch's.
            outputs = [run(read(path), image[None]).reshape(STEPS, -1) for image in x]
        except Exception as error:  # an error of the other program is a result
            path.with_suffix(f".{TOOL}.txt").write_text(f"{type(error).__name__}: {error}".splitlines()[0])
        else:
            np.save(path.with_suffix(f".{TOOL}.npy"), np.stack(outputs, 1))


def main():
    """Write the program's files, then read ours."""
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[2])
    cases, run, options = {
        "snntorch": (snntorch_cases, run_snntorch, {"dt": 1e-4}),
        "sinabs": (sinabs_cases, run_sinabs, {"dt": 1.0, "time_constants": "exact"}),
        "norse": (norse_cases, run_with_state, {"dt": 1e-6}),
        "spikingjelly": (None, run_with_state, {}),
    }[TOOL]
    if cases is not None:
        write_theirs(folder / "theirs", cases, run, options)
    run_ours(folder / "ours", run)
    versions = {name: version(name) for name in (TOOL, "nir", "nirtorch", "torch")}
    (folder / f"{TOOL}.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main()
