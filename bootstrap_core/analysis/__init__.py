"""Analysis of networks: scores, synaptic operations, learning statistics, plots and animations."""
