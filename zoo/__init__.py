"""Model zoo: find, fetch, train, measure and publish trained models.

>>> import torch, zoo
>>> net = zoo.create_model("mnist-dense-shallow")  # a `bootstrap_core.Network` with trained weights, in eval mode
>>> net(torch.zeros(1, 1, 28, 28)).shape
torch.Size([1, 10])

`zoo.hub` works with indexes of models, `zoo.runs` with training runs, cards and verification. Most people use the
command `zoo` instead.

Names are imported on first use, so that importing the package costs nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in typing, whose import takes 10 ms
if TYPE_CHECKING:
    from zoo.factory import create_model, model_names

__version__: str
__all__ = ["create_model", "model_names"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("snnzoo")
    if name in __all__:
        return getattr(import_module("zoo.factory"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
