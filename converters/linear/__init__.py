"""Linear maps: dense layers, convolutions and pools, how they fold into each other, and an ANN made of them."""
