"""Tables of comparisons that must find no difference, and of what the simulated camera differs in."""

from typing import Any

from readme_tables.common import dated

__all__ = ["render_c", "render_c_events", "render_camera", "render_engines"]


def render_engines(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_engines.py`."""
    lines = [
        f"On {report['kernels']}; {dated(report)}.",
        "",
        "| model | images | T | spikes | values compared | different |",
        "|---" * 6 + "|",
    ]
    for name, row in report["models"].items():
        numbers = (f"{row[key]:,}" for key in ("time_steps", "spikes", "places", "different"))
        lines.append(f"| `{name}` | {row['images']:,} of {row['data']} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def render_c(report: dict[str, Any]) -> str:
    """Return the tables of a report by `check_c.py`."""
    first = next(iter(report["models"].values()))
    builds, timed = list(first["builds"]), list(first["c_ms"])
    lines = [
        f"{report['cpu']}; {dated(report)}. By build: images that differ, of those compared. Times are of one image, "
        "with one thread.",
        "",
        f"| model | {' | '.join(builds)} | native, ms | {' | '.join(f'{name}, ms' for name in timed)} |",
        "|---" * (2 + len(builds) + len(timed)) + "|",
    ]
    for name, row in report["models"].items():
        cells = [f"{row['builds'][build]['different']} of {row['builds'][build]['images']:,}" for build in builds]
        cells += [
            f"{milliseconds:.2f}" for milliseconds in (row["native_ms"], *(row["c_ms"][build] for build in timed))
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    on_board = {name: row["cortex_m4"] for name, row in report["models"].items() if "cortex_m4" in row}
    if on_board:
        lines += [
            "",
            "Self-tests in qemu, with the images of the card, compiled with -O2. Flash, RAM and instructions are those "
            "of the Cortex-M4, for the first of these images.",
            "",
            "| model | Cortex-M4 | RISC-V | flash | RAM | instructions to show | a step |",
            "|---" * 7 + "|",
        ]
    for name, row in on_board.items():
        sizes = f"{row['flash_bytes']:,} | {report['models'][name]['ram_bytes']:,}"
        counts = f"{row['instructions_show']:,} | {row['instructions_step']:,}"
        said = f"{row['self_test']} | {report['models'][name].get('riscv64', '-')}"
        lines.append(f"| `{name}` | {said} | {sizes} | {counts} |")
    return "\n".join(lines)


def render_c_events(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_c_events.py`."""
    rows = report["networks"]
    first = next(iter(rows.values()))
    builds, timed = ", ".join(first["builds"]), list(first["c_us"])
    lines = [
        f"{report['cpu']}; {dated(report)}. {first['recordings']} recordings of {first['steps']} steps, builds: "
        f"{builds}. Different: answers after a step in which a class or a logit differs, in all builds together. Times "
        "are of one step, with one thread; flash, RAM and instructions are those of the Cortex-M4, compiled with -O2.",
        "",
        f"| network | logits compared | different | native, us | {' | '.join(f'{name}, us' for name in timed)} | "
        "Cortex-M4 | RISC-V | flash | RAM | instructions a step |",
        "|---" * (9 + len(timed)) + "|",
    ]
    for name, row in rows.items():
        board = row.get("cortex_m4", {})
        compared = f"{row['answers'] * len(row['builds']):,} | {sum(row['builds'].values())}"
        times = " | ".join(f"{us:.1f}" for us in (row["native_us"], *(row["c_us"][build] for build in timed)))
        measured = [f"{board[key]:,}" if board else "-" for key in ("flash_bytes", "instructions_step")]
        boards = f"{board.get('self_test', '-')} | {row.get('riscv64', '-')}"
        lines.append(
            f"| {name} | {compared} | {times} | {boards} | {measured[0]} | {row['ram_bytes']:,} | {measured[1]} |"
        )
    return "\n".join(lines)


def render_camera(report: dict[str, Any]) -> str:
    """Return the table of a report by `check_camera.py`."""
    rows = {
        "events per recording, mean and standard deviation": "{events:,.0f} and {deviation:,.0f}",
        "ON events": "{on:.1%}",
        "events in the first, second and third 100 ms": "{saccades[0]:.0%}, {saccades[1]:.0%}, {saccades[2]:.0%}",
        "pixels with events": "{pixels:,.0f}",
    }
    lines = [f"On the first {report['images']:,} training images:", "", "| | simulated | real |", "|---|---|---|"]
    for name, form in rows.items():
        lines.append(f"| {name} | {form.format(**report['simulated'])} | {form.format(**report['real'])} |")
    lines += [
        "",
        f"The numbers of events of single images correlate by {report['correlation']:.2f}; of the events, "
        f"{report['profile_distance']:.0%} come in another step of 10 ms. An image takes",
        f"{report['cpu_ms_per_image']:.1f} ms of CPU.",
    ]
    return "\n".join(lines).replace("%", " %")
