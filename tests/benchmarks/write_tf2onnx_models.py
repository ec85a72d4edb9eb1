"""Write the ONNX files of `tests/golden/onnx/`: small Keras classifiers exported by tf2onnx.

    python tests/benchmarks/write_tf2onnx_models.py

Needs a separate Python with `pip install tensorflow-cpu tf_keras tf2onnx`. Weights are random and of both signs, also
those of batch normalisation. In `CASE-ROUTE-OPSET.onnx`, ROUTE names the function of tf2onnx:

- `keras2`: `from_keras`, for Keras 2; `nchw` with images channels first, `fixed` with a batch of one.
- `keras3`: `from_function`, for Keras 3.
- `tflite`: `from_tflite`; `int8` from a file with weights and activations in 8 bits.

`CASE.npz` contains images `x`, channels last, and `logits` `[N, classes]`, TensorFlow's output before the Softmax.
"""

import os
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
import tf_keras

FOLDER = Path(__file__).parents[1] / "golden" / "onnx"
N_IMAGES = 6


def mlp(keras, layers):
    """Return a dense network with input normalisation, batch normalisation after ReLU, dropout and ReLU6."""
    return keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Rescaling(1 / 0.3, -0.13 / 0.3),
            layers.Flatten(),
            layers.Dense(24, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(16, use_bias=False),
            layers.BatchNormalization(scale=False),
            layers.ReLU(6.0),
            layers.Dense(5),
            layers.Softmax(),
        ]
    )


def cnn(keras, layers):
    """Return a network with all kinds of padding, max pools, and a flatten of channels-last feature maps."""
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(6, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.ZeroPadding2D(((1, 0), (0, 1))),
            layers.Conv2D(4, 2, activation=tf.nn.leaky_relu),
            layers.MaxPooling2D(2, strides=1, padding="same"),
            layers.Flatten(),
            layers.Dense(10, "relu"),
            layers.Dense(5),
            layers.Softmax(),
        ]
    )


def residual(keras, layers):
    """Return a network with a skip, depthwise and dilated convolutions, an average pool and a global mean."""
    x = entering = keras.Input((12, 12, 3))
    x = kept = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    x = layers.Conv2D(6, 1)(x)
    x = layers.ReLU()(layers.Add()([kept, x]))
    x = layers.AveragePooling2D(3, strides=2, padding="valid")(x)
    x = layers.SeparableConv2D(8, 3, dilation_rate=2, padding="same")(x)
    x = layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_normal")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(5)(x)
    return keras.Model(entering, layers.Activation("log_softmax")(x))


def line(keras, layers):
    """Return a network of 1-D convolutions."""
    return keras.Sequential(
        [
            keras.Input((32, 2)),
            layers.Conv1D(4, 5, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling1D(2),
            layers.Conv1D(6, 3, dilation_rate=2, padding="same", activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Reshape((3, 2)),
            layers.Flatten(),
            layers.Dense(4),
            layers.Softmax(),
        ]
    )


CASES = {"mlp": mlp, "cnn": cnn, "residual": residual, "line": line}
DILATED = ("residual", "line")


def made(make, seed):
    """Return a model in Keras 2, and the same model in Keras 3."""
    tf_keras.utils.set_random_seed(seed)
    old, new = make(tf_keras, tf_keras.layers), make(keras, keras.layers)
    generator = np.random.default_rng(seed)
    for weight in old.weights:
        weight.assign(drawn(weight, generator))
    new.set_weights(old.get_weights())
    return old, new


def drawn(weight, generator):
    """Draw statistics, factors and shifts of batch normalisation, and biases, as training would leave them."""
    match weight.name.rsplit("/", 1)[1].split(":")[0]:
        case "moving_variance":
            return generator.uniform(0.5, 2, weight.shape)
        case "gamma":
            return generator.uniform(-1, 1.5, weight.shape)
        case "moving_mean" | "beta" | "bias":
            return generator.normal(0, 0.3, weight.shape)
    return weight


def routes(name, old, new):
    """Yield for each route its name, the opset, and a function that writes the file."""

    def as_keras2(batch, **options):
        entering = (tf.TensorSpec((batch, *old.input_shape[1:]), tf.float32, name="x"),)
        return lambda **named: tf2onnx.convert.from_keras(old, entering, **options, **named)

    def as_keras3(**named):
        entering = (tf.TensorSpec(new.input_shape, tf.float32, name="x"),)
        tf2onnx.convert.from_function(tf.function(lambda x: new(x, training=False)), entering, **named)

    def as_tflite(**named):
        from_lite(tf.lite.TFLiteConverter.from_keras_model(old), **named)

    def as_int8(**named):
        converter = tf.lite.TFLiteConverter.from_keras_model(old)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        generator = np.random.default_rng(1)
        images = generator.uniform(0, 1, (50, 1, *old.input_shape[1:])).astype(np.float32)
        converter.representative_dataset = lambda: ([image] for image in images)
        from_lite(converter, **named)

    def from_lite(converter, **named):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(converter.convert())
            tf2onnx.convert.from_tflite(str(path), **named)

    for opset in (9, 13, 18):
        yield "keras2", opset, as_keras2(None)
    yield "fixed", 15, as_keras2(1)
    yield "keras3", 13, as_keras3
    if len(old.input_shape) == 4:
        yield "nchw", 11, as_keras2(None, inputs_as_nchw=["x"])
    if name not in DILATED:  # TFLite splits the images of a dilated convolution into a batch of pieces
        yield "tflite", 13, as_tflite
        yield "int8", 13, as_int8


def main():
    FOLDER.mkdir(exist_ok=True)
    print(
        f"tensorflow {tf.__version__}, keras {keras.__version__}, tf_keras {tf_keras.__version__}, "
        f"tf2onnx {tf2onnx.__version__}"
    )
    for seed, (name, make) in enumerate(CASES.items()):
        old, new = made(make, seed)
        images = np.random.default_rng(seed).uniform(0, 1, (N_IMAGES, *old.input_shape[1:])).astype(np.float32)
        logits = tf_keras.Model(old.inputs, old.layers[-1].input)(images, training=False).numpy()
        again = keras.Model(new.inputs, new.layers[-1].input)(images, training=False).numpy()
        assert np.allclose(logits, again, atol=1e-5), f"{name} is not the same in both versions of Keras"
        np.savez(FOLDER / f"{name}.npz", x=images, logits=logits)
        for route, opset, write in routes(name, old, new):
            path = FOLDER / f"{name}-{route}-{opset}.onnx"
            write(opset=opset, output_path=str(path))
            print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
