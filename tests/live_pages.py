"""Pages of models that run in Chromium, and what the integer engine answers beside them."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from chromium import Chromium
from torch import Tensor

from bootstrap_core.inference.integer_network import IntegerNetwork
from converters.chip.from_network import form_of_network
from converters.formats.c.c_plan import plan_of
from converters.model import Model

READY = "document.getElementById('live')?.hidden === false"
"""JavaScript that is true once the model in the page is compiled."""
PART = 50
"""Number of inputs that a page answers in one call."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as `python -m http.server` does; give the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def answers_in_page(browser: Chromium, model: Model, inputs: Tensor) -> list[list[int]]:
    """Return class, logits and number of overflows of each input, bytes `[N, ...]`, from the module in the page."""
    frames = inputs.flatten(2) if model.spec.input.is_timed else inputs.flatten(1)[:, None]
    found = []
    for part in frames.split(PART):
        text = base64.b64encode(part.contiguous().numpy().tobytes()).decode()
        n, steps, size = part.shape
        found += browser.run(f"""(() => {{
            const bytes = Uint8Array.from(atob("{text}"), c => c.charCodeAt(0)), found = [];
            for (let i = 0; i < {n}; ++i) {{
                const frames = Array.from({{length: {steps}}}, (_, t) =>
                    bytes.subarray((i * {steps} + t) * {size}, (i * {steps} + t + 1) * {size}));
                const {{answer, logits, overflows}} = snnzoo.run(frames);
                found.push([answer, ...logits, overflows]);
            }}
            return found;
        }})()""")
    return found


def answers_of_engine(model: Model, inputs: Tensor) -> list[list[int]]:
    """Return class and logits of the integer engine, in the integers of the C source, and 0 overflows."""
    network = model.build()
    exact = IntegerNetwork(network)
    unit = plan_of(form_of_network(network)).unit_after(model.spec.time_steps)
    logits = torch.cat(
        [exact(part.transpose(0, 1) if model.spec.input.is_timed else part) for part in inputs.split(PART)]
    )
    integers = (logits.double() * unit).round()
    assert (logits.double() * unit - integers).abs().max() < 0.01, "float32 logits do not tell the integers apart"
    return [[int(one.argmax()), *map(int, one.tolist()), 0] for one in integers]
