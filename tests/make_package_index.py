"""Write the package's index, zoo/index.json, from its cards: `python tests/make_package_index.py`."""

from pathlib import Path

from specs.files.whole_file import write_whole
from zoo.card import load_card
from zoo.hub.index import INDEX_NAME, IndexedFile, IndexedModel, ZooIndex, dump_index
from zoo.model_format import ModelFormat

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "zoo"


def package_index() -> bytes:
    """Return the index file: one revision of each model that has a card."""
    index = ZooIndex.empty()
    for path in sorted((PACKAGE / "cards").glob("*.yaml")):
        card = load_card(path)
        weights, card_path = f"weights/{card.name}.safetensors", f"cards/{path.name}"
        files = {
            ModelFormat.SAFETENSORS.value: IndexedFile(path=weights, **card.files[ModelFormat.SAFETENSORS].model_dump())
        }
        index = index.adding(card.name, IndexedModel.of(card, files, IndexedFile.of(path, card_path)))
    return dump_index(index)


if __name__ == "__main__":
    print(write_whole(PACKAGE / INDEX_NAME, package_index()))
