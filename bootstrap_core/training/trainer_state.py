"""Schema of the state of a trainer, by which checkpoints are checked: a file from elsewhere may hold anything."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor
from torch.optim import Optimizer

from bootstrap_core.network.inputs import is_dense
from bootstrap_core.training.history import Report
from specs.errors import IntegrityError
from specs.fields import Integer
from specs.training import TrainingSpec


def _plain(tensor: Tensor) -> Tensor:
    if not is_dense(tensor):
        raise ValueError("must be a dense tensor with values")
    return tensor


_Tensors = dict[str, Annotated[Tensor, AfterValidator(_plain)]]


class _OptimizerState(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    state: dict[Integer, _Tensors]


class _AverageState(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    network: _Tensors
    n_updates: Annotated[Integer, Field(ge=0)]


class TrainerState(BaseModel):
    """State that `Trainer.state_dict` returns."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    epoch: Annotated[Integer, Field(ge=0)]
    recipe: TrainingSpec
    network: _Tensors
    optimizer: _OptimizerState
    as_ann: _Tensors | None
    average: _AverageState | None
    reports: list[Report]


def check_tensors(what: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise `IntegrityError` unless two dicts have the same names, and tensors of the same dtype and shape."""
    if names := found.keys() ^ wanted.keys():
        raise IntegrityError(f"{what}: {min(names)} is {'unknown' if min(names) in found else 'missing'}")
    for name, tensor in wanted.items():
        ours, theirs = ([str(one.dtype).removeprefix("torch."), *one.shape] for one in (tensor, found[name]))
        if ours != theirs:
            raise IntegrityError(f"{what}: {name} must be {ours}, got {theirs}")


def tensors_of_optimizer(optimizer: Optimizer, state: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Return a state for `Optimizer.load_state_dict` with checked tensors and the settings of `optimizer` itself."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, found in state.items():
        if not 0 <= index < len(parameters):
            raise IntegrityError(f"optimizer.state: parameter {index} is unknown; there are {len(parameters)}")
        like = parameters[index]
        check_tensors(f"optimizer.state.{index}", found, {"step": torch.zeros(()), "exp_avg": like, "exp_avg_sq": like})
    return {"state": dict(state), "param_groups": optimizer.state_dict()["param_groups"]}
