"""Streaming: exact inference one time step at a time, with states that are kept between the steps."""

from collections import Counter
from threading import Lock

import torch
from torch import Tensor

from bootstrap_core.network.inputs import as_step
from bootstrap_core.network.network import Network, walk
from bootstrap_core.network.steppers import Feed, Stepper, StreamPlace
from specs.errors import SnnZooError


class Stream:
    """Network that takes one time step of its input at a time. `IntegerNetwork.stream` makes it.

    The first step makes a stepper of each block, bound to its arrays, which every step overwrites.

    Args:
        overflows: counter of states that leave 24 bits, by block, to go on as the chip does; None to refuse them.

    Attributes:
        steps: number of steps since the start.
    """

    def __init__(self, network: Network, overflows: Counter[int] | None) -> None:
        self._network, self._spec, self._overflows = network, network.spec, overflows
        entering = self._spec.input
        self._is_still, self._takes_spikes = not entering.is_timed, entering.is_events and not entering.is_graded
        self._gives_spikes = self._spec.gives_spikes
        self._lock = Lock()  # native calls, and torch, let other threads run
        self.reset()

    def reset(self) -> None:
        """Start again from rest."""
        with self._lock:
            self._begin()

    def _begin(self) -> None:
        self.steps = 0
        self._count = torch.zeros((), dtype=torch.float64)  # `steps` as a tensor: dividing by a tensor is faster
        self._is_whole = True  # no step stopped half way
        self._feed: Feed | None = None
        self._size = torch.Size()  # of the input of a step, `[N, ...]`
        self._last = torch.empty(0)  # last input that was checked
        self._steppers: list[Stepper] = []

    def step(self, inputs: Tensor) -> Tensor:
        """Advance one step; return the logits so far, `[N, classes]`, float32: those of a run of `steps` steps.

        A network of sigma-delta neurons returns the values after this step, `[N, values]`; with `output: spikes`, it
        returns the spikes of this step, `[N, ...]`. There is no gradient. Steps of several threads run one after
        another, in the same states: for recordings side by side, make a stream for each, or take them as one batch.

        Args:
            inputs: events or frame `[N, ...]` of this step, or for a network of images the image, `[N, ...]` in 0..1.

        Raises:
            DataError: the input does not fit the network, or has another N than before.
            StateOverflowError: a state leaves the hardware's 24 bits, and `overflow` is `REFUSE`.
            SnnZooError: an earlier step raised such an error, and the stream was not reset.
        """
        with self._lock:
            return self._step(inputs)

    def _step(self, inputs: Tensor) -> Tensor:
        if not self._is_whole:  # only some blocks are a step further
            raise SnnZooError("the last step of this stream failed half way: call reset()")
        if not self._take_unchecked(inputs):
            self._check_and_take(inputs)
        self._is_whole = False
        for stepper in self._steppers:
            stepper.run(self.steps)
        self._is_whole = True
        self.steps += 1
        readout = self._steppers[-1]
        if self._gives_spikes:
            return readout.view[0].float()
        self._count.fill_(self.steps)
        return readout.answer(self._count).flatten(1)

    def _take_unchecked(self, inputs: Tensor) -> bool:
        """Take an input that needs no check, and return True: the last image again, or spikes that are 0 and 1."""
        feed, last = self._feed, self._last
        if feed is None or not isinstance(inputs, Tensor) or inputs.dtype != last.dtype or inputs.device != last.device:
            return False
        if inputs.layout is not last.layout or inputs.is_nested:
            return False
        if self._is_still:
            return torch.equal(inputs, last)
        if not self._takes_spikes or inputs.shape != self._size:
            return False
        spikes = inputs.detach().bool()
        if not torch.equal(spikes.to(inputs.dtype), inputs):
            return False
        feed.take(spikes)
        return True

    @torch.no_grad()
    @torch.inference_mode(False)  # other steps may be outside of it, where its tensors cannot be changed
    def _check_and_take(self, inputs: Tensor) -> None:
        """Check an input and take it; with the first one, make the steppers."""
        given = as_step(inputs, self._spec, None if self._feed is None else self._size[0])
        if self._feed is None:
            self._size = given.shape if self._is_still else given.shape[1:]
            self._feed = self._plan(given)
        self._feed.take(given)
        self._last = inputs.detach().clone()

    def _plan(self, first: Tensor) -> Feed:
        """Make the steppers, each with the arrays that it reads and writes; return the input that they read."""
        feed, shapes = Feed(first), self._spec.shapes

        def plan(i: int, reads: list[Stepper]) -> Stepper:
            place = StreamPlace(i, self._spec.title_of(i), (self._size[0], *shapes[i]), feed, self._overflows)
            return self._network.block(i).stepper(reads, place)

        given: Stepper = feed
        self._steppers = list(walk(self._spec.sources, given, plan))
        return feed
