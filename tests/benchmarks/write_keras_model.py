"""Write a classifier of keras.applications with random weights as an ONNX file, and print its number of parameters.

    python tests/benchmarks/write_keras_model.py NAME SIDE FILE

Needs a separate Python with `pip install keras tensorflow-cpu tf2onnx`; `check_graphs.py --keras-python` runs it.
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np

BATCH, CLASSES = 16, 10

if __name__ == "__main__":
    name, side, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3), classes=CLASSES)
    for layer in model.layers:  # norms fitted to noise keep activations in range
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.rand(BATCH, side, side, 3).astype("float32"), training=True)
    model.export(path, format="onnx", verbose=False)
    print(model.count_params())
