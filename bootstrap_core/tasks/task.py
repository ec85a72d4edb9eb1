"""Tasks: networks learn classes, values or spike trains, whichever they give.

A `Task` knows everything that depends on the kind of outputs: checks of examples, batches, loss, score, and how figures
are named in tables and JSON. Training, evaluation and commands ask it.

To add one, write a `Measure` and a subclass of `Task`, and add it to `task_of`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from bootstrap_core.data.frames import Frames
from bootstrap_core.data.splits import Split
from bootstrap_core.distributed import Share
from bootstrap_core.network.mode import Mode
from bootstrap_core.ops.precision import product_dtype
from bootstrap_core.tasks.evaluation import Evaluation, Measure
from specs.network import NetworkSpec
from specs.summary import summarize
from specs.training import TrainingSpec

Examples = Split | Frames


class Batch(NamedTuple):
    """Part of a batch that one process computes, on the network's device.

    Attributes:
        answers: labels, values or spikes that the score compares the outputs with.
        targets: labels, values or spikes of the loss; they differ from the answers only if images are mixed.
    """

    inputs: Tensor
    answers: Tensor
    targets: Tensor


class Figures(NamedTuple):
    """Figures of the outputs for some examples; see the fields of `Evaluation`."""

    score: float | None
    loss: float | None
    n_correct: int | None = None
    others: Mapping[str, float | None] = MappingProxyType({})


class Task(ABC):
    """Checks, batches, loss and score of a network, and the names of its figures.

    Args:
        spec, recipe: the network and its recipe; by default the recipe of the spec.

    Attributes:
        measure: figure that networks are judged by.
        examples: word for the examples, as key of their number in JSON.
        rates: key of the mean outputs of the layers in JSON.
        per_step: True if synaptic operations are per time step, False if per example.
        rates_as_ann: True if layers also have rates in ANN mode.
    """

    measure: ClassVar[Measure]
    examples: ClassVar[str] = "recordings"
    rates: ClassVar[str] = "rates"
    per_step: ClassVar[bool] = True
    rates_as_ann: ClassVar[bool] = False
    batch_size: ClassVar[int] = 16
    n_sums: ClassVar[int] = 2

    def __init__(self, spec: NetworkSpec, recipe: TrainingSpec | None = None) -> None:
        self.spec, self.recipe = spec, recipe or spec.training or TrainingSpec()

    def examples_of(self, given: Any) -> Any:
        """Return the examples in the form that the task works with; by default as they are."""
        return given

    @abstractmethod
    def check(self, examples: object) -> None:
        """Raise `DataError` unless the examples have targets and fit the network and the recipe.

        Raises `SpecError` if a field of the recipe does not apply to such examples.
        """

    @abstractmethod
    def check_scored(self, examples: object) -> None:
        """Raise `DataError` unless the network can be scored on the examples, perhaps without targets."""

    @abstractmethod
    def divided(self, examples: Any) -> tuple[Any, Any]:
        """Return the training and the validation examples, as the recipe's seed decides, each in their order."""

    @abstractmethod
    def batch(
        self,
        examples: Any,
        indices: Tensor,
        generator: torch.Generator,
        share: Share,
        device: torch.device,
        *,
        in_time: bool,
    ) -> Batch:
        """Return this process's share of a batch.

        Batches are made between training steps and not in a thread beside them: torch would start a second team of
        threads, whose waiting slows the steps down by more than this work takes.

        Args:
            generator: source of all random changes, the same in each process.
            in_time: False if the batch runs as ANN alone, which may need one time step.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch, taught: Tensor | None, part: float) -> Tensor:
        """Return the mean loss of the outputs.

        With a teacher, a `part` from 0 to 1 of the loss is the divergence from its outputs, `taught`.
        """

    def n_correct(self, outputs: Tensor, batch: Batch) -> int:
        """Return the number of right classes; 0 if the score follows from the loss."""
        return 0

    def product_dtype(self, device: str) -> torch.dtype:
        """Return the type of the factors of matrix products in training. Spikes are exact in any of them."""
        return product_dtype(self.recipe.precision, device)

    def in_mode(self, examples: Any, mode: Mode) -> Any:
        """Return the examples as the network needs them in this mode."""
        return examples

    def by_example(self, outputs: Tensor) -> Tensor:
        """Return outputs with an example in each row, as the targets have them."""
        return outputs

    @abstractmethod
    def targets(self, examples: Any, steps: int) -> Tensor | None:
        """Return the targets of outputs after `steps` time steps; None without targets."""

    @abstractmethod
    def sums(self, outputs: Tensor, targets: Tensor) -> list[float]:
        """Return sums over examples, of which `figures` makes the score."""

    @abstractmethod
    def figures(self, sums: list[float], n: int, *, has_targets: bool) -> Figures:
        """Return the figures of `n` examples; without targets, `sums` had the outputs twice."""

    # --- Names of figures in tables and JSON

    @abstractmethod
    def cells(self, score: Evaluation) -> dict[str, str]:
        """Return the cells of a row of the table of scores, by the header of their column."""

    @property
    def per(self) -> str:
        """Word for what synaptic operations are counted for: a time step, or an example."""
        return "step" if self.per_step else self.spec.input.sample

    def layer_cells(self, score: Evaluation) -> list[dict[str, str]]:
        """Return a row for each layer, as `cells`; no rows if there is nothing to tell."""
        synops = score.synops or [None] * len(score.rates)
        return [
            {
                f"layer, T={score.time_steps}" if score.mode.spiking else "layer": f"{i} {row.kind}",
                "rate": "no neurons" if rate is None else f"{rate:.4f}",
                f"synops/{self.per}": number(n),
            }
            for i, (row, rate, n) in enumerate(zip(summarize(self.spec), score.rates, synops, strict=True))
        ]

    def document(self, score: Evaluation) -> dict[str, Any]:
        """Return a score as JSON."""
        return {
            "mode": score.mode.value,
            "time_steps": score.time_steps if score.mode.spiking else None,
            self.examples: score.n_images,
            **self.shown(score),
            self.rates: score.rates,
            self.synops: score.synops,
            f"{'steps' if self.per_step else self.examples}_per_second": self.speed(score),
            "overflows": score.overflows,
        }

    @abstractmethod
    def shown(self, score: Evaluation) -> dict[str, float | None]:
        """Return the figures of the outputs by their names in JSON."""

    def card(self, score: Evaluation) -> dict[str, Any]:
        """Return the figures of a test for the model file."""
        total = None if score.synops is None else sum(score.synops)
        shown = {key: value for key, value in self.shown(score).items() if key in self.carded}
        return {self.examples: score.n_images, **shown, self.synops: total}

    carded: ClassVar[tuple[str, ...]]
    """Names of the figures that model files hold."""

    @property
    def synops(self) -> str:
        """Key of the synaptic operations in JSON."""
        return "synops_per_step" if self.per_step else "synops"

    def speed(self, score: Evaluation) -> float | None:
        """Return the number of steps of all recordings, or of images, in a second; None for an ANN without steps."""
        if not self.per_step:
            return score.images_per_second
        return score.images_per_second * score.time_steps if score.mode.spiking else None

    def advice_if_silent(self, block: int) -> str:
        """Return a warning that no neuron of a block ever sends anything."""
        scaling = f"scale the weights to the {self.spec.input.sample}s (--set training.initialize=true)"
        advice = "use a smaller learning rate" if self.recipe.initialize else scaling
        return f"no neuron of block {block} ever spikes: {advice}, or train longer"


def number(value: float | None, style: str = ",.0f") -> str:
    """Return a figure as text; None as a dash."""
    return "-" if value is None else f"{value:{style}}"
