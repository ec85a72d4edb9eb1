"""Conversion of an ONNX file into a tuned spiking network: runs all steps, and measures each.

The steps: import the ANN; set aside the images that judge (`judge`); calibrate the ANN and choose its form
(`best_candidate`); fit the readout to the ANN's answers (`readout`); tune the network as spikes (`tuning`); score the
ANN and the network. The result is an `OnnxConversion`:
the model, its accuracies before and after tuning, and notes on what was assumed and what went badly. Without images,
the network is calibrated on noise, and neither tuned nor scored.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from onnx import ModelProto
from pydantic import Field
from torch import Tensor

from bootstrap_core.analysis.evaluation import accuracy_by_steps, evaluate, evaluate_exactly
from bootstrap_core.data.data_places import DataPlaces
from bootstrap_core.data.image_arrays import UNLABELLED
from bootstrap_core.data.splits import Dataset, Split, train_validation_split
from bootstrap_core.data.torch_data import TorchData, dataset_of, is_torch_data
from bootstrap_core.inference.integer_network import IntegerNetwork
from bootstrap_core.network.network import Network
from bootstrap_core.ops.heap import keep_freed_memory
from bootstrap_core.tasks.evaluation import Evaluation
from bootstrap_core.training.history import EpochReport
from converters.ann_to_snn.ann_answers import AnnAnswers
from converters.ann_to_snn.best_candidate import (
    EVERY_FORM,
    Candidate,
    SpikingForms,
    best_candidate,
    has_maxima,
    images_wanted,
)
from converters.ann_to_snn.conversion_notes import (
    doubt_about_data,
    notes_on_accuracy,
    notes_on_candidate,
    notes_on_data,
    notes_on_judge,
)
from converters.ann_to_snn.judge import BestSoFar, Judge
from converters.ann_to_snn.readout import calibrate_logits, refit_readout
from converters.ann_to_snn.rectified_ann import Replacement, tune_ann
from converters.ann_to_snn.tuning import epoch_size, neuron_steps, tune, usual_epochs
from converters.linear.ann import Ann
from converters.linear.image_normalization import Normalization
from converters.model import Model
from converters.onnx.flat_graph import LAYER
from converters.onnx.import_ann import OnnxImport, import_ann
from specs.arguments import check_path, check_type
from specs.errors import ConversionError, DataError, StateOverflowError, UnsupportedError
from specs.fields import Integer, Shape, StrictModel, TimeSteps
from specs.io import document_as
from specs.layers.input import Encoding
from specs.network import NetworkSpec
from specs.outline import few_lines
from specs.training import TrainingSpec
from specs.words import counted

READOUT_STEPS = 1 << 31
"""Largest product of images, neurons and time steps for the fit of a readout: 10 to 20 s."""
LOGIT_IMAGES = 1000
"""Number of training images on which the logits are brought to the size of the ANN's."""
JUDGED_PART, MOST_JUDGED = 5, 2000
"""One of so many training images judges, if there are none for validation; and the largest number that judges."""
FEWEST_TO_TUNE = 2
"""Least number of training images for tuning: one to learn from, one to judge by."""
LEAST_ESTIMATE_S = 5
"""Shortest estimate of the duration of an epoch, or of the rest of tuning, in seconds, that is shown."""


def _ignore(_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class ImportCallbacks:
    """Functions that `import_onnx` calls with intermediate results; an exception from one ends the conversion.

    Attributes:
        on_step: called before each step with a text for people, which estimates the duration of a long step.
        on_imported: called with the ANN as soon as it is imported.
        on_doubt: called with a note if the images seem to need another normalization, or the classes another order,
            before any step that takes long.
        on_calibrated: called with the network before the readout is fitted and before tuning; only its tensors change
            afterwards.
        on_epoch: called with the report of each epoch of tuning.
    """

    on_step: Callable[[str], object] = _ignore
    on_imported: Callable[[Ann], object] = _ignore
    on_doubt: Callable[[str], object] = _ignore
    on_calibrated: Callable[[Model], object] = _ignore
    on_epoch: Callable[[EpochReport], object] = _ignore


NO_CALLBACKS = ImportCallbacks()


Data = Dataset | TorchData | str | Path | Callable[[Shape], Dataset]
"""Images: a dataset, also one of torch with labels, the name of one, the path of an `.npz` or of a folder with a folder
of images for each class, or a function that loads them for the shape that the ANN takes."""


class _Numbers(StrictModel):
    """Numbers that `import_onnx` takes, with their bounds."""

    time_steps: TimeSteps
    epochs: Annotated[Integer, Field(ge=0, le=1 << 24)] | None
    seed: Annotated[Integer, Field(ge=0, lt=1 << 63)]


@dataclass(frozen=True)
class OnnxConversion:
    """Result of converting an ONNX file.

    Accuracies are on the test images, by their labels, or without labels by the ANN's answers.

    Attributes:
        model: the spiking network.
        imported: the ANN, its nodes, and the largest difference from the ONNX reference.
        candidate: form that was chosen, as calibrated.
        dataset: images for tuning and scores, with the labels that were used; None without data.
        normalization: normalization of the images that the ANN takes.
        ann: accuracy of the ANN, 0..1; None without data.
        converted, tuned: accuracy for each T, before and after tuning, equal if tuning was undone; None where a state
            leaves 24 bits.
        written: the one of the two that `model` has, "converted" or "tuned".
        judged_by: images by which forms were chosen, and steps kept or undone, for people.
        score: evaluation of the final network at its own T, with rates and synops; by the float engine if a state
            leaves 24 bits; None without data.
        notes: assumptions and warnings, for people.
        doubt: the note that the images seem to need another normalization, or the classes another order; or None.
        seconds: duration of the conversion.
        replacement: cost of replacing activations by ReLU; None if none were.
    """

    model: Model
    imported: OnnxImport
    candidate: Candidate
    dataset: Dataset | None
    normalization: Normalization
    ann: float | None
    converted: dict[int, float | None]
    tuned: dict[int, float | None]
    written: str
    judged_by: str
    score: Evaluation | None
    notes: tuple[str, ...]
    doubt: str | None
    seconds: float
    replacement: Replacement | None = None

    def __repr__(self) -> str:
        lines = [] if self.ann is None else [f"ANN: {self.ann:.2%}"]
        for name, found in (("converted", self.converted), ("tuned", self.tuned)):
            accuracies = (f"{'overflow' if a is None else f'{a:.2%}'} (T = {t})" for t, a in found.items())
            lines += [f"{name}: {', '.join(accuracies)}"] if found else []
        lines += [f"{len(self.notes)} notes, see .notes"] if self.notes else []
        return few_lines(f"OnnxConversion {self.spec.name!r}, T = {self.spec.time_steps}", lines)

    @property
    def spec(self) -> NetworkSpec:
        """Spec of the spiking network."""
        return self.model.spec

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """State dict of the spiking network."""
        return self.model.tensors

    @property
    def nodes(self) -> list[dict[str, str]]:
        """Result for each node of the file, see `OnnxImport`; for a layer, `reason` names the blocks that it became."""
        blocks, layers = self.candidate.blocks_of(self.imported.ann), self.spec.layers
        words = {i: f"block {i}, {layer.kind}" for i, layer in enumerate(layers)}
        for i, layer in zip(self.candidate.blocks, self.candidate.layers, strict=True):
            if layer.is_any:
                words[i] += ", spikes when any neuron of its window does"
            if layer.population is not None:
                words[i] += f", {layer.population.drive.shape[1]} neurons for each unit"
        return [
            {**node, "reason": "; ".join(words[i] for i in blocks[node["became"]])} if node["reason"] == LAYER else node
            for node in self.imported.nodes
        ]

    @property
    def report(self) -> dict[str, Any]:
        """All figures as JSON values, as `convert --json` prints them."""
        score, spec = self.score, self.spec
        saturated = {found.block: found.saturated for found in self.candidate.calibrations}
        return {
            "nodes": self.nodes,
            "import_max_abs_error": self.imported.max_abs_error,
            "time_steps": spec.time_steps,
            "normalization": self.normalization.as_json(),
            "input": str(self.candidate.input_form.encoding),
            "input_bits": spec.input.bits if spec.input.encoding is Encoding.GRADED else None,
            "reset": str(self.candidate.reset),
            "max_pool": str(self.candidate.max_pooling) if has_maxima(self.imported.ann) else None,
            "judged_by": self.judged_by,
            "replaced": None if self.replacement is None else vars(self.replacement),
            "accuracy": {
                "ann": self.ann,
                "converted": {str(t): accuracy for t, accuracy in self.converted.items()},
                "tuned": {str(t): accuracy for t, accuracy in self.tuned.items()},
            },
            "written": self.written,
            "samples": 0 if score is None else score.n_images,
            "layers": [
                {
                    "block": f"{i} {layer.kind}",
                    "rate": None if score is None else score.rates[i],
                    "saturated": saturated.get(i),
                    "synops": None if score is None or score.synops is None else score.synops[i],
                }
                for i, layer in enumerate(spec.layers)
            ],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def import_onnx(
    path: str | Path | ModelProto | torch.nn.Module,
    *,
    example: Tensor | None = None,
    dataset: Data | None = None,
    validation: Data | None = None,
    labelled: bool | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    time_steps: int = 16,
    epochs: int | None = None,
    forms: SpikingForms = EVERY_FORM,
    replace_activations: str | None = None,
    seed: int = 0,
    callbacks: ImportCallbacks = NO_CALLBACKS,
) -> OnnxConversion:
    """Convert an ANN into a spiking network: import, calibrate, fit the readout, tune by bootstrap, score each stage.

    Args:
        path: path of the ONNX file, or the model in memory, or a torch module, which torch then exports.
        example: images that a torch module takes, such as `torch.zeros(1, 3, 32, 32)`; only with a module.
        dataset: images to calibrate, tune and score on. None calibrates on noise, without tuning and scores.
        validation: images that the ANN has not seen, which decide between forms, and whether steps are kept; all of
            them, or the test images if there are such. By default a fifth of the training images is held out for this.
        labelled: False if the labels of the dataset mean nothing: then the ANN's answers replace them. By default
            True unless the only class is `UNLABELLED`.
        mean, std: normalization of the images that the ANN takes, `(x - mean) / std` for x in 0..1: one number each, or
            one for each channel.
        time_steps: T.
        epochs: number of epochs of tuning; 0 for none. The default is `usual_epochs`: 2, and up to 8 for networks that
            lost much with few time steps.
        forms: forms of the input, of max pooling and of the reset to choose from.
        replace_activations: "relu" to put ReLU in the place of activations close to it, such as GELU and SiLU, and tune
            the ANN to its own former answers; needs a dataset. By default they are refused.
        seed: seed of everything random.
        callbacks: functions to call with intermediate results.

    Raises:
        UnsupportedError: nodes have no spiking form (the message names all), or the ANN has a single output.
        DataError: images, labels or normalization do not fit the ANN.
        ConversionError: the import does not agree with the ONNX reference.
        SpecError: a number is out of its range.
        SnnZooError: `forms` is not a `SpikingForms`.
    """
    document_as({"time_steps": time_steps, "epochs": epochs, "seed": seed}, _Numbers, origin="import_onnx")
    check_type(forms, SpikingForms, "forms must be SpikingForms", advice="SpikingForms(resets=[Reset.ZERO]) makes one")
    if replace_activations not in (None, "relu"):
        raise ConversionError(f"replace_activations: must be 'relu' or None, got {replace_activations!r}")
    if replace_activations and dataset is None:
        raise DataError("--replace-activations relu tunes the ANN on images: give them with --data")
    start = time.perf_counter()
    keep_freed_memory()
    callbacks.on_step("importing the ANN, and comparing it with the ONNX reference")
    path, imported = imported_ann(path, example, replace_activations=replace_activations is not None)
    ann, notes = imported.ann, list(imported.notes)
    if prod(ann.nodes[-1].shape) == 1:
        raise UnsupportedError(
            f"{path} has one output; a classifier needs one for each class: replace a sigmoid of z by two, [0, z], or "
            "make a network of values: --neuron sigma-delta"
        )
    callbacks.on_imported(ann)
    normalization = Normalization.of(mean, std)
    normalization.check(ann.shape)
    dataset, validation = loaded_data(dataset, ann.shape), loaded_data(validation, ann.shape, "validation")
    if labelled is None:
        labelled = dataset is None or dataset.classes != (UNLABELLED,)
    if dataset is not None:
        notes += notes_on_data(ann, dataset, labelled)
        if epochs != 0 and len(dataset.train) < FEWEST_TO_TUNE:
            notes.append(f"not tuned: needs at least {FEWEST_TO_TUNE} training images, got {len(dataset.train)}")
            epochs = 0
    elif validation is not None:
        raise DataError(f"--validation {validation.name}: needs other images to calibrate on: give --data, too")
    answers, doubt = AnnAnswers(imported.original or ann, normalization), None
    if dataset is None:
        notes.append("no data: calibrated on noise, neither tuned nor scored; --data makes the network more accurate")
    elif not labelled:
        dataset = answers.as_labels(dataset)
        notes.append("no labels: tuning and all accuracies use the ANN's answers as labels")
    elif doubt := doubt_about_data(answers, dataset, seed):
        callbacks.on_doubt(doubt)
        notes.append(doubt)
    learning, judging, judged_by = divided(answers, dataset, validation, labelled, seed)
    judge, replacement = Judge(judging, answers), None
    if imported.original is not None and dataset is not None:
        before = AnnAnswers(ann, normalization)
        ann = tune_ann(before, answers, learning, judge, seed=seed, on_step=callbacks.on_step)
        file, untuned, tuned = (
            float(each.right(dataset.test).double().mean())
            for each in (answers, before, AnnAnswers(ann, normalization))
        )
        replacement = Replacement(imported.replaced, file, untuned, tuned, kept=ann is not before.ann)
        imported = replace(imported, ann=ann)
    candidate = best_candidate(
        ann,
        drawn(learning, images_wanted(ann), seed).float() / 255,
        judge,
        name=path.stem,
        time_steps=time_steps,
        forms=forms,
        normalization=normalization,
        balanced=dataset is not None,
        on_form=callbacks.on_step,
    )
    epochs = usual_epochs(candidate.verdict.agreement, time_steps) if epochs is None else epochs
    notes += notes_on_candidate(candidate, ann.normalization.after(normalization))
    callbacks.on_calibrated(candidate.model)
    network, done = candidate.model.build(), _Learnt()
    if dataset is not None:
        best, used = BestSoFar(network, judge, candidate.verdict), replace(dataset, train=learning)
        done = _learn(best, answers, used, time_steps, epochs, seed, callbacks)
        if done.ann is not None and done.score is not None:
            advice = f"more time steps than {time_steps} (--time-steps)"
            if not epochs or done.recipe is not None:  # otherwise tuning was tried in vain
                advice += f" or {f'more epochs of tuning than {epochs}' if epochs else 'tuning'} (--epochs)"
            accuracies, doubted = (done.ann, done.score.accuracy), doubt is not None
            notes += notes_on_accuracy(*accuracies, dataset.test, advice=advice, doubted=doubted)
        if done.ann is not None and validation is None:
            notes += notes_on_judge(judge, done.ann, len(dataset.test))
        notes += [note] if (note := dataset.limit_note) else []
    notes += done.notes
    facts = {"source": path.name, "epochs": epochs, "seed": seed, **normalization.as_json()}
    facts |= {} if replace_activations is None else {"replace_activations": replace_activations}
    facts |= {} if validation is None else {"validation": validation.name}
    for option, choices in (("input", forms.encodings), ("max_pool", forms.max_pooling), ("reset", forms.resets)):
        if len(choices) == 1:  # of several, converting again chooses again
            facts[option] = str(choices[0])
    return OnnxConversion(
        model=replace(_as_model(network, facts, dataset, labelled, done.recipe), notes=tuple(notes)),
        imported=imported,
        candidate=candidate,
        dataset=dataset,
        normalization=normalization,
        ann=done.ann,
        converted=done.converted,
        tuned=done.tuned,
        written="converted" if done.recipe is None else "tuned",
        judged_by=judged_by,
        score=done.score,
        notes=tuple(notes),
        doubt=doubt,
        seconds=time.perf_counter() - start,
        replacement=replacement,
    )


def imported_ann(
    model: object, example: Tensor | None, *, replace_activations: bool = False
) -> tuple[Path, OnnxImport]:
    """Import a file, or a model in memory, which is called model.onnx."""
    if (example is None) == isinstance(model, torch.nn.Module):
        raise ConversionError(
            "import_onnx takes a torch module and example images together: example=torch.zeros(1, 3, 32, 32)"
            if example is None
            else "example is only for a torch module: leave it out"
        )
    if isinstance(model, ModelProto | torch.nn.Module):
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            if isinstance(model, ModelProto):
                path.write_bytes(model.SerializeToString())
            else:
                _export(model, example, path)
            return path, import_ann(path, replace_activations=replace_activations)
    wanted = "import_onnx takes the path of an ONNX file, an onnx.ModelProto, or a torch module"
    path = check_path(model, wanted, advice="torch.onnx.export writes a module as a file", error=ConversionError)
    return path, import_ann(path, replace_activations=replace_activations)


def _export(module: torch.nn.Module, example: Tensor | None, path: Path) -> None:
    """Write a module as an ONNX file, as it computes after training."""
    training = {part: part.training for part in module.modules()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch advises its other exporter, which needs one more package
            torch.onnx.export(module.eval(), (example,), str(path), dynamo=False, verbose=False)
    except Exception as error:  # torch passes on any error of the module
        raise ConversionError(
            f"torch cannot export {type(module).__name__} for images {list(getattr(example, 'shape', []))}: "
            f"{str(error).strip()[:300]}: write it as ONNX in another way, and give the path of the file"
        ) from None
    finally:
        for part, was in training.items():
            part.training = was


def loaded_data(dataset: object, shape: Shape, argument: str = "dataset") -> Dataset | None:
    """Return the dataset that `import_onnx` was given as `argument`, for an ANN that takes images of `shape`."""
    if isinstance(dataset, str | Path):
        return DataPlaces().load(str(dataset), shape, labelled=False)
    if is_torch_data(dataset):
        return dataset_of(dataset, shape)
    if callable(dataset):
        dataset = dataset(shape)
    if dataset is None:
        return None
    kinds = "a Dataset, also of torch, a DataLoader, the name of one, or the path of an .npz file or a folder"
    wanted = f"{argument} must be {kinds}"
    check_type(dataset, Dataset, wanted, error=DataError)
    assert isinstance(dataset, Dataset)
    return dataset


def divided(
    answers: AnnAnswers, dataset: Dataset | None, validation: Dataset | None, labelled: bool, seed: int
) -> tuple[Split, Split, str]:
    """Return the images to learn from, those that judge, and words for the latter.

    Without data both are noise, with the ANN's answers as labels. Raises `DataError` for unfit images of `validation`.
    """
    if dataset is None:
        noise = _noise(answers.ann.shape, images_wanted(answers.ann) + MOST_JUDGED, seed)
        train, what = replace(noise, labels=answers.classes(noise)), "noise image"
    else:
        train, what = dataset.train, "training image"
        if validation is not None:
            judging = _validation_images(answers, validation, dataset, labelled, seed)
            return train, judging, f"{counted(len(judging), 'image')} of {validation.name}"
    if len(train) < FEWEST_TO_TUNE:
        return train, train, "the only training image"
    n = min(MOST_JUDGED, max(1, len(train) // JUDGED_PART))
    learning, judging = train_validation_split(train, n_validation=n, seed=seed)
    return learning, judging, f"{counted(n, what)} that no step learns from"


def _validation_images(answers: AnnAnswers, validation: Dataset, dataset: Dataset, labelled: bool, seed: int) -> Split:
    """Return the images for validation: at most `MOST_JUDGED`, of the test images if there are such, else of all."""
    if validation.name == dataset.name:
        raise DataError(f"--validation: must have other images than --data, got {dataset.name} for both")
    labelled &= validation.classes != (UNLABELLED,)
    notes_on_data(answers.ann, validation, labelled)  # raises an error for images that do not fit
    if not labelled:
        validation = answers.as_labels(validation)
    elif validation.has_names and dataset.has_names and validation.classes != dataset.classes:
        raise DataError(
            f"{validation.name} has the classes {', '.join(validation.classes)}, and {dataset.name} has "
            f"{', '.join(dataset.classes)}: name all classes of the ANN in its order, as in --classes a,b,c"
        )
    parts = (validation.train, validation.test) if validation.is_drawn else (validation.test,)
    order = torch.randperm(sum(map(len, parts)), generator=torch.Generator().manual_seed(seed))[:MOST_JUDGED]
    images, labels = (torch.cat(arrays) for arrays in zip(*(part[:] for part in parts), strict=True))
    return Split(images[order], labels[order])


@dataclass(frozen=True)
class _Learnt:
    """Result of `_learn`: fields of `OnnxConversion`, and the recipe of the tuning if it was kept."""

    ann: float | None = None
    converted: dict[int, float | None] = field(default_factory=dict)
    tuned: dict[int, float | None] = field(default_factory=dict)
    score: Evaluation | None = None
    recipe: TrainingSpec | None = None
    notes: tuple[str, ...] = ()


def _learn(
    best: BestSoFar,
    answers: AnnAnswers,
    dataset: Dataset,
    time_steps: int,
    epochs: int,
    seed: int,
    callbacks: ImportCallbacks,
) -> _Learnt:
    """Fit the readout, tune, and score the network before and after; each step is kept only if it is better."""
    network, test = best.network, dataset.test
    notes, tuning = list[str](), None
    steps = sorted({time_steps, max(1, time_steps // 2), max(1, time_steps // 4)}, reverse=True)
    callbacks.on_step("fitting the last layer to the ANN's outputs")
    some = drawn(dataset.train, READOUT_STEPS // neuron_steps(network.spec), seed)
    if refit_readout(network, some, answers) and best.keep():
        notes.append("the weights of the last layer were fitted once more, so that its outputs are close to the ANN's")
    best.restore()
    calibrate_logits(network, drawn(dataset.train, LOGIT_IMAGES, seed), answers)
    callbacks.on_step(f"scoring on {len(test):,} test images")
    converted, score = _scored(network, test, steps)
    tuned = dict[int, float | None]()
    if epochs:
        n_images, seconds = epoch_size(network.spec, len(dataset.train))
        estimate = f", about {seconds:.0f} s each" if seconds >= LEAST_ESTIMATE_S else ""
        callbacks.on_step(f"tuning: {counted(epochs, 'epoch')} of {counted(n_images, 'image')}{estimate}")

        def on_epoch(report: EpochReport) -> None:
            callbacks.on_epoch(report)
            if (left := report.seconds * (epochs - 1 - report.epoch)) >= LEAST_ESTIMATE_S:
                callbacks.on_step(f"tuning: about {left:.0f} s left")

        tuning = tune(best, dataset.train, answers, epochs, seed=seed, on_epoch=on_epoch)
    if tuning is not None:
        if tuning.part < 1:
            notes.append(f"{tuning.part:.0%} of the change by tuning was kept: this is best on the images that judge")
        calibrate_logits(network, drawn(dataset.train, LOGIT_IMAGES, seed), answers)
        callbacks.on_step(f"scoring on {len(test):,} test images")
        tuned, score = _scored(network, test, steps)
    elif epochs:
        notes.append(
            "tuning was undone: the network was not clearly better on the images that judge; --epochs 0 gives the same "
            "network in less time"
        )
        tuned = converted
    if score is None:
        score, overflow = evaluate_exactly(network, test)
        notes.append(f"{overflow} (use fewer --time-steps, or --input spike)")
    return _Learnt(
        ann=float(answers.right(test).double().mean()),
        converted=converted,
        tuned=tuned,
        score=score,
        recipe=None if tuning is None else tuning.recipe.model_copy(update={"data": dataset.name}),
        notes=tuple(notes),
    )


def _scored(network: Network, split: Split, steps: Sequence[int]) -> tuple[dict[int, float | None], Evaluation | None]:
    """Return the accuracy for each T, and the evaluation at the first, the network's own, by the integer engine.

    None stands for a run in which a state leaves 24 bits.
    """
    exact = IntegerNetwork(network)
    try:
        score = evaluate(exact, split, also_after=steps[1:])
    except StateOverflowError:
        shorter = accuracy_by_steps(exact, split, steps[1:])
        return {t: shorter.get(t) for t in steps}, None
    return {t: score.by_steps[t] for t in steps}, score


def _as_model(
    network: Network, facts: dict[str, Any], dataset: Dataset | None, labelled: bool, recipe: TrainingSpec | None
) -> Model:
    """Return the network with a card, whose `conversion` is `facts`, and with the recipe of its tuning."""
    card: dict[str, Any] = {"conversion": facts}
    if dataset is not None:
        facts["data"] = dataset.name
        if labelled and len(dataset.classes) == network.spec.n_classes:
            card["classes"] = list(dataset.classes)
        card["image_shape"] = list(dataset.test.images.shape[1:])
    model = Model.of(network, card)
    spec = model.spec.model_copy(update={"training": recipe})
    return replace(model, spec=spec.with_log_mel(None if dataset is None else dataset.log_mel))


def drawn(split: Split, n: int, seed: int) -> Tensor:
    """Draw `n` images, or all if there are fewer; `[N, ...]`, uint8."""
    return split.images[torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:n]]


def _noise(shape: Shape, n: int, seed: int) -> Split:
    """Return `n` images of blurred noise for an ANN that takes images of `shape`, without labels."""
    noise = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))
    if noise.ndim == 4:
        blurred = F.avg_pool2d(noise, 3, 1, 1)
        low, high = blurred.amin((1, 2, 3), keepdim=True), blurred.amax((1, 2, 3), keepdim=True)
        noise = (blurred - low) / (high - low).clamp_min(1e-6)
    images = (noise * 255).round().to(torch.uint8)
    return Split(images.reshape(n, *[1] * (4 - images.ndim), *shape), torch.zeros(n, dtype=torch.int64))
