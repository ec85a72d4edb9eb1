"""Import of ONNX classifiers as an `Ann`: constants are folded, and every node of the file is accounted for."""
