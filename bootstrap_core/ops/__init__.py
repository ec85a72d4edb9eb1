"""Operators: fast implementations, each equal to a definition in plain torch.

| operator | computes | definition |
|---|---|---|
| `input_neurons.input_spikes`, `input_current` | pixels to currents, and their neurons' spikes | `functional.cuba` |
| `spiking_layer.spiking_layer` | synapses and the neurons behind them | `F.linear`, `F.conv2d`, `functional.cuba` |
| `weighted_input.weigh` | synapses alone | `F.linear`, `F.conv2d` |
| `neurons.fire` | neurons alone | `functional.cuba` |
| `spike_counts.count` | spikes of each neuron over time | a sum |
| `activation.activate` | rates through a fitted activation | `functional.piecewise` |
| `products.linear`, `convolve` | rates through weights | `F.linear`, `F.conv2d` |
| `weight_grid.quantize_weight` | weights to their grid | `functional.quantize` |

Operators take and return spikes as `spikes.Spikes`. Blocks call operators and nothing else. `library.py` decides which
implementation runs: the native library on the CPU if it was built, otherwise the definition. Both give the same spikes,
to the last bit.
"""
