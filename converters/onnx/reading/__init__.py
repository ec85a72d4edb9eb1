"""Safe reading of ONNX files: the file, its graph, and its constants."""
