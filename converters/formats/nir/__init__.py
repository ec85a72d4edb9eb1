"""NIR, the Neuromorphic Intermediate Representation: graphs read and written, losslessly where they are our own."""
