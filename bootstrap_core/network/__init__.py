"""Networks: their blocks, neurons and synapses, and how a spec is built into one."""
