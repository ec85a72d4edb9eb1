"""Choice of the spiking form: the encoding of the input, the replacement of max pooling, and the reset.

Inputs are an ANN and images. Each form is calibrated on some of the images, and judged on others by its agreement: the
part of images to which the network gives the ANN's answer. The result is the `Candidate` with the largest agreement.
Which form loses least depends on the ANN and on the data, so it is measured. This needs no labels.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import prod

import torch
from torch import Tensor

from bootstrap_core.inference.integer_network import IntegerNetwork
from converters.ann_to_snn.calibrate import Calibration, InputForm, calibrate
from converters.ann_to_snn.spiking_layers import MaxPooling, SpikingLayer, activations_first, prepared, spiking_layers
from converters.linear.ann import Ann, MaxPool, run_ann
from converters.linear.image_normalization import AS_THEY_ARE, Normalization
from converters.model import Model
from specs.errors import StateOverflowError, UnsupportedError
from specs.layers.input import Encoding
from specs.layers.layer import Role
from specs.layers.neuron import Reset

FEWEST, MOST = 256, 4096
"""Bounds of the number of calibration images; fewer for large networks."""
ENOUGH_ACTIVATIONS = 1 << 22
"""Number of activations, of all images together, that is enough for calibration."""
FEWEST_TO_JUDGE, MOST_TO_JUDGE, JUDGED = 500, 4000, 2
"""Bounds of the number of images to judge by, and their ratio to those that calibrate."""
MOST_IMAGES = MOST + MOST_TO_JUDGE
"""Largest number of images that a conversion uses."""
BATCH = 250
GRADED_BITS = (8, 7, 6, 5, 4, 3)

Calibrate = Callable[..., tuple[Model, list[Calibration]]]
"""Type of `calibrate` with all arguments bound but `layers`, `input_form` and perhaps `reset`."""


@dataclass(frozen=True, kw_only=True)
class SpikingForms:
    """Forms of a spiking network to choose from; the one that agrees most with the ANN is taken.

    Attributes:
        encodings: encodings of the input to try; by default spikes and graded pixels.
        max_pooling: replacements of max pooling to try; by default neurons that fire when any neuron of their window
            does, and the average.
        resets: resets of the voltage after a spike to try; by default subtraction, and zero. The other forms are
            chosen with the first.
    """

    encodings: Sequence[Encoding] = (Encoding.SPIKE, Encoding.GRADED)
    max_pooling: Sequence[MaxPooling] = (MaxPooling.ANY, MaxPooling.AVERAGE)
    resets: Sequence[Reset] = (Reset.SUBTRACT, Reset.ZERO)


EVERY_FORM = SpikingForms()


@dataclass(frozen=True)
class Candidate:
    """Calibrated network, and its agreement with the ANN.

    Attributes:
        model: the network.
        calibrations: calibrations of its layers of neurons.
        layers: layers that it was made from. Each became one block; input and flattening are further blocks.
        input_form: form of the input.
        max_pooling: replacement of max pooling.
        reset: reset of the voltage after a spike.
        agreement: part of the judged images that get the ANN's answer, 0..1.
        held_out: True if the network was calibrated without these images.
    """

    model: Model
    calibrations: list[Calibration] = field(repr=False)
    layers: Sequence[SpikingLayer] = field(repr=False)
    input_form: InputForm
    max_pooling: MaxPooling
    reset: Reset
    agreement: float
    held_out: bool

    @property
    def blocks(self) -> list[int]:
        """Indices of the blocks that `layers` became, one for each layer."""
        return [i for i, made in enumerate(self.model.spec.layers) if i > 0 and made.role is not Role.RESHAPED]

    def blocks_of(self, ann: Ann) -> dict[str, list[int]]:
        """Return the indices of the blocks that compute each node of the ANN, by name of the node."""
        own: dict[str, set[int]] = {}
        for layer, block in zip(self.layers, self.blocks, strict=True):
            own.setdefault(layer.target, set()).add(block)
        found = {name: set(blocks) for name, blocks in own.items()}
        for node in reversed(activations_first(ann).nodes):
            for name in node.inputs:
                if name not in own:
                    found.setdefault(name, set()).update(found[node.name])
        return {name: sorted(blocks) for name, blocks in found.items()}


def images_wanted(ann: Ann) -> int:
    """Return the number of images that `best_candidate` can use."""
    n = _n_calibrating(activations_first(ann))
    return n + min(MOST_TO_JUDGE, JUDGED * n)


def _n_calibrating(ann: Ann) -> int:
    return min(MOST, max(FEWEST, ENOUGH_ACTIVATIONS // sum(prod(node.shape) for node in ann.nodes)))


def best_candidate(
    ann: Ann,
    images: Tensor,
    *,
    name: str,
    time_steps: int,
    forms: SpikingForms = EVERY_FORM,
    normalization: Normalization = AS_THEY_ARE,
    balanced: bool = True,
    on_form: Callable[[str], object] = lambda text: None,
) -> Candidate:
    """Calibrate the ANN in each form, and return the one that agrees most with it.

    The first 256 to 4,096 images calibrate; up to 4,000 of the others judge. If fewer than 500 others are left, chance
    would decide, so the images that calibrate judge, too. Labels are not needed.

    Args:
        ann: the ANN.
        images: `[N, ...]` in 0..1; see `images_wanted`.
        name: name of the network.
        time_steps: T.
        forms: forms to choose from; graded input gets the number of bits with the smallest error of the first layer.
        normalization: normalization of the images that the ANN takes.
        balanced: see `calibrate`.
        on_form: called before each form is calibrated, with a text for people.

    Raises:
        UnsupportedError: no form works; the message has the reasons.
    """
    ann = activations_first(ann)
    images = images.reshape(len(images), *ann.shape)
    n = _n_calibrating(ann)
    calibrating = images[:n]
    held_out = len(images) >= n + FEWEST_TO_JUDGE
    judged = (images[n:] if held_out else images)[:MOST_TO_JUDGE]
    with torch.no_grad():
        answers = torch.cat([run_ann(ann, normalization(part))[0].argmax(1) for part in judged.split(BATCH)])
    with_images: Calibrate = partial(
        calibrate,
        images=calibrating,
        name=name,
        time_steps=time_steps,
        normalization=normalization,
        balanced=balanced,
    )
    found, problems = list[Candidate](), list[str]()

    def try_form(layers: Sequence[SpikingLayer], pooling: MaxPooling, encoding: Encoding, reset: Reset) -> None:
        pools = f", max pools: {pooling}" if has_maxima(ann) else ""
        on_form(f"calibrating on {len(calibrating):,} images; input: {encoding}{pools}, reset: {reset}")
        with_reset = partial(with_images, prepared(ann, pooling), reset=reset)
        try:
            form = _form(with_reset, layers, encoding)
            model, calibrations = with_reset(layers, input_form=form)
            agreement = _agreement(model, judged, answers)
            found.append(Candidate(model, calibrations, layers, form, pooling, reset, agreement, held_out))
        except (UnsupportedError, StateOverflowError) as error:
            problems.append(f"{encoding} input, reset {reset}: {error}")

    first, *others = forms.resets
    for pooling in forms.max_pooling if has_maxima(ann) else forms.max_pooling[:1]:
        try:
            layers = spiking_layers(prepared(ann, pooling), pooling)
        except UnsupportedError as error:
            problems.append(str(error))
            continue
        for encoding in forms.encodings:
            try_form(layers, pooling, encoding, first)
    if not found:
        raise UnsupportedError(f"{name}: no spiking form works: {'; '.join(dict.fromkeys(problems))}")
    best = max(found, key=lambda candidate: candidate.agreement)
    for reset in others:
        try_form(best.layers, best.max_pooling, best.input_form.encoding, reset)
    return max(found, key=lambda candidate: candidate.agreement)


def has_maxima(ann: Ann) -> bool:
    """Return whether the ANN has max pooling."""
    return any(isinstance(node.operation, MaxPool) for node in ann.nodes)


def has_skips(ann: Ann, max_pooling: Sequence[MaxPooling]) -> bool:
    """Return whether the network has skips, whichever replacement of max pooling is chosen."""
    found = list[bool]()
    for pooling in max_pooling:
        with suppress(UnsupportedError):
            found.append(any(layer.skips for layer in spiking_layers(prepared(ann, pooling), pooling)))
    return bool(found) and all(found)


def _form(calibrate_as: Calibrate, layers: Sequence[SpikingLayer], encoding: Encoding) -> InputForm:
    """Return the input form for an encoding; graded input gets the bits with the smallest error of the first layer."""
    if encoding is Encoding.SPIKE or layers[0].activation is None:
        return InputForm(encoding)
    errors = dict[InputForm, float]()
    for form in (InputForm(encoding, bits) for bits in GRADED_BITS):
        try:
            errors[form] = calibrate_as(layers[:1], input_form=form)[1][0].error
        except UnsupportedError:  # with many levels the bias may be out of range; reported if the fewest bits fail too
            if form.bits == GRADED_BITS[-1] and not errors:
                raise
    return min(errors, key=lambda form: errors[form])


def _agreement(model: Model, images: Tensor, answers: Tensor) -> float:
    """Return the part of images to which the network gives the wanted answer."""
    exact = IntegerNetwork(model.build())
    found = torch.cat([exact(part).argmax(1) for part in images.split(BATCH)])
    return float((found == answers).double().mean())
