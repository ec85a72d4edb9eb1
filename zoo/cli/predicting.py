"""Run a model on files, and print its outputs: the work of `predict`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bootstrap_core import IntegerNetwork
from bootstrap_core.data.data_places import DataPlaces
from bootstrap_core.data.frames import FRAME_SUFFIXES, read_frames
from bootstrap_core.inference.overflow import Overflow
from bootstrap_core.tasks import task_of
from bootstrap_core.tasks.recordings import RecordingTask
from converters.cli.console import echo, json_text, print_rows, print_table, refuse_existing, say, warn
from converters.cli.usage import leave_out
from specs.errors import DataError
from specs.words import probability
from zoo.cli.given_model import read_and_say
from zoo.cli.scoring import BEYOND, warn_overflows
from zoo.prediction import animate_prediction, predict_files, read_files


def predict_with(
    source: str,
    images: tuple[Path, ...],
    *,
    invert: bool | None,
    time_steps: int | None,
    overflow: str | None,
    animate: Path | None,
    classes: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Run the command `predict`; the arguments are its options."""
    if animate is not None:
        refuse_existing(animate, force)
    model = read_and_say(source)[0]
    network, names, unreadable = model.build(), classes or model.classes, list[DataError]()
    if what := model.spec.without_classes:
        leave_out(what, ["--classes", "--animate", "--invert"])
        integers = IntegerNetwork(network, overflow=Overflow(overflow or Overflow.REFUSE))
        _predict_recordings(integers, images, time_steps, unreadable, as_json)
    else:
        DataPlaces(classes=classes).check_classes(model.spec.n_classes)
        exact = None if overflow is None else IntegerNetwork(network, overflow=Overflow(overflow))
        predictions = predict_files(
            exact or network,
            images,
            data=model.data,
            shape=model.image_shape,
            invert=invert,
            time_steps=time_steps,
            on_unreadable=unreadable.append,
            on_skipped=lambda note: say(f"note: {note}"),
        )
        overflows = None if exact is None else dict(+exact.overflows)
        if exact is None and (time_steps or 0) > model.spec.time_steps:
            say(f"note: {BEYOND}; --overflow refuse checks that")
        for p in predictions:
            say(f"{p.path}: {p.done}")
            if p.doubt:
                warn(f"{p.path} {p.doubt}: its class means nothing")
        if predictions and as_json:
            rows = [
                {
                    "image": str(p.path),
                    "class": p.label,
                    "name": names[p.label],
                    "scores": p.scores,
                    "blank": p.is_blank,
                    "done": p.done,
                }
                for p in predictions
            ]
            echo(json_text({"predictions": rows, "overflows": overflows}))
        elif predictions:
            cells = [
                [cell for i in p.likeliest(2) for cell in (names[i], probability(p.scores[i]))] for p in predictions
            ]
            header = [model.spec.input.sample, "class", "probability", "next class", "probability"]
            print_table(header, [[str(p.path), *likeliest] for p, likeliest in zip(predictions, cells, strict=True)])
        warn_overflows("", overflows or {})
        if predictions and animate is not None:
            say(str(animate_prediction(exact or network, predictions[0], animate, time_steps=time_steps)))
    if unreadable:
        raise DataError("\n".join(map(str, unreadable)))


def _predict_recordings(
    network: IntegerNetwork,
    paths: Sequence[Path],
    time_steps: int | None,
    unreadable: list[DataError],
    as_json: bool,
) -> None:
    """Print the outputs of a network for each recording in the files; a folder stands for the recordings in it."""
    task = task_of(network.spec)
    assert isinstance(task, RecordingTask)
    files = read_files(
        paths,
        FRAME_SUFFIXES,
        partial(read_frames, spec=network.spec, time_steps=time_steps),
        on_unreadable=unreadable.append,
        on_skipped=lambda note: say(f"note: {note}"),
    )
    rows = [
        {"file": str(path), "recording": i, "time_steps": len(outputs), **task.predicted(outputs)}
        for path, given in files
        for i, outputs in enumerate(task.over_time(network, given.frames).unbind(1))
    ]
    if rows and as_json:
        echo(json_text({"predictions": rows, "overflows": network.overflows}))
    elif rows:
        names = {str(network.spec.input.encoding): "file", "recording": "recording", "steps": "time_steps"}
        print_rows([
            {**{header: str(row[key]) for header, key in names.items()}, **cells}
            for row in rows
            for cells in task.predicted_cells(row)
        ])  # fmt: skip
    warn_overflows("", +network.overflows)
