"""Pages of a site of models: the table of an index, and a page of each model, in which it runs.

Each page is one file that loads nothing. Its policy allows the one script in it, by its digest, and nothing else, so
what stands in an index cannot run. A model runs as WebAssembly, made of its C source.
"""

import base64
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from converters.formats.c.c_wasm import WasmModule
from converters.model import Model
from converters.report.rendering import render, visible
from specs.fields import Shape


@dataclass(frozen=True)
class Script:
    """Script of a page, and the source expression that lets a content security policy run it alone."""

    text: str
    digest: str

    @classmethod
    def of(cls, name: str) -> "Script":
        """Return a script of this package."""
        from markupsafe import Markup

        text = (resources.files(__package__) / name).read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        return cls(Markup(text), f"sha256-{digest}")


def live_facts(
    module: WasmModule,
    model: Model,
    shape: Shape,
    *,
    framing: Mapping[str, Any] | None,
    golden: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what the script of a model's page must know, as JSON values.

    Args:
        module: the compiled network.
        model: the network, and the names of its classes.
        shape: shape of an image, or of the frame of a step, `(C, H, W)`.
        framing: how drawings and images of other sizes are framed, the fields of `zoo.prediction.Framing`.
        golden: inputs that can be tried: `images`, base64 of zlib; their `shape`; and whether they are noise.
    """
    spec = model.spec
    return {
        "wasm": base64.b64encode(zlib.compress(module.code, 9)).decode(),
        "shape": shape,
        "is_timed": spec.input.is_timed,
        "bits": spec.input.bits,
        "bin_us": spec.input.bin_us,
        "log_mel": None if spec.input.log_mel is None else spec.input.log_mel.model_dump(mode="json"),
        "framing": framing,
        "golden": golden,
        "classes": [visible(name) for name in model.classes],
        "logit_scale": spec.logit_scale,
        "layers": [asdict(layer) for layer in module.layers],
        **{name: getattr(module, name) for name in ("units", "index_bytes", "input_bytes")},
    }


def model_page(*, live: Mapping[str, Any] | None, **names: Any) -> str:
    """Return the page of a model; without the facts of `live_facts` it does not run. `names` are the template's."""
    script = None if live is None else Script.of("live.js")
    return render("model_page.html.jinja", live=live, script=script, **names)


def models_page(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of models; each row has its name, figures, and the `href` of its page."""
    return render("models_page.html.jinja", title=title, rows=rows, script=Script.of("table.js"))
