"""Reading ONNX classifiers as an `Ann`: nodes by what they do, constants folded, everything accounted for."""
