"""Write layers to HDF5, with the same datasets as lava-dl."""

import io
from pathlib import Path

import h5py
import numpy as np

from converters.chip.form import CUBA, SIGMA_DELTA, ChipForm, ChipLayer, ChipNeurons
from converters.formats.netx.netx_reader import ACTIVATION, SPEC_ATTRIBUTE
from specs.files.whole_file import write_whole

STRING = h5py.string_dtype()
REFRACTORY_STEPS = 1


def save_netx(network: ChipForm, path: Path) -> Path:
    """Write layers as a netx file; the same layers give the same bytes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        if network.spec is not None:
            file.attrs[SPEC_ATTRIBUTE] = network.spec
        for i, layer in enumerate(network.layers):
            _save_layer(file.create_group(f"layer/{i}"), layer)
        file["simulation/Ts"] = np.int64(1)
        file["simulation/tSample"] = np.int64(network.time_steps or 0)
    return write_whole(path, buffer.getvalue())


def _save_layer(group: h5py.Group, layer: ChipLayer) -> None:
    kind = layer.kind if layer.recurrent is None else "dense_rec"
    group["type"] = np.array([kind.encode()], "S10")
    group["shape"] = np.array(layer.shape, np.int64)
    if layer.weight is not None:
        group["weight"] = layer.weight.astype(np.float32)
    if layer.bias is not None:
        group["bias"] = layer.bias.astype(np.float32)
    if layer.recurrent is not None:
        group["weight_rec"] = layer.recurrent.astype(np.float32)
    if layer.delay is not None:
        group["delay"] = layer.delay.astype(np.float32)
    if layer.kind == "dense" and layer.weight is not None:
        group["outFeatures"], group["inFeatures"] = (np.int64(side) for side in layer.weight.shape)
    if layer.window is not None and layer.weight is not None:
        window = layer.window
        group["outChannels"] = np.int64(len(layer.weight))
        group["inChannels"] = np.int64(layer.weight.shape[1] * window.groups)
        group["groups"] = np.int64(window.groups)
        group["kernelSize"] = np.array(window.kernel, np.int64)
        for name in ("stride", "padding", "dilation"):
            group[name] = np.array(getattr(window, name), np.int64)
    if layer.neurons is not None:
        _save_neuron(group.create_group("neuron"), layer.neurons)


def _save_neuron(group: h5py.Group, neuron: ChipNeurons) -> None:
    group["vThMant"] = np.int64(neuron.threshold_mant)
    if neuron.is_sigma_delta:
        group.create_dataset("type", data=SIGMA_DELTA, dtype=STRING)
        group.create_dataset("activation", data=ACTIVATION, dtype=STRING)
        if neuron.sigma_output:
            group["sigma_output"] = np.bool_(True)
        return
    group.create_dataset("type", data=CUBA, dtype=STRING)
    for name, decay in (("iDecay", neuron.current_decay), ("vDecay", neuron.voltage_decay)):
        assert decay is not None
        group[name] = decay if len(decay) > 1 else decay[0]
    group["refDelay"] = np.int64(REFRACTORY_STEPS)
    group["gradedSpike"] = np.bool_(False)
