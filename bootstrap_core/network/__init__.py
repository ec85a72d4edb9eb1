"""Networks: blocks, neurons and synapses, and the function that builds a network from a spec."""
