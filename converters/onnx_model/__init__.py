"""ONNX classifiers read as `converters.ann.Ann`: nodes by what they do, constants folded, everything accounted for."""
