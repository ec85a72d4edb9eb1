from bootstrap_core.network.mode import LayerModes, Mode


def names(modes: LayerModes, n: int = 4) -> list[str]:
    return [modes[i].name for i in range(n)]


def test_only_sample_and_snn_have_a_time_axis() -> None:
    assert {mode for mode in Mode if mode.spiking} == {Mode.SAMPLE, Mode.SNN}


def test_blocks_before_the_crossover_run_as_snn() -> None:
    assert names(LayerModes(Mode.ANN, crossover=2)) == ["SNN", "SNN", "ANN", "ANN"]


def test_blocks_before_the_crossover_do_not_fit() -> None:
    assert names(LayerModes(Mode.FIT, crossover=1)) == ["SNN", "FIT", "FIT", "FIT"]


def test_all_blocks_sample_whatever_the_crossover() -> None:
    assert names(LayerModes(Mode.SAMPLE, crossover=2)) == ["SAMPLE"] * 4


def test_without_a_crossover_all_blocks_run_in_the_base_mode() -> None:
    assert names(LayerModes(Mode.ANN)) == ["ANN"] * 4
