"""The steps that turn an ANN into a spiking network, from its layers to the tuned result."""
