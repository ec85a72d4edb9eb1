"""Read and write NIR graphs (Neuromorphic Intermediate Representation); those of snnzoo are read without loss."""
