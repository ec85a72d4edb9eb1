"""Spiking layers with ideal neurons, whose rates are the activations: they must equal the ANN."""

import torch.nn.functional as F
from torch import Tensor, equal

from bootstrap_core.functional.convolution import conv2d
from converters.ann_to_snn.spiking_layers import SpikingLayer
from converters.linear import ann as nets
from converters.linear.linear_fold import Conv, Dense


def weigh(linear: Dense | Conv, x: Tensor) -> Tensor:
    if isinstance(linear, Dense):
        return F.linear(x.flatten(1), linear.weight, linear.bias)
    return conv2d(x, linear.weight, linear, linear.bias)


def forward(layers: list[SpikingLayer], x: Tensor) -> Tensor:
    """Run the layers with ideal neurons."""
    outputs = [x := x.double()]
    for layer in layers:
        x = outputs[layer.source]
        assert tuple(x.shape[1:]) == layer.before
        assert layer.flattens == (isinstance(layer.linear, Dense) and len(layer.before) > 1)
        linear = layer.linear
        if layer.is_any:
            x = nets.apply_operation(nets.MaxPool(linear.kernel, linear.stride, linear.padding), x)
        else:
            x = weigh(linear, x)
        for skip in layer.skips:
            source = outputs[skip.source]
            assert tuple(source.shape[1:]) == skip.before
            assert not skip.linear.bias.any()
            added = weigh(skip.linear, source)
            if skip.diagonal is not None:
                assert equal(added, source * skip.diagonal.reshape(-1, *[1] * (source.dim() - 2)))
            x = x + added
        if layer.activation is not None:
            if layer.population is None:
                x = nets.apply_operation(layer.activation, x)
            else:
                most = getattr(layer.activation, "high", float("inf")) * layer.population.encoding.abs().flatten()
                x = x.clamp_min(0).minimum(most.reshape(-1, *[1] * (x.dim() - 2)))
        assert tuple(x.shape[1:]) == layer.after
        outputs.append(x)
    return x
