"""Commands that make ONNX of other programs' files."""

import shlex
from pathlib import Path

import pytest

from converters.formats.export_advice import ForeignModel, export_advice

FROM_FOLDER = "python -m tf2onnx.convert --saved-model exported --output model.onnx"
COMMANDS = {
    ForeignModel.KERAS: [
        "pip install tensorflow-cpu tf2onnx",
        'python -c "import sys, keras; keras.models.load_model(sys.argv[1], compile=False)'
        """.export('exported')" FILE""",
        FROM_FOLDER,
    ],
    ForeignModel.KERAS_2: [
        "pip install tensorflow-cpu tf_keras tf2onnx",
        'python -c "import sys, tf_keras; tf_keras.models.load_model(sys.argv[1], compile=False)'
        """.export('exported')" FILE""",
        FROM_FOLDER,
    ],
    ForeignModel.SAVED_MODEL: [
        "pip install tensorflow-cpu tf2onnx",
        "python -m tf2onnx.convert --saved-model FILE --output model.onnx",
    ],
    ForeignModel.TFLITE: [
        "pip install tensorflow-cpu tf2onnx",
        "python -m tf2onnx.convert --tflite FILE --output model.onnx",
    ],
    ForeignModel.TORCHSCRIPT: [
        'python -c "import sys, torch; '
        "torch.onnx.export(torch.jit.load(sys.argv[1], map_location='cpu').eval(), (torch.zeros(1, 1, 28, 28),), "
        "'model.onnx', dynamo=False)\" FILE",
    ],
    ForeignModel.TORCH_PROGRAM: [
        "pip install onnxscript",
        'python -c "import sys, torch; '
        "torch.onnx.export(torch.export.load(sys.argv[1]), f='model.onnx', dynamo=True)\" FILE",
    ],
    ForeignModel.MODULE: [
        'python -c "import sys, torch; '
        "torch.onnx.export(torch.load(sys.argv[1], map_location='cpu', weights_only=False).eval(), "
        "(torch.zeros(1, 1, 28, 28),), 'model.onnx', dynamo=False)\" FILE",
    ],
    ForeignModel.MODULE_OF_SCRIPT: [
        'python -c "from SCRIPT import *; import sys, torch; '
        "torch.onnx.export(torch.load(sys.argv[1], map_location='cpu', weights_only=False).eval(), "
        "(torch.zeros(1, 1, 28, 28),), 'model.onnx', dynamo=False)\" FILE",
    ],
}


@pytest.mark.parametrize("model", ForeignModel)
def test_the_commands_are_those_that_were_run(model) -> None:
    lines = export_advice(model, Path("FILE")).splitlines()
    end = lines.index("Then convert the ONNX file:")
    assert lines[1:end] == COMMANDS[model]
    assert lines[end + 1] == "zoo convert model.onnx --data DATA -o model.safetensors"


@pytest.mark.parametrize("model", ForeignModel)
@pytest.mark.parametrize("name", ["it's $(rm x) here", 'a"b`c`', "a{0}"])
def test_a_shell_reads_the_path_as_one_word(model, name) -> None:
    lines = export_advice(model, Path(name)).splitlines()
    commands = lines[1 : lines.index("Then convert the ONNX file:")]
    words = [shlex.split(command) for command in commands]
    assert sum(word == name for command in words for word in command) == 1
    assert [len(command) for command in words] == [len(shlex.split(command)) for command in COMMANDS[model]]
