"""README.md of a published model and of an index, with the front matter that Hugging Face reads.

Source of the keys: https://huggingface.co/docs/hub/model-cards, and `model-index` as in huggingface_hub's `EvalResult`.
"""

from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from specs.dataset_sources import dataset_names, dataset_title
from specs.network import NetworkSpec
from specs.words import counted, percent
from zoo.card import Card
from zoo.hub.index import ZooIndex
from zoo.model_format import ModelFormat

README_NAME = "README.md"
WRITTEN = "<!-- Written by zoo publish, which leaves a README.md without this line as it is. -->"
TAGS = ["snnzoo", "spiking-neural-network", "loihi"]
HUB_LICENCES = frozenset({
    "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0",
    "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc0-1.0", "ecl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "gpl-2.0", "gpl-3.0", "isc",
    "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "ms-pl", "ncsa", "ofl-1.1", "osl-3.0", "postgresql", "unlicense", "wtfpl",
    "zlib",
})  # fmt: skip
"""Licences that Hugging Face knows, as it writes them; every other one is `other`, with its name beside it."""
TASKS = {
    "image-classification": "Image Classification",
    "audio-classification": "Audio Classification",
    "video-classification": "Video Classification",
    "other": "Classification of events",
}
"""Tasks of Hugging Face and their names; recordings of an event camera are its videos."""


def model_readme(card: Card, spec: NetworkSpec, card_path: str) -> str:
    """Return the README.md of a model: front matter, the card for people, labels and a test vector.

    Args:
        card: the card.
        spec: spec in the model file.
        card_path: path of the card from the folder of the README.md.
    """
    from zoo.card_text import as_markdown  # imports torch

    name, weights = f"{card.name}@{card.revision}", card.files[ModelFormat.SAFETENSORS]
    classes = ", ".join(f"{i} `{label}`" for i, label in enumerate(card.data.classes))
    parts = [
        WRITTEN,
        as_markdown(card, spec),
        f"## Use\n\n```\npip install snnzoo\nzoo pull {name} --from INDEX\nzoo verify {name}\n```\n",
        f"INDEX is the folder or URL with the `index.json` that lists this model. `{card.name}.safetensors` has the "
        f"sha256 `{weights.sha256}`.\n",
        f"## Labels\n\nClasses by the index of their logit: {classes}.\n",
        _test_vector(card, card_path),
    ]
    return _page(_front_matter(card), parts)


def index_readme(index: ZooIndex) -> str:
    """Return the README.md of an index of several models: a table with a link to the page of each."""
    from zoo.card_text import table

    newest = {name: models[-1] for name, models in sorted(index.models.items())}
    licences = {model.licence for model in newest.values()}
    front = {
        **(_licence_keys(*licences) if len(licences) == 1 else {"license": "other", "license_name": "of-each-model"}),
        "library_name": "snnzoo",
        "tags": TAGS,
        **_dataset_keys(*(model.data for model in newest.values())),
    }
    rows = [
        (
            f"[{name}]({PurePosixPath(model.files[ModelFormat.SAFETENSORS].path).parent}/{README_NAME})",
            model.description.replace("|", "\\|"),
            model.data,
            str(model.time_steps),
            percent(model.accuracy),
            f"{model.files[ModelFormat.SAFETENSORS].bytes / 1e6:.2f}",
            model.licence,
        )
        for name, model in newest.items()
    ]
    header = ("model", "description", "data", "T", "accuracy", "MB", "licence")
    use = (
        "`zoo list --from INDEX` lists them, `zoo pull NAME --from INDEX` fetches one; INDEX is this folder or its URL."
    )
    return _page(front, [WRITTEN, "# Spiking neural networks\n", table(header, rows), f"\n{use}\n"])


def is_ours(page: bytes) -> bool:
    """Return whether `zoo publish` wrote a README.md, and so may write it again."""
    return WRITTEN.encode() in page


def _page(front: dict[str, Any], parts: list[str]) -> str:
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{text}---\n\n" + "\n".join(parts)


def _front_matter(card: Card) -> dict[str, Any]:
    entering, data = card.input, card.data
    task = "image-classification"
    if entering.log_mel is not None:
        task = "audio-classification"
    elif entering.is_events:
        task = "video-classification" if len(entering.shape) == 3 else "other"
    reached = {card.time_steps: card.test.accuracy, **card.test.by_steps}
    metrics = [
        {"type": "accuracy", "value": accuracy, "name": f"Accuracy, T = {steps}"}
        for steps, accuracy in reached.items()
        if accuracy is not None
    ]
    result = {
        "task": {"type": task, "name": TASKS[task]},
        "dataset": {"type": _dataset_id(data.name), "name": dataset_title(data.name), "split": "test"},
        "metrics": metrics,
    }
    return {
        **_licence_keys(card.licence),
        "library_name": "snnzoo",
        "tags": TAGS,
        **_dataset_keys(data.name),
        "pipeline_tag": task,
        "model-index": [{"name": card.name, "results": [result]}],
    }


def _licence_keys(licence: str) -> dict[str, str]:
    known = licence.lower().removesuffix("-only").removesuffix("-or-later")
    return {"license": known} if known in HUB_LICENCES else {"license": "other", "license_name": licence}


def _dataset_keys(*names: str) -> dict[str, list[str]]:
    """Return the datasets that others have; a path of the user's own says nothing to them."""
    known = sorted(set(names) & set(dataset_names()))
    return {"datasets": known} if known else {}


def _dataset_id(name: str) -> str:
    return name if name in dataset_names() else Path(name).name


def _test_vector(card: Card, card_path: str) -> str:
    """Return the first golden input's expected output, and code that reads the input."""
    golden, sample = card.golden, card.input.sample
    spikes = ", ".join(f"{n:,}" for n in golden.spikes[0])
    logits = ", ".join(f"{logit:g}" for logit in golden.logits[0])
    layers = counted(len(golden.spikes[0]), "layer")
    code = f"""
import base64, zlib
from pathlib import Path
import numpy as np, yaml

golden = yaml.safe_load(Path("{card_path}").read_text())["golden"]
inputs = np.frombuffer(zlib.decompress(base64.b64decode(golden["images"])), np.uint8).reshape(golden["shape"])
""".strip()
    axes = "[N, T, C, H, W]" if len(golden.shape) == 5 else "[N, C, H, W]"
    return f"""## Test vector

The card, `{card_path}`, has {counted(golden.shape[0], sample)} as bytes {axes}, and what the network
gives for each. The first, of class `{card.data.classes[golden.labels[0]]}`, gives at T = {card.time_steps}:

- spikes of the {layers} with neurons, in their order: {spikes}
- logits: {logits}

```python
{code}
```
"""
