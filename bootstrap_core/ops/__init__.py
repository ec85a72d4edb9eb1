"""Operators: everything fast, each with a definition in plain torch that it equals.

| operator | does | definition |
|---|---|---|
| `input_neurons.input_spikes`, `input_current` | pixels to currents, and their neurons' spikes | `functional.cuba` |
| `spiking_layer.spiking_layer` | synapses and the neurons behind them | `F.linear`, `F.conv2d`, `functional.cuba` |
| `weighted_input.weigh` | synapses alone | `F.linear`, `F.conv2d` |
| `neurons.fire` | neurons alone | `functional.cuba` |
| `spike_counts.count` | spikes of each neuron over time | a sum |
| `activation.activate` | rates through a fitted activation | `functional.piecewise` |
| `products.linear`, `convolve` | rates through weights | `F.linear`, `F.conv2d` |

Spikes are handed on as `spikes.Spikes`. Blocks call operators and nothing else. Which implementation runs is decided in
`library.py`: the native one on the CPU, where it was built, and else the definition. Spikes are equal to the last bit.
"""
