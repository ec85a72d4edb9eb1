import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bootstrap_core.analysis.spike_events import Events, animate, to_events, to_tensor
from specs.errors import SnnZooError

SHAPES = st.one_of(st.tuples(*[st.integers(0, 5)] * 2), st.tuples(*[st.integers(0, 4)] * 4))
DTYPES = st.sampled_from([np.dtype(name) for name in ("bool", "int8", "int64", "float32", "float64")])


@given(st.data())
def test_round_trip_is_exact(data: st.DataObject) -> None:
    dtype = data.draw(DTYPES)
    values = arrays.from_dtype(dtype, allow_nan=False)
    array = data.draw(arrays.arrays(dtype, data.draw(SHAPES), elements=values))
    spikes = torch.from_numpy(array)
    events = to_events(spikes)
    again = to_tensor(events, spikes.shape)
    assert again.dtype == spikes.dtype
    assert torch.equal(again, spikes)
    assert len(events) == np.count_nonzero(array)


def test_dense_events_name_time_neuron_and_payload() -> None:
    events = to_events(torch.tensor([[0.0, 0.0, 2.5], [-1.0, 0.0, 0.0]]))
    assert events.t.tolist() == [0, 1]
    assert events.place.tolist() == [[2], [0]]
    assert events.payload.tolist() == [2.5, -1.0]
    assert (events.c.tolist(), events.y.tolist(), events.x.tolist()) == ([2, 0], [0, 0], [0, 0])


def test_map_events_name_channel_row_and_column() -> None:
    spikes = torch.zeros(5, 4, 3, 6)
    spikes[4, 3, 2, 1] = 7
    events = to_events(spikes)
    assert (events.t.item(), events.c.item(), events.y.item(), events.x.item()) == (4, 3, 2, 1)
    assert events.payload.tolist() == [7]


def test_events_come_by_rising_time_and_return_in_any_order() -> None:
    spikes = torch.tensor([[1, 2], [3, 4]])
    events = to_events(spikes)
    assert events.payload.tolist() == [1, 2, 3, 4]
    shuffled = Events(events.t.flip(0), events.place.flip(0), events.payload.flip(0))
    assert torch.equal(to_tensor(shuffled, (2, 2)), spikes)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (1, 1, 1, 1, 1)])
def test_only_single_samples_have_events(shape: tuple[int, ...]) -> None:
    with pytest.raises(SnnZooError, match=r"must be one sample, \[T, C\] or \[T, C, H, W\]"):
        to_events(torch.zeros(shape))
    with pytest.raises(SnnZooError, match="must be one sample"):
        to_tensor(to_events(torch.ones(1, 1)), shape)


@pytest.mark.parametrize(("t", "c"), [(2, 0), (0, 3), (-1, 0), (0, -1)])
def test_an_event_outside_the_shape_is_named(t: int, c: int) -> None:
    events = Events(torch.tensor([0, t]), torch.tensor([[0], [c]]), torch.ones(2))
    with pytest.raises(SnnZooError, match=rf"event 1 at \[{t}, {c}\] lies outside the shape \[2, 3\]"):
        to_tensor(events, (2, 3))


def test_two_events_at_one_place_are_refused() -> None:
    events = Events(torch.tensor([1, 0, 1]), torch.tensor([[2], [0], [2]]), torch.ones(3))
    with pytest.raises(SnnZooError, match=r"several events at \[1, 2\]"):
        to_tensor(events, (2, 3))


def test_events_must_fit_the_rank_of_the_shape() -> None:
    with pytest.raises(SnnZooError, match="2 coordinates"):
        to_tensor(to_events(torch.ones(1, 1)), (1, 1, 1, 1))


@pytest.mark.parametrize(
    ("t", "place", "payload"),
    [((2,), (3, 1), (2,)), ((2,), (2, 2), (2,)), ((2,), (2, 1), (1,)), ((2, 1), (2, 1), (2,))],
)
def test_events_that_do_not_fit_together_are_refused(t, place, payload) -> None:
    with pytest.raises(SnnZooError, match="events need"):
        Events(torch.zeros(t, dtype=torch.int64), torch.zeros(place, dtype=torch.int64), torch.zeros(payload))


# ---- the animation: pixels are read back with Pillow ----

PAGE, SILENT, AMBER, BLUE = (18, 20, 26), (38, 42, 52), (255, 206, 84), (96, 190, 255)


def read_frames(path) -> list[np.ndarray]:
    """Read all frames of an animation, each as `[height, width, 3]`."""
    image_module = pytest.importorskip("PIL.Image")
    with image_module.open(path) as gif:
        frames = []
        for number in range(gif.n_frames):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")))
        return frames


def squares(frame: np.ndarray, columns: int, rows: int, left: int = 12) -> list[list[tuple[int, ...]]]:
    """Return the middle colour of each square of a dense layer; squares have 256 // (longer side) pixels."""
    scale = 256 // max(columns, rows)
    ys = [12 + scale * row + scale // 2 for row in range(rows)]
    return [[tuple(frame[y, left + scale * column + scale // 2].tolist()) for column in range(columns)] for y in ys]


def test_each_step_is_a_frame_and_each_neuron_a_square(tmp_path) -> None:
    spikes = torch.tensor([[1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, -1]])
    path = animate(spikes, tmp_path / "a.gif")
    assert path == tmp_path / "a.gif"
    frames = read_frames(path)
    assert len(frames) == 3
    o, x, n = SILENT, AMBER, BLUE
    assert [squares(frame, 3, 2) for frame in frames] == [
        [[x, o, o], [o, o, o]],
        [[o, o, x], [o, o, o]],
        [[o, o, o], [x, o, n]],
    ]


def test_events_of_a_camera_are_shown_as_they_arrive(tmp_path) -> None:
    events = torch.zeros(2, 2, 2, 2)
    events[0, 1, 0, 1] = 1  # ON, right at the top
    events[1, 0, 1, 0] = 1  # OFF, left at the bottom
    frames = read_frames(animate(torch.ones(2, 4), tmp_path / "a.gif", image=events))
    assert frames[0][12:268].shape == frames[1][12:268].shape
    side = 256 // 3  # two pixels and the gap behind maps
    for frame, row, column, colour in ((frames[0], 0, 1, AMBER), (frames[1], 1, 0, BLUE)):
        seen = frame[12 : 12 + 256, 12 : 12 + 256]
        middle = [[tuple(seen[side * r + side // 2, side * c + side // 2]) for c in range(2)] for r in range(2)]
        assert middle[row][column] == colour
        assert sum(shade == SILENT for line in middle for shade in line) == 3


def test_the_bytes_are_deterministic_and_the_animation_loops(tmp_path) -> None:
    spikes = (torch.arange(60).view(6, 10) % 7 == 0).float()
    first = animate(spikes, tmp_path / "a.gif").read_bytes()
    assert first == animate(spikes, tmp_path / "b.gif").read_bytes()
    assert first.startswith(b"GIF89a")
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in first
    assert first != animate(spikes.flip(0), tmp_path / "c.gif").read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


ONES = torch.ones(2, 6)


@pytest.mark.parametrize(
    ("spikes", "name", "options", "message"),
    [
        (ONES, "a.png", {}, "must end in .gif"),
        (ONES, "a.gif", {"frames_per_second": 0}, "frames_per_second = 0"),
        (ONES, "a.gif", {"frames_per_second": 0.001}, "frames_per_second = 0.001"),
        (ONES, "a.gif", {"frames_per_second": 51}, "to 50"),
        (torch.ones(2, 3, 4), "a.gif", {}, "must be one sample"),
        (torch.ones(0, 3), "a.gif", {}, "are empty"),
        (ONES * torch.nan, "a.gif", {}, "not finite"),
        (ONES, "a.gif", {"image": torch.ones(4, 2, 2)}, r"image \[4, 2, 2\] must be \[H, W\]"),
        (ONES, "a.gif", {"image": torch.full((2, 2), 255.0)}, "must lie in 0..1"),
        (ONES, "a.gif", {"image": torch.full((2, 2), torch.nan)}, "must lie in 0..1"),
    ],
)
def test_what_cannot_be_animated_is_refused(tmp_path, spikes, name, options, message) -> None:
    with pytest.raises(SnnZooError, match=message):
        animate(spikes, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SnnZooError, match=r"needs Pillow: pip install pillow"):
        animate(ONES, tmp_path / "a.gif")
