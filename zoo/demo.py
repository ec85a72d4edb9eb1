"""Demo in under a minute, offline: score and export a model of the zoo, and convert an ANN."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bootstrap_core.analysis.evaluation import evaluate
from bootstrap_core.data.datasets import load_dataset
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.pictures import png
from bootstrap_core.tasks.evaluation import Evaluation
from converters.ann_to_snn.best_candidate import SpikingForms
from converters.ann_to_snn.onnx_conversion import OnnxConversion, import_onnx
from converters.formats.model_files import file_entry, write_model
from converters.formats.safetensors_file import read_safetensors
from converters.report.comparison import measure_conversion
from converters.report.pages import conversion_page, gallery_page, measure_gallery
from specs.dataset_sources import SAMPLE_NAME
from specs.files.whole_file import write_whole
from specs.layers.neuron import Reset
from zoo.factory import packaged_path
from zoo.hub.catalog import find_models, packaged_models
from zoo.hub.fetch import pull
from zoo.model_format import ModelFormat
from zoo.runs.card_files import packaged_card
from zoo.runs.training_run import reports_of

MODEL, ANN, COMMAND = "mnist-dense", "mnist-relu.onnx", "zoo demo"
WEIGHTS, NETX, CARD, PAGE = (f"{MODEL}{suffix}" for suffix in (".safetensors", ".net", ".yaml", ".html"))
IMAGE, SPIKING, REPORT = "seven.png", "mnist-relu.net", "report.html"
CHECKPOINT, EXPORTED = "network.pt", "network.net"
FILES = {
    WEIGHTS: "the model: spec, weights, fitted activations",
    NETX: "the same model for Lava's netx",
    CARD: "its card: the figures that zoo verify checks",
    PAGE: "the model at work: spikes, rasters, layers",
    IMAGE: "a digit to try: zoo predict",
    ANN: "an ANN to try: zoo convert",
    SPIKING: "the ANN as a spiking network, for netx",
    REPORT: "report on this conversion",
    CHECKPOINT: "a checkpoint of lava-dl to try: zoo convert",
    EXPORTED: "that checkpoint as lava-dl exported it",
}
"""Files that the demo writes, each with a description."""
TIME_STEPS, EPOCHS = 8, 1


@dataclass(frozen=True)
class Demo:
    """Results of the demo."""

    score: Evaluation
    conversion: OnnxConversion


def run_demo(folder: Path, *, force: bool = False, say: Callable[[str], object] = lambda line: None) -> Demo:
    """Write `FILES` into `folder`; return the results. `say` is called with a line of text before each step."""
    digits = load_dataset(SAMPLE_NAME)
    ann, spiking = folder / ANN, folder / SPIKING
    seven = digits.test.images[:][int((digits.test.labels == 7).nonzero()[0])]
    write_whole(folder / IMAGE, png(seven[0]))
    for example in (ANN, CHECKPOINT, EXPORTED):
        write_whole(folder / example, packaged_path("examples", example).read_bytes())

    say(f"Pulling {MODEL} from the package, for Python and for Lava's netx.")
    (found,) = find_models([MODEL], [packaged_models()])
    formats = (ModelFormat.SAFETENSORS, ModelFormat.NETX)
    pull(found, formats=formats, folder=folder, force=force)
    model = read_safetensors(folder / WEIGHTS)
    say(f"Scoring it on {len(digits.test):,} digits, in the chip's integer arithmetic.")
    exact = IntegerNetwork(model.build())
    score = evaluate(exact, digits.test)
    figures = measure_gallery(model, digits, limit=len(digits.test))
    reports = reports_of(packaged_card(MODEL).training)
    write_whole(folder / PAGE, gallery_page(model, figures, source=MODEL, command=COMMAND, reports=reports).encode())

    say(f"Converting the ANN in {ANN} to a spiking network of {TIME_STEPS} time steps.")
    forms = SpikingForms(resets=[Reset.ZERO])  # as netx can hold it
    conversion = import_onnx(ann, dataset=digits, time_steps=TIME_STEPS, epochs=EPOCHS, forms=forms)
    write_model(conversion.model, spiking, overwrite=True)
    written = conversion_page(
        conversion, measure_conversion(conversion), source=ANN, command=COMMAND, outputs=[file_entry(spiking)]
    )
    write_whole(folder / REPORT, written.encode())
    return Demo(score, conversion)
