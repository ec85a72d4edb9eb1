"""Plan and costs of C source follow from the shapes of a network alone."""

from bootstrap_core import build_network
from converters.chip.form import ChipForm
from converters.chip.from_network import form_of_network
from converters.formats.c.c_plan import c_costs, plan_of
from specs import NetworkSpec, load_spec

MAPS = NetworkSpec.model_validate(
    {
        "name": "tiny", "time_steps": 4, "input": {"shape": [2, 5, 5], "encoding": "graded", "bits": 2},
        "blocks": [
            {"kind": "conv", "channels": 3, "kernel": 2, "bias": True, "neuron": {"learn_decays": "per_channel"}},
            {"kind": "flatten"},
            {"kind": "dense", "features": 6, "norm": "mean_only", "skips": [{"kind": "dense", "source": 1}]},
            {"kind": "affine", "features": 2},
        ],
    }
)  # fmt: skip


def form_of(spec: NetworkSpec) -> ChipForm:
    return form_of_network(build_network(spec, seed=0))


def test_a_flatten_has_no_memory_of_its_own() -> None:
    plan = plan_of(form_of(MAPS))
    assert [stage.outputs.index for stage in plan.stages] == [1, 3, 4]
    own, skip = plan.stages[1].synapses
    assert own.source is skip.source is plan.stages[0].outputs
    assert (own.flattened, skip.flattened) == (True, False)
    assert (own.n_weights, skip.n_weights) == (48 * 6, 48 * 6)


def test_costs_of_a_network() -> None:
    costs = c_costs(form_of(MAPS))
    weights, biases, decays = 24 + 2 * 288 + 12, 3 + 6, 2 * 3 + 1
    assert costs.flash_bytes == weights + 2 * (biases + decays + 256) + 4 * (15 + 2 * 9)
    sums, drive, readout, spikes = 48, 48, 2, (48 + 6) * 2 // 4
    assert costs.ram_bytes == 4 * (2 + sums + drive + readout + (1 + 2 * 48) + (1 + 6) + spikes)
    assert costs.neurons == 48 + 6
    assert (costs.picture_synops, costs.step_synops) == (16 * 24, 2 * 288 + 12)


def test_measured_operations_lower_the_estimate() -> None:
    form = form_of(load_spec("mnist-dense"))
    every, some = c_costs(form), c_costs(form, [0, 40_000, 40_000, 1000])
    assert (some.step_synops, some.picture_synops) == (81_000, 0)
    assert every.step_cycles - some.step_cycles == 4.5 * (every.step_synops - 81_000)
    assert some.picture_cycles == 16 * some.step_cycles


def test_places_take_two_bytes_where_they_fit() -> None:
    def index_bytes(side: int) -> int:
        blocks = [{"kind": "conv", "channels": 1, "kernel": 1}]
        document = {"name": "a", "time_steps": 1, "input": {"shape": [1, side, 256]}, "blocks": blocks}
        return plan_of(form_of(NetworkSpec.model_validate(document))).index_bytes

    assert (index_bytes(256), index_bytes(257)) == (2, 4)


RECURRENT = NetworkSpec.model_validate(
    {
        "name": "tiny", "time_steps": 9, "input": {"shape": [2, 3, 5], "encoding": "events", "bits": 2},
        "blocks": [
            {"kind": "flatten"},
            {"kind": "dense", "features": 8, "recurrent": True, "delays": {"longest": 4}, "bias": True},
            {"kind": "dense", "features": 6, "delays": {"per": "synapse", "longest": 3}, "delay_shift": True},
            {"kind": "average", "features": 3},
        ],
    }
)  # fmt: skip


def test_a_network_that_has_time_of_its_own() -> None:
    plan = plan_of(form_of(RECURRENT))
    own, recurrent = plan.stages[0].synapses
    assert (own.n_weights, recurrent.n_weights, recurrent.source) == (30 * 8, 8 * 8, plan.stages[0].outputs)
    assert (plan.stages[0].rows, plan.stages[1].rows, plan.stages[1].delays_each_weight) == (5, 4, True)
    assert (plan.group, plan.step_unit, plan.unit_after(9), plan.last) == (2, 2, 18, plan.stages[1].outputs)
    costs = c_costs(form_of(RECURRENT))
    weights, delays, biases, decays = 240 + 64 + 48, 8 + 48, 8, 1 + 1
    assert costs.flash_bytes == weights + delays + 2 * (biases + decays) + 4 * 2 * 9
    events, late, lists = 4 + 30 * 2 + 30 + 2, 5 * 8 + 4 * 6, 8 * 2 + 6 * 2 * 2
    assert costs.ram_bytes == 4 * (2 + 8 + 3) + events + 4 * (late + 1 + 8 + 2 + 6) + lists
    assert (costs.neurons, costs.picture_synops, costs.step_synops) == (14, 0, 352)


def test_pixels_of_a_recurrent_block_are_weighed_once_and_its_own_spikes_in_each_step() -> None:
    blocks = [{"kind": "dense", "features": 6, "recurrent": True}, {"kind": "affine", "features": 2}]
    document = {"name": "a", "time_steps": 4, "input": {"shape": [5], "encoding": "graded"}, "blocks": blocks}
    costs = c_costs(form_of(NetworkSpec.model_validate(document)))
    assert (costs.picture_synops, costs.step_synops) == (30, 36 + 12)


def test_a_network_of_sigma_delta_neurons() -> None:
    document = {
        "name": "a", "time_steps": 4, "neuron": {"kind": "sigma_delta"},
        "input": {"shape": [1, 4, 5], "encoding": "frames"},
        "blocks": [
            {"kind": "conv", "channels": 2, "kernel": 2, "bias": True, "delay_shift": True},
            {"kind": "flatten"},
            {"kind": "affine", "features": 3},
        ],
    }  # fmt: skip
    spec = NetworkSpec.model_validate(document)
    plan, costs = plan_of(form_of(spec)), c_costs(form_of(spec))
    assert (plan.largest, plan.step_unit, plan.input_bytes) == (24, 1 << 18, 1)
    assert costs.flash_bytes == 8 + 24 * 3 + 2 * 2 + 4 * 15 + 2 * 4 * 5
    sums, entering, hidden = 2 * 24, 1 + 2 * 20 + 20 // 2, 2 + 4 * 24 + 24
    assert costs.ram_bytes == 4 * (2 + sums + 3 + entering + hidden)
    assert costs.neurons == 20 + 24
