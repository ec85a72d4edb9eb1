"""Tables of hostile files, of memory, of killed commands, and of the faults of lava-dl."""

from typing import Any

from readme_tables.common import markdown_table, paragraphs


def render_fuzz(report: dict[str, Any]) -> str:
    """Return the table of a report by `fuzz.py`."""
    rows = []
    for name, n_cases in report["cases"].items():
        found = report["formats"].get(name, {})
        runs = [f"{found[engine]['executions']:,}" if engine in found else "-" for engine in ("bytes", "structure")]
        ends = [f"{sum(run[end] for run in found.values()):,}" for end in ("read", "refused", "failed")]
        last = max((run.get("date", "-") for run in found.values()), default="-")
        rows.append((name, n_cases, *runs, *ends, last))
    header = "format | cases tried | bytes changed | structure changed | read | refused | failed | last run"
    return markdown_table(header, rows)


def render_readers(report: dict[str, Any]) -> str:
    """Return the table of a report by `bench_readers.py`: peak memory of each reader, without Python's and torch's."""
    rows = []
    for row in report["rows"]:
        reason = "" if row["outcome"] == "read" else f"{row['outcome']}: {row['text']}"
        rows.append((row["format"], f"{row['file_mib']:g}", row["peak_mib"], f"{row['seconds']:.2f}", reason))
    return paragraphs(f"{report['date']}.", markdown_table("format | file, MiB | peak, MiB | CPU s |", rows))


def render_kills(report: dict[str, dict[str, Any]]) -> str:
    """Return the table of a report by `check_kills.py`."""
    columns = ("tries", "killed", "resumed", "temporaries", "lost", "date")
    rows = ((name, *(counts.get(key, "-") for key in columns)) for name, counts in report.items())
    return markdown_table(f"command | {' | '.join(columns)}", rows)


UNIT = "tests/unit"
FAULTS = (
    (
        "export removes weight norm from the live network, so the next `load_state_dict` fails",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_export_leaves_the_network_as_it_was",
    ),
    (
        "the readout is exported with the weights from before `load_state_dict` (see `zoo verify network.net`)",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_the_readout_is_exported_with_its_loaded_weights",
    ),
    (
        "the fitted activation is not in the state dict, so ANN mode is undefined after a reload",
        f"{UNIT}/bootstrap_core/network/test_network.py::test_a_network_without_its_own_fit_gets_it_from_the_state_dict",
    ),
    (
        "shapes are unknown before the first forward, so export before it fails",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_save_load_export_train_in_any_order_and_twice",
    ),
    (
        "`delay_shift` is documented as false and runs as true; here it is a field of the spec, false by default",
        f"{UNIT}/bootstrap_core/network/test_network.py::test_no_step_is_empty_unless_told",
    ),
    (
        "in hybrid training the spiking layers run for a single time step",
        f"{UNIT}/bootstrap_core/network/test_network.py::"
        "test_blocks_before_the_crossover_run_all_steps_and_their_mean_rate_enters_the_next",
    ),
    (
        "the sampler grows without bound and draws from a global random generator",
        f"{UNIT}/bootstrap_core/network/test_sampler.py::test_memory_is_bounded_by_the_capacity",
    ),
    (
        "`count_log` raises",
        f"{UNIT}/bootstrap_core/network/test_network.py::test_a_trace_has_spikes_of_every_step_and_their_mean_rate",
    ),
    (
        "the threshold that keeps a readout from spiking is `1 << 18 - 1`, which is 131072 instead of 262143",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_the_readout_never_fires",
    ),
    (
        "biases are truncated, without rounding or a range check",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_biases_are_rounded_to_mantissas",
    ),
    (
        "netx has no pooling; here an average pool is exported as an equal grouped convolution",
        f"{UNIT}/converters/formats/netx/test_netx_writer.py::test_an_average_pool_becomes_a_grouped_convolution_of_equal_weights",
    ),
)
"""Faults of lava-dl 0.6.0, each with the test that fails if snnzoo has it."""


def faults_table() -> str:
    """Return the table of faults, with links for `converters/README.md`."""
    tests = ((fault, *test.split("::")) for fault, test in FAULTS)
    return markdown_table("in lava-dl | test", ((fault, f"[`{name}`](../{path})") for fault, path, name in tests))
