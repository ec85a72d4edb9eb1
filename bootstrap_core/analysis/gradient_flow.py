"""Gradient norm of each layer.

Surrogate gradients shrink from layer to layer when `tau_grad` or `scale_grad` do not fit the threshold: the early
layers then stop learning while the loss still falls. `GradientFlow` shows it as one number per layer.

Source: `grad_flow` of the lava-dl tutorials. There, synapses store their norms; here, `record` reads the gradients of
any layers, without hooks.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from specs.errors import SnnZooError

Norms = dict[str, float | None]


class GradientFlow:
    """Gradient norm of each layer, averaged over the steps of an epoch.

    The norm of a layer is the Euclidean norm of the gradients of all its parameters together; a parametrized weight
    (`torch.nn.utils.parametrize`, such as weight norm) counts with its original parameters. Layers without parameters,
    such as flatten, are left out.

    Args:
        modules: a module whose children are the layers, such as `Sequential` or a network's `blocks`; or the layers
            themselves, as a mapping from name to module, or as a sequence, named by position.

    Attributes:
        history: for each closed epoch, the mean norm by layer; None for a layer that never had a gradient.

    Example:
        >>> layers = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
        >>> flow = GradientFlow(layers)
        >>> layers(torch.tensor([[0.0]])).sum().backward()
        >>> flow.record()
        >>> flow.norms, flow.vanished()
        ({'0': 0.0}, ['0'])
    """

    def __init__(self, modules: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module]) -> None:
        if isinstance(modules, nn.Module):
            named = dict(modules.named_children())
        elif isinstance(modules, Mapping):
            named = dict(modules)
        else:
            named = {str(place): module for place, module in enumerate(modules)}
        self._layers = {name: module for name, module in named.items() if any(True for _ in module.parameters())}
        if not self._layers:
            raise SnnZooError(f"no gradient to watch: none of the layers {list(named)} has a parameter")
        self.names = list(self._layers)
        self.history: list[Norms] = []
        self._open_epoch()

    def record(self) -> None:
        """Record the present gradients; call it after `backward()` and before the optimiser clears them.

        A step in which all gradients of a layer are None does not count in its mean.
        """
        for name, module in self._layers.items():
            norm = _gradient_norm(module)
            if norm is not None:
                self._sums[name] += norm
                self._counts[name] += 1
        self.steps += 1

    @property
    def norms(self) -> Norms:
        """Mean norm by layer, None for a layer without any gradient; {} before the first step.

        Norms are those of the open epoch or, if it has no step yet, of the last closed one.
        """
        if self.steps:
            return {name: self._sums[name] / n if (n := self._counts[name]) else None for name in self.names}
        return dict(self.history[-1]) if self.history else {}

    def update(self) -> None:
        """Close the epoch: append its mean norms to the history, unless it had no step."""
        if self.steps:
            self.history.append(self.norms)
            self._open_epoch()

    def vanished(self) -> list[str]:
        """Return the names of layers that no gradient reaches: their norm is zero or None."""
        return [name for name, norm in self.norms.items() if not norm]

    def summary(self) -> str:
        """Return a table: layer, mean gradient norm, and a remark if it vanished or is not finite."""
        if not self.norms:
            return "no gradient recorded"
        width = max(len("layer"), *(len(name) for name in self.names))
        rows = [f"{'layer':{width}}  gradient norm"]
        for name, norm in self.norms.items():
            figure = "-" if norm is None else f"{norm:.3e}"
            remark = "vanished" if not norm else "" if math.isfinite(norm) else "not finite"
            rows.append(f"{name:{width}}  {figure:>13}  {remark}".rstrip())
        return "\n".join(rows)

    def _open_epoch(self) -> None:
        self.steps = 0
        self._sums = dict.fromkeys(self.names, 0.0)
        self._counts = dict.fromkeys(self.names, 0)


def _gradient_norm(module: nn.Module) -> float | None:
    gradients = [parameter.grad.detach() for parameter in module.parameters() if parameter.grad is not None]
    if not gradients:
        return None
    # in float64, since squares may overflow float32
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float64).cpu() for gradient in gradients]
    return float(torch.linalg.vector_norm(torch.stack(norms)))
