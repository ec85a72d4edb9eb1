"""An ANN becomes a spiking network: the form of input and of pooling that answers most as the ANN does."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from bootstrap_core.inference.integer_network import IntegerNetwork
from converters.ann_to_snn.ann import Ann, MaxPool, run_ann
from converters.ann_to_snn.calibrate import Calibration, InputForm, calibrate
from converters.ann_to_snn.image_normalization import AS_THEY_ARE, Normalization
from converters.ann_to_snn.spiking_layers import MaxPooling, SpikingLayer, activations_first, spiking_layers
from converters.model import Model
from specs.block import Encoding, Role
from specs.errors import StateOverflowError, UnsupportedError

__all__ = [
    "EVERY_FORM",
    "MOST_IMAGES",
    "Candidate",
    "SpikingForms",
    "best_candidate",
    "has_maxima",
    "has_skips",
    "images_wanted",
]

FEWEST, MOST = 256, 4096
"""Images to calibrate on, few for large networks."""
NUMBERS = 1 << 22
"""Activations of the ANN, of all images to calibrate on together, that are worth more than the fewest."""
FEWEST_TO_JUDGE, N_JUDGING = 500, 4000
"""Images to judge by, few of large ones."""
PIXELS = 1 << 27
"""Of all images to judge by together, that are worth more than the fewest: half a gigabyte."""
MOST_IMAGES = MOST + N_JUDGING
"""That any conversion asks for."""
BATCH = 250
GRADED_BITS = (8, 7, 6, 5, 4, 3)

Fit = Callable[..., tuple[Model, list[Calibration]]]
"""`calibrate`, of layers, in an `input_form`."""


@dataclass(frozen=True, kw_only=True)
class SpikingForms:
    """Forms that a spiking network may take; the one that answers most as the ANN does is chosen.

    Attributes:
        encodings: encodings of the input, by default spikes and graded pixels.
        max_pooling: what may become of a maximum over windows, by default neurons that fire with any of their window,
            or the average.
    """

    encodings: Sequence[Encoding] = tuple(Encoding)
    max_pooling: Sequence[MaxPooling] = (MaxPooling.ANY, MaxPooling.AVERAGE)


EVERY_FORM = SpikingForms()


@dataclass(frozen=True)
class Candidate:
    """A calibrated network, and the part of images to which it gives the answer of the ANN.

    Attributes:
        model: the network.
        calibrations: of its layers of neurons.
        layers: what it was made of, each a block of its own, beside flattens and the input.
        input_form: how pixels enter.
        max_pooling: what maxima became.
        agreement: part of the judged images.
        held_out: whether it was calibrated without these.
    """

    model: Model
    calibrations: list[Calibration]
    layers: Sequence[SpikingLayer]
    input_form: InputForm
    max_pooling: MaxPooling
    agreement: float
    held_out: bool

    @property
    def blocks(self) -> list[int]:
        """The block of the network that each of `layers` became."""
        return [i for i, made in enumerate(self.model.spec.layers) if i > 0 and made.role is not Role.RESHAPED]

    def blocks_of(self, ann: Ann) -> dict[str, list[int]]:
        """The blocks that do what each node of the ANN does, by its name."""
        own = {layer.target: block for layer, block in zip(self.layers, self.blocks, strict=True)}
        found: dict[str, set[int]] = {name: {block} for name, block in own.items()}
        for node in reversed(activations_first(ann).nodes):
            for name in node.inputs:
                if name not in own:
                    found.setdefault(name, set()).update(found[node.name])
        return {name: sorted(blocks) for name, blocks in found.items()}


def images_wanted(ann: Ann) -> int:
    """How many images `best_candidate` has a use for."""
    return _n_calibrating(activations_first(ann)) + min(N_JUDGING, max(FEWEST_TO_JUDGE, PIXELS // prod(ann.shape)))


def _n_calibrating(ann: Ann) -> int:
    return min(MOST, max(FEWEST, NUMBERS // sum(prod(node.shape) for node in ann.nodes)))


def best_candidate(
    ann: Ann,
    images: Tensor,
    *,
    name: str,
    time_steps: int,
    forms: SpikingForms = EVERY_FORM,
    normalization: Normalization = AS_THEY_ARE,
    balanced: bool = True,
) -> Candidate:
    """Calibrate every form on the first images, 256 to 4,096, judge each on up to 4,000, and give the best.

    They are judged on others if there are 500 at least, on all if not: of a few others, chance would choose.

    No labels are needed: what counts is that the answer is the ANN's.

    Args:
        ann: the ANN.
        images: `[N, ...]` in 0..1; see `images_wanted`.
        name: of the network.
        time_steps: T.
        forms: forms to choose from; graded input gets the number of bits with which the first layer errs least.
        normalization: of the ANN's images.
        balanced: see `calibrate`.

    Raises:
        UnsupportedError: no form gives a network; says why.
    """
    ann = activations_first(ann)
    images = images.reshape(len(images), *ann.shape)
    n = _n_calibrating(ann)
    calibrating = images[:n]
    held_out = len(images) >= n + FEWEST_TO_JUDGE
    judged = (images[n:] if held_out else images)[:N_JUDGING]
    with torch.no_grad():
        answers = torch.cat([run_ann(ann, normalization(part))[0].argmax(1) for part in judged.split(BATCH)])
    fit: Fit = partial(
        calibrate,
        ann,
        images=calibrating,
        name=name,
        time_steps=time_steps,
        normalization=normalization,
        balanced=balanced,
    )
    found, problems = [], []
    for pooling in forms.max_pooling if has_maxima(ann) else forms.max_pooling[:1]:
        try:
            layers = spiking_layers(ann, pooling)
        except UnsupportedError as error:
            problems.append(str(error))
            continue
        for encoding in forms.encodings:
            try:
                form = _form(fit, layers, encoding)
                model, calibrations = fit(layers, input_form=form)
                agreement = _agreement(model, judged, answers)
                found.append(Candidate(model, calibrations, layers, form, pooling, agreement, held_out))
            except (UnsupportedError, StateOverflowError) as error:
                problems.append(f"{encoding} input: {error}")
    if not found:
        raise UnsupportedError(f"{name}: no spiking form: {'; '.join(dict.fromkeys(problems))}")
    return max(found, key=lambda candidate: candidate.agreement)


def has_maxima(ann: Ann) -> bool:
    """Whether any node is a maximum over windows."""
    return any(isinstance(node.operation, MaxPool) for node in ann.nodes)


def has_skips(ann: Ann, max_pooling: Sequence[MaxPooling]) -> bool:
    """Whether every spiking form of the ANN, by what its maxima may become, has skips."""
    ann, found = activations_first(ann), list[bool]()
    for pooling in max_pooling:
        with suppress(UnsupportedError):
            found.append(any(layer.skips for layer in spiking_layers(ann, pooling)))
    return bool(found) and all(found)


def _form(fit: Fit, layers: Sequence[SpikingLayer], encoding: Encoding) -> InputForm:
    """The form of an encoding; of graded input with the bits whose first layer errs least."""
    if encoding is Encoding.SPIKE or layers[0].activation is None:
        return InputForm(encoding)
    errors = dict[InputForm, float]()
    for form in (InputForm(encoding, bits) for bits in GRADED_BITS):
        try:
            errors[form] = fit(layers[:1], input_form=form)[1][0].error
        except UnsupportedError:  # of many levels the bias may leave its range; with the fewest that is told
            if form.bits == GRADED_BITS[-1] and not errors:
                raise
    return min(errors, key=lambda form: errors[form])


def _agreement(model: Model, images: Tensor, answers: Tensor) -> float:
    """The part of images that get their answer."""
    exact = IntegerNetwork(model.build())
    found = torch.cat([exact(part).argmax(1) for part in images.split(BATCH)])
    return float((found == answers).double().mean())
