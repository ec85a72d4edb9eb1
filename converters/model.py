"""A model in memory: spec, tensors and card; and its weights as signed integers of 8 bits."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bootstrap_core.data.image_files import Size, image_shape
from bootstrap_core.fixed_point import WEIGHT_STEP
from bootstrap_core.network.base_block import SynapticBlock
from bootstrap_core.network.build import build_network
from bootstrap_core.network.network import Network, check_network
from converters.weight_norm.migration_plan import migrate_state_dict
from converters.weight_norm.norm_styles import Style
from specs.dataset_sources import all_class_names, known_classes
from specs.errors import ConversionError, IntegrityError
from specs.fields import Shape
from specs.files.limits import CARD_BYTES, SPARE_WEIGHTS
from specs.io import spec_from_document
from specs.network import NetworkSpec
from specs.outline import outline
from specs.shapes import fit_input
from specs.summary import summarize

PROBLEMS_TOLD = 20


class EightBits(NamedTuple):
    """Weight as `integers * step`.

    `integers` are int8, of the shape of the weight. `step` is float32, `[1]`, or `[channels]` where a batch norm scales
    each channel before weights are rounded.
    """

    integers: Tensor
    step: Tensor

    def weight(self) -> Tensor:
        """Return the weight, float32."""
        return self.integers * self.step.reshape(-1, *[1] * (self.integers.dim() - 1))


@torch.no_grad()
def eight_bit_weights(network: Network) -> dict[str, EightBits]:
    """Return the weights that the hardware holds, by their names in the state dict.

    A network with these weights gives the same spikes, and the same rates as ANN. Weights with weight norm, which the
    state dict holds as two tensors, and the fixed weights of pools are left out.
    """
    names = {module: f"{name}.weight" for name, module in network.named_modules()}
    found, state = dict[str, EightBits](), network.state_dict()
    for block in (block for block in network.blocks if isinstance(block, SynapticBlock)):
        for synapse, weight in block.synapses():
            if (name := names[synapse]) in state:
                step = torch.as_tensor(WEIGHT_STEP / block.weight_scale(synapse)).flatten()
                found[name] = EightBits((weight / WEIGHT_STEP).round().to(torch.int8), step)
    return found


@dataclass(frozen=True)
class Model:
    """Network as data: its spec, tensors and card, without a module.

    Attributes:
        spec: specification of the network.
        tensors: state dict of the network that `build_network(spec)` makes, on the CPU.
        card: facts about the network, such as its training and its test scores; JSON values only.
        notes: assumptions that the reader of a file made, for people; not part of the model.
        origin: path of the file that the model was read from, for messages; not part of the model.
    """

    spec: NetworkSpec
    tensors: Mapping[str, Tensor]
    card: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=(), compare=False)
    origin: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return outline("Model", self.spec)

    def card_entry(self, topic: str) -> Mapping[str, Any]:
        """Return the card's entry for a topic, such as "training"; empty if it is missing or not a mapping."""
        facts = self.card.get(topic)
        return facts if isinstance(facts, Mapping) else {}

    @property
    def overflow(self) -> str | None:
        """Description of a 24-bit overflow on the chip, found in the test after training; None if there was none.

        The float engine does not notice such an overflow.
        """
        snn = self.card_entry("test").get("snn")
        told = snn.get("overflow") if isinstance(snn, Mapping) else None
        return told if isinstance(told, str) and told.isprintable() else None

    @property
    def data(self) -> str | None:
        """Dataset that the network was trained on or converted with; None if neither card nor recipe names one."""
        recipe = self.spec.training
        found = self.card_entry("training").get("data", recipe and recipe.data)
        found = self.card_entry("conversion").get("data") if found is None else found
        return None if found is None else str(found)

    def with_data(self, change: Callable[[str], str]) -> "Model":
        """Return the model with `change` applied to each name of a dataset in its card and its recipe."""
        topics = {topic: self.card_entry(topic) for topic in ("training", "conversion")}
        named = {
            topic: {**told, "data": change(told["data"])}
            for topic, told in topics.items()
            if isinstance(told.get("data"), str)
        }
        spec, recipe = self.spec, self.spec.training
        if recipe is not None and (data := change(recipe.data)) != recipe.data:
            spec = spec.model_copy(update={"training": recipe.model_copy(update={"data": data})})
        return replace(self, spec=spec, card={**self.card, **named})

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: from the card, or of the known dataset; classes without a name have their number."""
        told = self.card.get("classes", known_classes(self.data or ""))
        return all_class_names(told if isinstance(told, list | tuple) else (), self.spec.n_classes)

    @property
    def image_shape(self) -> Size | None:
        """Shape `(C, H, W)` of the input images, C = 1 or 3, or of frames of events; None if the input is neither.

        A flat input has the shape in the card if it fits, otherwise that of a square image.
        """
        told, shape = self.card.get("image_shape"), self.spec.input.shape
        known: Shape = ()
        if isinstance(told, list) and [type(side) for side in told] == [int, int, int] and min(told[1:]) > 1:
            known = tuple(told)
        if self.spec.input.is_events:
            frame = shape if len(shape) == 3 else known
            return (frame[0], frame[1], frame[2]) if frame and fit_input(frame, shape) else None
        if known:
            own = image_shape(known)
            return own if len(shape) == 1 and own and fit_input(own, shape) else image_shape(shape)
        return image_shape(shape)

    @classmethod
    def of(cls, network: Network, card: Mapping[str, Any] | None = None) -> "Model":
        """Return a copy of the network's current state, delays in whole steps; the network is not changed.

        The card gets the names of the network's classes unless it has some, or they follow from the data.
        """
        check_network(network, "Model.of", ConversionError)
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        for name, block in network.named_modules():
            if (delay := getattr(block, "quantized_delay", lambda: None)()) is not None:
                tensors[f"{name}.delay"] = delay.detach().cpu().clone()
        model = cls(network.spec, tensors, card or {})
        if "classes" in model.card or network.classes == model.classes:
            return model
        return replace(model, card={**model.card, "classes": list(network.classes)})

    def normalizing(self, mean: float | None, std: float | None) -> "Model":
        """Return the model with `(x - mean) / std` before its input; if both are None, with a note that it has none.

        Raises `SpecError` if the input takes no normalisation (graded), or a value is out of range.
        """
        given = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
        if not given:
            note = "images are not normalised: if training normalised them, give its mean and std (--mean, --std)"
            return replace(self, notes=(*self.notes, note))
        document = self.spec.model_dump(mode="json")
        document["input"] |= given
        return replace(self, spec=spec_from_document(document, origin=self.spec.name))

    def folded(self) -> "Model":
        """Return the same network with its weight norms multiplied out and its weights on the grid of 8 bits.

        Spikes are equal, and so are rates as ANN. Training can go on from it, without the weight norms.

        If the card has an entry "conversion", that gets `fold: true`: `--fold` reproduces the model.
        """
        tensors = migrate_state_dict(self.tensors, to=Style.PLAIN)
        told = self.card_entry("conversion")
        card = {**self.card, "conversion": {**told, "fold": True}} if told else self.card
        plain = replace(self, spec=without_weight_norm(self.spec), tensors=tensors, card=card)
        on_grid = {name: packed.weight() for name, packed in eight_bit_weights(plain.build()).items()}
        return replace(plain, tensors={**tensors, **on_grid})

    def build(self) -> Network:
        """Return the network in eval mode, with these tensors and the names of the classes.

        Raises `IntegrityError` if a tensor is missing, unexpected, complex, or of another shape than in the
        spec; or it holds delays or a curve that no network can have.
        """
        check_fit(self.spec, sum(tensor.numel() for tensor in self.tensors.values()), origin=self.origin)
        network = build_network(self.spec, seed=0)
        wanted = network.state_dict()
        problems = [f"{name} is missing" for name in wanted.keys() - self.tensors.keys()]
        problems += [f"{name} belongs to no block" for name in self.tensors.keys() - wanted.keys()]
        problems += [
            f"{name} has shape {list(self.tensors[name].shape)}, expected {list(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in self.tensors and self.tensors[name].shape != tensor.shape
        ]
        problems += [f"{name} is complex" for name, tensor in self.tensors.items() if tensor.is_complex()]
        if not problems:
            try:
                network.load_state_dict(dict(self.tensors))
            except IntegrityError as error:
                problems = [str(error)]
        if problems:
            place = f"{self.origin}: " if self.origin else ""
            told = "; ".join(
                [*sorted(problems)[:PROBLEMS_TOLD], *(["and more"] if len(problems) > PROBLEMS_TOLD else [])]
            )
            raise IntegrityError(f"{place}the tensors do not fit the spec of {self.spec.name}: {told}")
        network.classes = self.classes
        return network


def without_weight_norm(spec: NetworkSpec) -> NetworkSpec:
    """Return the spec of the network with its weight norms multiplied out."""
    blocks = (
        block.model_copy(update={"weight_norm": False}) if hasattr(block, "weight_norm") else block
        for block in spec.blocks
    )
    return spec.model_copy(update={"blocks": tuple(blocks)})


def check_fit(spec: NetworkSpec, held: int, *, origin: str = "") -> None:
    """Raise `IntegrityError` if a spec has far more parameters than the `held` numbers of a file.

    Call it before building the network, which would allocate memory for all of them.
    """
    wanted = sum(row.parameters for row in summarize(spec))
    if wanted > held + SPARE_WEIGHTS:
        where = f"{origin}: " if origin else ""
        raise IntegrityError(f"{where}the spec of {spec.name} has {wanted:,} parameters; the file holds {held:,}")


def check_card(card: object, origin: str) -> Mapping[str, Any]:
    """Return the card of a file; raise `IntegrityError` for one that model files cannot hold.

    It and its entry "training" must be mappings, its numbers finite, and its JSON at most `CARD_BYTES` long.
    """
    if not isinstance(card, dict) or not isinstance(card.get("training", {}), dict):
        raise IntegrityError(f"{origin}: the card, or its entry training, is not a mapping: {str(card)[:80]!r}")
    try:
        n_bytes = len(json.dumps(card, allow_nan=False))
    except ValueError:
        raise IntegrityError(f"{origin}: the card holds a number that is not finite, which JSON lacks") from None
    if n_bytes > CARD_BYTES:
        raise IntegrityError(f"{origin}: the card has {n_bytes:,} bytes; the limit is {CARD_BYTES:,}")
    return card
