"""Conversion of an ANN into a spiking network, one file for each step.

`spiking_layers` turns the ANN into layers that can spike; `grid_fit`, `refit`
and `calibrate` choose weights, thresholds and scales; `best_candidate` chooses the form of input and pooling; `readout`
and `tuning` train the result. `onnx_conversion` runs all of them, and `conversion_notes` says what was assumed and went
badly.
"""
