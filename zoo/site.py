"""A static site of an index: a table of its models, and a page for each, in which the model runs."""

import shlex
from collections.abc import Callable
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootstrap_core.data.splits import Split
from bootstrap_core.inference.integer_network import IntegerNetwork
from converters.formats.c.c_targets import WasmModule, compile_wasm
from converters.formats.safetensors_file import read_safetensors
from converters.model import Model
from converters.report.network_figures import Example, run_examples
from converters.report.network_graph import draw, graph_of_model
from converters.report.pages import live_facts, model_page, models_page
from converters.report.rendering import part_text
from specs.errors import IntegrityError, SnnZooError, UnsupportedError
from specs.fields import Shape
from specs.files.whole_file import write_whole
from specs.network import NetworkSpec
from zoo.card import Card, load_card
from zoo.card_text import sections
from zoo.hub.catalog import PACKAGE, Found, open_catalogs, packaged_models, search
from zoo.hub.fetch import local_file
from zoo.model_format import ModelFormat
from zoo.prediction import FRAMINGS
from zoo.runs.golden import golden_images
from zoo.runs.training_run import reports_of

INDEX_PAGE, MODELS = "index.html", "models"
"""Page with all models, and the folder of their own pages."""
LEAST_DRAWN = 8
"""Least number of rows and columns of an image that can be drawn."""
ACCEPTED = {"image": "image/*", "recording": ".bin,.bs1,.bs2", "sound": "audio/*,.wav"}
"""Files that can be chosen on a page, by what the network takes."""


def make_site(
    folder: Path,
    index: str | None = None,
    *,
    say: Callable[[str], object] = lambda line: None,
    warn: Callable[[str], object] = lambda line: None,
) -> list[dict[str, Any]]:
    """Write the site of an index; return name, revision and page of each model, and whether it runs there.

    Args:
        folder: gets `index.html`, and a page for each model in `models`.
        index: URL of the index; by default the models of the package.
        say: called with a line of text before each model.
        warn: called with a line of text for each model that cannot be read, which is left out.

    Raises:
        TransferError: the index cannot be read.
        SnnZooError: the index is damaged or has no model that can be read, or a page cannot be written.
    """
    (catalog,) = [packaged_models()] if index is None else open_catalogs([index])
    rows, made = [], list[dict[str, Any]]()
    for found in search("*", [catalog]):
        say(f"{found.name}: making its page")
        try:
            page, card, why_not = _model_page(found)
        except SnnZooError as error:
            warn(f"{found.name} is left out: {error}")
            continue
        href = f"{MODELS}/{found.name}.html"
        write_whole(folder / href, page.encode())
        rows.append({
            **found.facts(),
            "href": href,
            "synops": sum(layer.synops for layer in card.layers),
            "runs": why_not is None,
        })  # fmt: skip
        if why_not is not None:
            say(f"  it does not run in the page: {why_not}")
        made.append({"name": found.name, "revision": found.model.revision, "page": href, "runs": why_not is None})
    if not made:
        raise SnnZooError(f"{catalog.name} has no models that can be read: zoo publish adds one")
    title = "Models of the package" if index is None else f"Models of {index}"
    write_whole(folder / INDEX_PAGE, models_page(title, rows).encode())
    return made


def _model_page(found: Found) -> tuple[str, Card, str | None]:
    """Return the page of a model, its card, and the reason why it does not run in the page, None if it does."""
    model = read_safetensors(local_file(found, ModelFormat.SAFETENSORS))
    card, spec = load_card(local_file(found, None)), model.spec
    exact = IntegerNetwork(model.build())
    golden, is_noise = _checked(card, spec), card.golden.seed is not None
    labels = torch.tensor(card.golden.labels)
    examples = list[Example]() if is_noise else run_examples(exact, Split(golden, labels), range(len(golden)))
    shape, module, why_not = _shape(model), None, None
    try:
        module = compile_wasm(model)
        if shape is None:
            raise UnsupportedError(f"its input {list(spec.input.shape)} cannot be shown as an image")
    except SnnZooError as error:
        why_not = f"{error}"
    live = None if module is None or shape is None or why_not else _live(module, model, card, shape)
    reference = found.name if found.catalog.name == PACKAGE else f"{found.name}@{found.model.revision}"
    origin = [] if found.catalog.name == PACKAGE else ["--from", found.catalog.name]
    weights = found.model.files[ModelFormat.SAFETENSORS]
    page = model_page(
        live=live,
        why_not=why_not,
        name=found.name,
        spec=spec,
        description=card.description,
        classes=model.classes,
        layers=() if module is None else module.layers,
        draws=shape is not None and _is_drawn(shape, spec),
        accepted=ACCEPTED[spec.input.sample],
        example_names=[
            f"noise {i + 1}" if is_noise else model.classes[label] for i, label in enumerate(labels.tolist())
        ],
        is_noise=is_noise,
        facts=[
            (f"accuracy, T={spec.time_steps}", part_text(card.test.accuracy)),
            (f"test {spec.input.sample}s", f"{card.data.test_images:,}"),
            (f"synops per {spec.input.sample}", f"{sum(layer.synops for layer in card.layers):,.0f}"),
            ("bytes", f"{weights.bytes:,}"),
        ],
        command=shlex.join(["zoo", "pull", reference, *origin, "-o", "."]),
        python=f'import zoo\nnet = zoo.create_model("{reference}")',
        sha256=weights.sha256,
        licence=card.licence,
        examples=examples,
        by_steps=card.test.by_steps,
        sections=sections(card, spec),
        reports=reports_of(card.training),
        drawing=draw(graph_of_model(model)),
    )
    return page, card, why_not


def _checked(card: Card, spec: NetworkSpec) -> Tensor:
    """Return the golden inputs of a card; raise `IntegrityError` if they do not fit the network."""
    golden, labels = golden_images(card.golden), card.golden.labels
    size = prod(spec.input.shape) * (golden.shape[1] if spec.input.is_timed else 1)
    if prod(golden.shape[1:]) != size or len(labels) != len(golden):
        raise IntegrityError(f"golden.shape: must be of {size:,} numbers for each of {len(labels)} labels")
    if labels and not 0 <= min(labels) <= max(labels) < spec.n_classes:
        raise IntegrityError(f"golden.labels: must be below {spec.n_classes}, the number of classes, got {labels}")
    return golden


def _shape(model: Model) -> Shape | None:
    """Return the shape of an image, or of the frame of a step, `(C, H, W)`; None for values that are no image."""
    entering = model.spec.input
    if entering.log_mel is not None:
        return entering.log_mel.column if entering.is_events else entering.log_mel.picture
    return (1, 1, *entering.shape) if entering.is_timed and len(entering.shape) == 1 else model.image_shape


def _is_drawn(shape: Shape, spec: NetworkSpec) -> bool:
    """Return whether a visitor can draw an input: a grey image, and not a few values that have the shape of one."""
    is_grey = shape[0] == 1 and min(shape[1:]) >= LEAST_DRAWN
    return is_grey and not spec.input.is_timed and spec.input.log_mel is None


def _live(module: WasmModule, model: Model, card: Card, shape: Shape) -> dict[str, Any]:
    framing = FRAMINGS.get(card.data.name)
    golden = {"images": card.golden.images, "shape": card.golden.shape, "is_noise": card.golden.seed is not None}
    return live_facts(module, model, shape, framing=None if framing is None else asdict(framing), golden=golden)
