"""Golden images: stored completely, and compared to the last bit."""

import base64
import zlib

import pytest
import torch

from bootstrap_core import IntegerNetwork, build_network
from bootstrap_core.data.splits import Split
from converters import read_model
from specs import IntegrityError, SnnZooError
from specs.io import spec_from_document
from zoo.runs.golden import golden_differences, golden_images, golden_of


@pytest.fixture(scope="module")
def exact(model_file) -> IntegerNetwork:
    return IntegerNetwork(read_model(model_file).build())


def test_images_come_back_as_they_were(exact, dataset) -> None:
    split = dataset.test.take([3, 5])
    golden = golden_of(exact, split)
    assert torch.equal(golden_images(golden), split.images)
    assert golden.labels == tuple(split.labels.tolist())


def test_of_large_images_or_many_classes_a_card_holds_fewer() -> None:
    spec = {"name": "x", "time_steps": 2, "blocks": [{"kind": "affine", "features": 3}]}
    generator = torch.Generator().manual_seed(0)

    def held(side: int, n_classes: int = 3) -> int:
        spec["input"] = {"shape": [1, side, side]}
        spec["blocks"] = [{"kind": "flatten"}, {"kind": "affine", "features": n_classes}]
        images = torch.randint(256, (8, 1, side, side), generator=generator, dtype=torch.uint8)
        network = IntegerNetwork(build_network(spec_from_document(spec), seed=0))
        golden = golden_of(network, Split(images, torch.zeros(8, dtype=torch.int64)))
        assert torch.equal(golden_images(golden), images[: len(golden.labels)])
        return len(golden.labels)

    assert [held(28), held(80), held(8, n_classes=900)] == [8, 2, 2]
    with pytest.raises(SnnZooError, match="a card holds at most 32,768"):
        held(200)


def test_images_that_a_card_must_not_contain_are_drawn_instead(exact, dataset) -> None:
    golden = golden_of(exact, dataset.test.take([3, 5]), seed=0)
    drawn = golden_images(golden)
    assert drawn.shape == (2, *dataset.test.images.shape[1:])
    assert torch.equal(drawn, golden_images(golden_of(exact, dataset.train.take([1, 2]), seed=0)))
    assert not torch.equal(drawn, golden_images(golden_of(exact, dataset.test.take([3, 5]), seed=1)))
    assert 100 < float(drawn.float().mean()) < 155
    assert golden.seed == 0
    assert golden.labels == tuple(exact(drawn).argmax(1).tolist())
    assert golden_differences(exact, golden) == []


def test_recordings_of_events_come_back_and_drawn_ones_keep_their_bits() -> None:
    spec = {
        "name": "x",
        "time_steps": 6,
        "input": {"shape": [2, 4, 4], "encoding": "events", "bits": 2},
        "blocks": [{"kind": "flatten"}, {"kind": "dense", "features": 5}, {"kind": "affine", "features": 3}],
    }
    network = IntegerNetwork(build_network(spec_from_document(spec), seed=0))
    frames = torch.randint(4, (3, 6, 2, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(frames, torch.tensor([0, 1, 2]))
    golden = golden_of(network, split)
    assert torch.equal(golden_images(golden), frames)
    assert golden_differences(network, golden) == []
    assert len(golden.logits) == 3
    assert sorted(golden_images(golden_of(network, split, seed=0)).unique().tolist()) == [0, 1, 2, 3]


def test_the_output_is_that_of_the_integer_engine(exact, dataset) -> None:
    split = dataset.test.take([3, 5, 7])
    golden = golden_of(exact, split)
    logits, trace = exact.run(split.images)
    assert torch.tensor(golden.logits).equal(logits)
    assert [row[1] for row in golden.spikes] == trace.spikes[1].sum((0, 2)).tolist()
    assert [len(row) for row in golden.spikes] == [2, 2, 2]  # the readout has no neurons
    assert golden_differences(exact, golden) == []


def test_a_logit_by_a_bit_and_a_spike_are_told(exact, card) -> None:
    logits = [list(row) for row in card.golden.logits]
    logits[2][0] += 2**-20
    changed = card.golden.model_copy(update={"logits": tuple(map(tuple, logits))})
    assert golden_differences(exact, changed) == ["logits of 1 of 8 images differ"]
    spikes = ((card.golden.spikes[0][0] + 1, card.golden.spikes[0][1]), *card.golden.spikes[1:])
    changed = card.golden.model_copy(update={"spikes": spikes})
    assert golden_differences(exact, changed) == ["spikes of 1 of 8 images differ"]
    changed = card.golden.model_copy(update={"logits": card.golden.logits[1:]})
    assert golden_differences(exact, changed) == ["logits of 8 of 8 images differ"]


@pytest.mark.parametrize(
    "text",
    ["no base64!", "\N{SNOWMAN}", base64.b64encode(b"no zlib").decode(),
     base64.b64encode(zlib.compress(bytes(5))).decode(),
     base64.b64encode(zlib.compress(bytes(1 << 22), 9)).decode()],
    ids=["text", "snowman", "bytes", "short", "long"],
)  # fmt: skip
def test_damaged_images_are_told(card, text: str) -> None:
    with pytest.raises(IntegrityError, match="golden"):
        golden_images(card.golden.model_copy(update={"images": text}))
