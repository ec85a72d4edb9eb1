"""Choice of the spiking form: encoding of the input, replacement of max pooling, reset, and voltage at the start.

Inputs are an ANN, images, and a judge. Each form is calibrated on the images, and the result is the `Candidate` that
the judge's rule prefers (`judge`). Which form loses least depends on the ANN and on the data, so it is measured.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import prod

from torch import Tensor

from converters.ann_to_snn.calibrate import Calibration, InputForm, calibrate
from converters.ann_to_snn.judge import Judge, Verdict
from converters.ann_to_snn.spiking_layers import MaxPooling, SpikingLayer, activations_first, prepared, spiking_layers
from converters.linear.ann import Ann, MaxPool
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
GRADED_BITS = (8, 7, 6, 5, 4, 3)

Calibrate = Callable[..., tuple[Model, list[Calibration]]]
"""Type of `calibrate` with all arguments bound but `layers`, `input_form` and perhaps `reset` and `start`."""


@dataclass(frozen=True, kw_only=True)
class SpikingForms:
    """Forms of a spiking network to choose from; the first is taken unless another is better, see `judge`.

    Attributes:
        encodings: encodings of the input to try; by default spikes and graded pixels.
        max_pooling: replacements of max pooling to try; by default neurons that fire when any neuron of their window
            does, sums of neurons, and the average. They are chosen with the first encoding. Sums are branches, which
            netx cannot express: beside others they are not tried if the first reset is to zero, as for netx.
        resets: resets of the voltage after a spike to try; by default subtraction, and zero. The other forms are
            chosen with the first.
        starts: voltages before the first step to try with a reset by subtraction, as fractions of the threshold; with
            a reset to zero they are 0. Half a threshold rounds rates as an offset does, and spikes come sooner.
    """

    encodings: Sequence[Encoding] = (Encoding.SPIKE, Encoding.GRADED)
    max_pooling: Sequence[MaxPooling] = (MaxPooling.ANY, MaxPooling.SUM, MaxPooling.AVERAGE)
    resets: Sequence[Reset] = (Reset.SUBTRACT, Reset.ZERO)
    starts: Sequence[float] = (0.5, 0.0)


EVERY_FORM = SpikingForms()


@dataclass(frozen=True)
class Candidate:
    """Calibrated network, and the verdict on it.

    Attributes:
        model: the network.
        calibrations: calibrations of its layers of neurons.
        layers: layers that it was made from. Each became one block; input and flattening are further blocks.
        input_form: form of the input.
        max_pooling: replacement of max pooling.
        reset: reset of the voltage after a spike.
        verdict: verdict of the judge.
    """

    model: Model
    calibrations: list[Calibration] = field(repr=False)
    layers: Sequence[SpikingLayer] = field(repr=False)
    input_form: InputForm
    max_pooling: MaxPooling
    reset: Reset
    verdict: Verdict = field(repr=False)

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
    """Return the number of images that `best_candidate` calibrates on, if there are enough."""
    n_activations = sum(prod(node.shape) for node in activations_first(ann).nodes)
    return min(MOST, max(FEWEST, ENOUGH_ACTIVATIONS // n_activations))


def best_candidate(
    ann: Ann,
    images: Tensor,
    judge: Judge,
    *,
    name: str,
    time_steps: int,
    forms: SpikingForms = EVERY_FORM,
    normalization: Normalization = AS_THEY_ARE,
    balanced: bool = True,
    on_form: Callable[[str], object] = lambda text: None,
) -> Candidate:
    """Calibrate the ANN in each form, and return the one that the judge prefers.

    Args:
        ann: the ANN.
        images: images to calibrate on, `[N, ...]` in 0..1; see `images_wanted`.
        judge: images that decide between the forms.
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
    with_images: Calibrate = partial(
        calibrate,
        images=images,
        name=name,
        time_steps=time_steps,
        normalization=normalization,
        balanced=balanced,
    )
    best: Candidate | None = None
    problems = list[str]()

    def better_of(
        best: Candidate | None,
        layers: Sequence[SpikingLayer],
        pooling: MaxPooling,
        encoding: Encoding,
        reset: Reset,
        start: float,
    ) -> Candidate | None:
        pools, starts = f", max pools: {pooling}" if has_maxima(ann) else "", f", start: {start}" if start else ""
        on_form(f"calibrating on {len(images):,} images; input: {encoding}{pools}, reset: {reset}{starts}")
        with_reset = partial(with_images, prepared(ann, pooling), reset=reset, start=start)
        try:
            form = _form(with_reset, layers, encoding)
            model, calibrations = with_reset(layers, input_form=form)
            verdict = judge.verdict(model.build())
        except (UnsupportedError, StateOverflowError) as error:
            problems.append(f"{encoding} input, reset {reset}: {error}")
            return best
        if best is not None and not verdict.is_better_than(best.verdict):
            return best
        return Candidate(model, calibrations, layers, form, pooling, reset, verdict)

    starts = {Reset.SUBTRACT: forms.starts, Reset.ZERO: (0.0,)}
    first, *others = [(reset, start) for reset in forms.resets for start in starts[reset]]
    layers_of = dict[MaxPooling, list[SpikingLayer]]()
    for pooling in forms.max_pooling if has_maxima(ann) else forms.max_pooling[:1]:
        if pooling is MaxPooling.SUM and first[0] is Reset.ZERO and len(forms.max_pooling) > 1:
            continue
        try:
            layers_of[pooling] = spiking_layers(prepared(ann, pooling), pooling)
        except UnsupportedError as error:
            problems.append(str(error))
    for encoding in forms.encodings:
        for pooling in layers_of if best is None else [best.max_pooling]:
            best = better_of(best, layers_of[pooling], pooling, encoding, *first)
    if best is None:
        raise UnsupportedError(f"{name}: no spiking form works: {'; '.join(dict.fromkeys(problems))}")
    for reset, start in others:
        best = better_of(best, best.layers, best.max_pooling, best.input_form.encoding, reset, start) or best
    return best


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
