"""Reading ONNX files safely: the file, its graph, and the constants in it."""
