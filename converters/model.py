"""A network as data: what every format reads and writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from bootstrap_core.data.image_files import Size, image_shape
from bootstrap_core.network.build import build_network
from bootstrap_core.network.network import Network
from converters.weight_norm.migration_plan import migrate_state_dict
from converters.weight_norm.norm_styles import Style
from specs.dataset_sources import known_classes
from specs.errors import IntegrityError
from specs.files.limits import SPARE_WEIGHTS
from specs.io import spec_from_document
from specs.network import NetworkSpec
from specs.shapes import fit_input
from specs.summary import summarize

__all__ = ["Model", "check_card", "check_fit", "without_weight_norm"]

PROBLEMS_TOLD = 20


@dataclass(frozen=True)
class Model:
    """A spec and its tensors, apart from any module.

    Attributes:
        spec: what the network is.
        tensors: the state dict of the network that `build_network(spec)` makes, on the CPU.
        card: what is known about the network: how it was trained, what it scores. JSON values only.
        notes: what a reader had to assume, for people; not part of the model.
        origin: the file it was read from, for messages; not part of the model.
    """

    spec: NetworkSpec
    tensors: Mapping[str, Tensor]
    card: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=(), compare=False)
    origin: str = field(default="", compare=False)

    def told(self, topic: str) -> Mapping[str, Any]:
        """What the card has of a topic, such as "training"; nothing, if it is no mapping: files come from anywhere."""
        facts = self.card.get(topic)
        return facts if isinstance(facts, Mapping) else {}

    @property
    def overflow(self) -> str | None:
        """How a state left the chip's 24 bits when training scored it, which floats do not notice; None if none did."""
        snn = self.told("test").get("snn")
        told = snn.get("overflow") if isinstance(snn, Mapping) else None
        return told if isinstance(told, str) and told.isprintable() else None

    @property
    def data(self) -> str | None:
        """The dataset that it was trained on, or converted with; None if neither card nor recipe tells."""
        recipe = self.spec.training
        found = self.told("training").get("data", recipe and recipe.data)
        found = self.told("conversion").get("data") if found is None else found
        return None if found is None else str(found)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes, by its card, or else as its data has them; else numbers."""
        n = self.spec.n_classes
        told = self.card.get("classes", known_classes(self.data or ""))
        names = tuple(map(str, told)) if isinstance(told, list | tuple) else ()
        fit = len(names) == n and all(name.isprintable() for name in names)
        return names if fit else tuple(map(str, range(n)))

    @property
    def image_shape(self) -> Size | None:
        """`(C, H, W)` of the images that it takes, grey or of three colours; in a row, by its card or as a square."""
        told, shape = self.card.get("image_shape"), self.spec.input.shape
        if isinstance(told, list) and [type(side) for side in told] == [int, int, int] and min(told[1:]) > 1:
            known = image_shape(tuple(told))
            return known if len(shape) == 1 and known and fit_input(known, shape) else image_shape(shape)
        return image_shape(shape)

    @classmethod
    def of(cls, network: Network, card: Mapping[str, Any] | None = None) -> "Model":
        """A copy of what `network` holds now; the network is left as it is."""
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        return cls(network.spec, tensors, card or {})

    def normalizing(self, mean: float | None, std: float | None) -> "Model":
        """The model with `(x - mean) / std` before its input; without either, a note that images enter as they are.

        Raises:
            SpecError: an input that normalises nothing (graded), or a bad value.
        """
        given = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
        if not given:
            note = "images enter as they are: if training normalised them, say by which mean and std (--mean, --std)"
            return replace(self, notes=(*self.notes, note))
        document = self.spec.model_dump(mode="json")
        document["input"] |= given
        return replace(self, spec=spec_from_document(document, origin=self.spec.name))

    def folded(self) -> "Model":
        """The same network with its weight norms multiplied out, spikes and all: to be run rather than trained.

        Its card says so of a conversion, whose command makes it again.
        """
        tensors = migrate_state_dict(self.tensors, to=Style.PLAIN)
        told = self.told("conversion")
        card = {**self.card, "conversion": {**told, "fold": True}} if told else self.card
        return replace(self, spec=without_weight_norm(self.spec), tensors=tensors, card=card)

    def build(self) -> Network:
        """The network, in eval mode with these tensors.

        Raises:
            IntegrityError: a tensor is missing, left over, or of another shape than the spec's.
        """
        check_fit(self.spec, sum(tensor.numel() for tensor in self.tensors.values()), origin=self.origin)
        network = build_network(self.spec, seed=0)
        wanted = network.state_dict()
        problems = [f"{name} is missing" for name in wanted.keys() - self.tensors.keys()]
        problems += [f"{name} belongs to no block" for name in self.tensors.keys() - wanted.keys()]
        problems += [
            f"{name} is {list(self.tensors[name].shape)}, the spec wants {list(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in self.tensors and self.tensors[name].shape != tensor.shape
        ]
        problems += [f"{name} is complex" for name, tensor in self.tensors.items() if tensor.is_complex()]
        if problems:
            place = f"{self.origin}: " if self.origin else ""
            told = "; ".join(
                [*sorted(problems)[:PROBLEMS_TOLD], *(["and more"] if len(problems) > PROBLEMS_TOLD else [])]
            )
            raise IntegrityError(f"{place}the tensors do not fit the spec of {self.spec.name}: {told}")
        network.load_state_dict(dict(self.tensors))
        return network


def without_weight_norm(spec: NetworkSpec) -> NetworkSpec:
    """The spec of a network whose weight norms were multiplied out."""
    blocks = (
        block.model_copy(update={"weight_norm": False}) if hasattr(block, "weight_norm") else block
        for block in spec.blocks
    )
    return spec.model_copy(update={"blocks": tuple(blocks)})


def check_fit(spec: NetworkSpec, held: int, *, origin: str = "") -> None:
    """Raise `IntegrityError` if a spec wants far more than the `held` numbers of a file, before anyone makes them."""
    wanted = sum(row.parameters for row in summarize(spec))
    if wanted > held + SPARE_WEIGHTS:
        where = f"{origin}: " if origin else ""
        raise IntegrityError(f"{where}the spec of {spec.name} wants {wanted:,} numbers; the file holds {held:,}")


def check_card(card: object, origin: str) -> Mapping[str, Any]:
    """The card of a file, if it is one: a mapping, and so is what it tells of the training. Raises `IntegrityError`."""
    if not isinstance(card, dict) or not isinstance(card.get("training", {}), dict):
        raise IntegrityError(f"{origin}: its card is none: {str(card)[:80]!r}")
    return card
