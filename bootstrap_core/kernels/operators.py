"""Operators that torch can compile and export, and that are cheap to call where it does neither."""

from collections.abc import Callable
from functools import wraps
from typing import Any, List  # noqa: UP035

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

__all__ = ["Operator", "operator"]


class Operator:
    """`snnzoo::NAME`, an operator of `torch.library`.

    torch's way to such an operator takes as long as a small kernel, so a call goes past it: to the function itself, or
    where a gradient will be wanted to a function of autograd. Not if anybody looks on who must see an operator: a
    compiler, a dispatch mode, a tensor of another class.

    Args:
        name: of the operator.
        run: what it does, for plain tensors; as `torch.library.custom_op` takes it.
    """

    def __init__(self, name: str, run: Callable[..., Any]) -> None:
        self.name, self.run, self.__doc__ = name, run, run.__doc__
        for argument, kind in run.__annotations__.items():
            if kind == list[int]:  # which older versions of torch do not read
                run.__annotations__[argument] = List[int]  # noqa: UP006
        self.registered = torch.library.custom_op(f"snnzoo::{name}", _written_out(run), mutates_args=())
        self.function: Any = None

    def register_fake(self, fake: Callable[..., Any]) -> None:
        """As of `torch.library`."""
        self.registered.register_fake(_written_out(fake))

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[..., None] = lambda ctx, inputs, output: None
    ) -> None:
        """As of `torch.library`."""
        self.registered.register_autograd(backward, setup_context=setup_context)

        def forward(ctx: Any, *args: Any) -> Any:  # with the context: apart from it, torch binds arguments by name
            result = self.run(*args)
            setup_context(ctx, args, result)
            return result

        self.function = type(  # profilers show the name
            f"snnzoo_{self.name}",
            (torch.autograd.Function,),
            {"forward": staticmethod(forward), "backward": staticmethod(backward)},
        )

    def __call__(self, *args: Any) -> Any:
        """What `run` gives."""
        tensors = [x for x in args if isinstance(x, Tensor)]
        if _is_watched() or any(type(x) not in (Tensor, Parameter) for x in tensors):
            return self.registered(*args)
        if not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
            return self.run(*args)
        return (self.registered if self.function is None else self.function.apply)(*args)


def _written_out(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run`, with results of their own memory where elements share some, as those of a `neuron_run.link` do.

    Compiled graphs write the gradient of what one hands to the next into memory laid out like it.
    """

    @wraps(run)
    def written_out(*args: Any) -> Any:
        results = run(*args)
        if isinstance(results, Tensor):
            return results
        return tuple(x.contiguous() if any(type(n) is int and n == 0 for n in x.stride()) else x for x in results)

    return written_out


def _is_watched() -> bool:
    return torch.compiler.is_compiling() or is_in_torch_dispatch_mode()


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Decorates a function of tensors: makes it the operator `snnzoo::NAME`."""
    return lambda run: Operator(name, run)
