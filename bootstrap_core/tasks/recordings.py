"""Values and spike trains: networks learn the targets of recordings, `Frames`."""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bootstrap_core.data.frames import Frames, check_frames, check_kind
from bootstrap_core.distributed import Share
from bootstrap_core.functional.van_rossum import van_rossum_distance
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.mode import Mode
from bootstrap_core.tasks.evaluation import DISTANCE, ERROR, Evaluation
from bootstrap_core.tasks.task import Batch, Figures, Task, number
from specs.summary import summarize


class RecordingTask(Task):
    """Base of the tasks whose examples are `Frames` with targets."""

    def check(self, examples: object) -> None:
        check_frames(examples, self.spec)

    def check_scored(self, examples: object) -> None:
        check_kind(examples, self.spec)

    def divided(self, examples: Frames) -> tuple[Frames, Frames]:
        generator = torch.Generator().manual_seed(self.recipe.seed)
        order = torch.randperm(len(examples), generator=generator)
        validation, training = order.tensor_split([self.recipe.validation])
        return examples.take(training.sort().values), examples.take(validation.sort().values)

    def batch(
        self,
        examples: Frames,
        indices: Tensor,
        generator: torch.Generator,
        share: Share,
        device: torch.device,
        *,
        in_time: bool,
    ) -> Batch:
        own = self.in_mode(examples, Mode.SNN if in_time else Mode.ANN).take(indices[share.rows])
        targets = self.targets(own, len(own.frames))
        assert targets is not None
        return Batch(own.frames.to(device), targets.to(device), targets.to(device))

    @abstractmethod
    def over_time(self, network: IntegerNetwork, frames: Tensor) -> Tensor:
        """Return the outputs after each step, `[T, N, outputs]`."""

    @abstractmethod
    def predicted(self, outputs: Tensor) -> dict[str, Any]:
        """Return the outputs of one recording, `[T, outputs]`, as JSON."""

    @abstractmethod
    def predicted_cells(self, prediction: dict[str, Any]) -> list[dict[str, str]]:
        """Return rows of a table with what `predicted` returned, by the header of their column."""


class Values(RecordingTask):
    """Mean squared error of the values after the last step; the score is the rms error.

    As ANN, a network sees the last frame of each recording alone.
    """

    measure, rates = ERROR, "messages_per_neuron_step"
    carded = ("mean_error", "rms_error")
    n_shown: ClassVar[int] = 4
    """Number of values of a recording in a table; JSON has all."""

    def loss(self, outputs: Tensor, batch: Batch, taught: Tensor | None, part: float) -> Tensor:
        return F.mse_loss(outputs, batch.targets)

    def product_dtype(self, device: str) -> torch.dtype:
        """Return float64, which holds activations exactly."""
        return torch.float64

    def in_mode(self, examples: Frames, mode: Mode) -> Frames:
        return examples if mode.spiking else examples.last

    def targets(self, examples: Frames, steps: int) -> Tensor | None:
        return examples.targets

    def sums(self, outputs: Tensor, targets: Tensor) -> list[float]:
        wrong = (outputs - targets).double()
        return [float(wrong.abs().sum()), float(wrong.square().sum())]

    def figures(self, sums: list[float], n: int, *, has_targets: bool) -> Figures:
        amount, square = (total / (n * self.spec.n_classes) for total in sums)
        if not has_targets:
            return Figures(None, None, others={"mean_error": None})
        error = math.sqrt(square)
        return Figures(error, error**2, others={"mean_error": amount})

    def shown(self, score: Evaluation) -> dict[str, float | None]:
        return {**score.figures, "rms_error": score.score}

    def document(self, score: Evaluation) -> dict[str, Any]:
        return {**super().document(score), "values": score.outputs.tolist()}

    def cells(self, score: Evaluation) -> dict[str, str]:
        return {
            "recordings": f"{score.n_images:,}",
            "mean error": number(score.figures["mean_error"], ".4g"),
            "rms error": number(score.score, ".4g"),
            "synops/step": number(None if score.synops is None else sum(score.synops)),
            "steps/s": number(self.speed(score)),
        }

    def layer_cells(self, score: Evaluation) -> list[dict[str, str]]:
        """Return messages and synops beside the multiplications of the ANN; no rows for an ANN."""
        if score.synops is None:
            return []
        rows = [
            (f"{i} {row.kind}", "" if rate is None else f"{rate:.4f}", synops, row.synops)
            for i, (row, rate, synops) in enumerate(zip(summarize(self.spec), score.rates, score.synops, strict=True))
        ]
        rows.append(("total", "", sum(score.synops), sum(row[3] for row in rows)))
        return [
            {
                f"layer, T={score.time_steps}": layer,
                "messages/neuron/step": messages,
                "synops/step": number(synops),
                "MACs of the ANN": number(macs),
            }
            for layer, messages, synops, macs in rows
        ]

    def advice_if_silent(self, block: int) -> str:
        return f"no neuron of block {block} ever sends a message: use a smaller learning rate"

    def over_time(self, network: IntegerNetwork, frames: Tensor) -> Tensor:
        stream = network.stream()
        return torch.stack([stream.step(frame) for frame in frames])

    def predicted(self, outputs: Tensor) -> dict[str, Any]:
        steps = outputs.tolist()
        return {"values": steps[-1], "after_each_step": steps}

    def predicted_cells(self, prediction: dict[str, Any]) -> list[dict[str, str]]:
        values, n = prediction["values"], self.n_shown
        more = {f"{len(values) - n} more": "..."} if len(values) > n else {}
        return [{f"value {k}": f"{value:.6g}" for k, value in enumerate(values[:n])} | more]


class SpikeTrains(RecordingTask):
    """Van Rossum distance of the readout's spikes from the targets, as loss and as score. Such networks have no ANN."""

    measure = DISTANCE
    carded, n_sums = ("distance", "tau"), 3
    n_shown: ClassVar[int] = 8
    """Number of spikes of a neuron in a table; JSON has all."""

    def loss(self, outputs: Tensor, batch: Batch, taught: Tensor | None, part: float) -> Tensor:
        return self._distances(outputs, batch.targets.transpose(0, 1)).mean()

    def _distances(self, spikes: Tensor, wanted: Tensor) -> Tensor:
        """Return the distance of each recording, `[N]`, from spikes `[T, N, ...]` and wanted ones `[T, N, neurons]`."""
        distances: Tensor = van_rossum_distance(spikes.flatten(2), wanted, self.recipe.spike_tau).sum(1)
        return distances

    def by_example(self, outputs: Tensor) -> Tensor:
        return outputs.transpose(0, 1).flatten(2)

    def targets(self, examples: Frames, steps: int) -> Tensor | None:
        return None if examples.targets is None else examples.targets[:, :steps]

    def sums(self, outputs: Tensor, targets: Tensor) -> list[float]:
        spikes, wanted = (trains.transpose(0, 1).double() for trains in (outputs, targets))
        distances = self._distances(spikes, wanted)
        return [float(distances.sum()), float(outputs.sum()), float(targets.sum())]

    def figures(self, sums: list[float], n: int, *, has_targets: bool) -> Figures:
        distance, spikes, wanted = (total / n for total in sums)
        others = {"tau": self.recipe.spike_tau, "spikes": spikes, "wanted_spikes": wanted if has_targets else None}
        return Figures(distance, distance, others=others) if has_targets else Figures(None, None, others=others)

    def shown(self, score: Evaluation) -> dict[str, float | None]:
        return {"distance": score.score, **score.figures}

    def cells(self, score: Evaluation) -> dict[str, str]:
        return {
            "recordings": f"{score.n_images:,}",
            "distance": self.measure.text(score.score),
            "spikes": number(score.figures["spikes"], ",.1f"),
            "wanted": number(score.figures["wanted_spikes"], ",.1f"),
            "synops/step": number(None if score.synops is None else sum(score.synops)),
            "steps/s": number(self.speed(score)),
        }

    def over_time(self, network: IntegerNetwork, frames: Tensor) -> Tensor:
        return network(frames).flatten(2)

    def predicted(self, outputs: Tensor) -> dict[str, Any]:
        return {"spikes": [neuron.nonzero().flatten().tolist() for neuron in outputs.unbind(1)]}

    def predicted_cells(self, prediction: dict[str, Any]) -> list[dict[str, str]]:
        return [
            {"neuron": str(neuron), "spikes in steps": _first_of(steps, self.n_shown)}
            for neuron, steps in enumerate(prediction["spikes"])
        ]


def _first_of(steps: list[int], n: int) -> str:
    """Return the steps in which a neuron spikes as text; of many, the first `n`."""
    more = f" and {len(steps) - n} more" if len(steps) > n else ""
    return ", ".join(map(str, steps[:n])) + more or "-"
