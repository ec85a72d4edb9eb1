// Functions that Python calls, over pointers and sizes. `bootstrap_core/ops/library.py` has the same records.
//
// Arrays are contiguous, images come first, and maps have their channels last. Spikes are held as trains: words of 32
// bits, bit t of word k is the spike of step 32 k + t. Functions return OUT_OF_MEMORY if a thread gets no memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "neurons.h"
#include "synapses.h"
#include "threads.h"

// Output of a layer of n = height * width * channels neurons. All pointers but `trains` may be null.
//
// States are [images, 3, height, width, padded(channels)]: voltage, current, and 1 for neurons that spiked in the last
// step. The voltage is that after the reset. A run of T steps can be cut anywhere: each part begins with the states
// that the last one left.
struct Layer {
    int64_t images, steps, height, width, channels;
    uint32_t* trains;  // [words, images, n]
    int32_t* voltage;  // [images, steps, n], before the reset, in state units
    int32_t* current;  // [images, steps, n]
    int64_t* totals;   // [images, n], weighted input summed over time, in weight steps; added to what is there
    const int32_t* before;  // states at the start; null: no current, and the initial voltage of the neurons
    int32_t* after;         // states at the end, another array than `before`; null: they are lost
};

// Backward pass of a layer's neurons: from the gradient of their spikes to those of their input and constants.
struct Backward {
    int64_t images, parts, steps, places, channels;
    const int32_t *voltage, *current;  // as in `Layer`
    const void* grad;                  // gradient of the spikes, [images, steps, n] by the two strides
    int64_t image_stride, step_stride;
    void* out;                // gradient of the weighted input, [images, steps, n], or [images, n] if it is constant
    float *bias, *decays;     // gradients for each part of the images, [parts, width], [parts, 2, width]; zeros or null
    const float *keep_current, *keep_voltage;  // one for each channel, zeros up to a multiple of 16
    float tau, height;        // of the surrogate gradient
    int32_t threshold, subtract, shift, initial_voltage;
    int32_t constant;  // the weighted input is the same at all steps
    int32_t grad_in_half, out_in_half;  // `grad` and `out` are bfloat16
};

// Gradient of a weight that multiplies spikes: the sum of the output's gradients at the steps where the input spiked.
// Each place of the output sees `taps` pixels; dense synapses have one place, which sees one pixel with all channels.
struct WeightGradient {
    int64_t images, steps, pixels, channels, places, taps, outputs;
    const uint32_t* trains;  // [words, images, pixels, channels]
    const void* grad;        // gradient of the weighted input, [images, steps, places, outputs]
    const int32_t* sources;  // [places, taps], pixel that a place sees at a tap; below 0 for padding
    float* out;              // [parts, outputs, taps, channels], zeros; the caller sums over parts
    int64_t parts;           // number of parts that the images are divided into
    int32_t in_half;         // `grad` is bfloat16
};

// Gradient that reaches the currents of input neurons, the same at all steps, through the next layer's synapses.
struct SteadyGradient {
    int64_t images, steps, pixels, channels, places, taps, outputs, n_currents;
    const int32_t* currents;  // [images, pixels, channels], rows of `slopes`
    const float* values;      // [images, pixels, channels], pixels of the images
    float background;         // value of the background, usually the most frequent one
    const float* slopes;      // [n_currents, steps], derivative of each step's spike with respect to the current
    const float* weight;      // [outputs, taps, channels]
    const int32_t* sources;   // as in `WeightGradient`
    const void* grad;         // gradient of the weighted input, [images, steps, places, outputs]
    double* sums;             // two zeros; adds the sums of (gradient of a current) * value, and of the gradient
    int32_t in_half;          // `grad` is bfloat16
};

// Adds the columns of all places of a convolution to the pixels that they see.
struct Fold {
    int64_t images, pixels, channels, places, taps;
    const void* columns;     // [images, places, taps, channels]
    const int32_t* sources;  // as in `WeightGradient`
    void* out;               // [images, pixels, channels]
    int32_t in_half;         // `columns` and `out` are bfloat16
};

// An input current is trunc((weight * (pixel - mean) / std + bias) * unit), clamped to lowest..highest.
struct InputScaling {
    double mean, std, weight, bias, unit, lowest, highest;
};

// A fitted activation; see `functional/piecewise.py`.
struct Curve {
    const float *z, *a, *slopes;
    int32_t n;  // number of centres
    float steepness, floor;
};

extern "C" {

// Returns the kind of CPU that this library was built for: 0 any of its family, 1 AVX2, 2 AVX-512 with VNNI.
int snn_kind();
// Returns the best kind for this CPU.
int snn_best_kind();
// Sets `open_region` of `threads.h`.
void snn_set_parallel_region(void* gomp_parallel);

// Runs synapses and their neurons. Returns the bitwise or of all magnitudes of states. From 2^30 on, states
// may have wrapped around, and the results are invalid.
int64_t snn_layer(const Layer*, const snn::Neurons*, const snn::Synapse*, int64_t n_synapses, int threads);

// Runs neurons on a weighted input `z` in float units: [images, steps, n], or [images, n] if it is `constant`.
int64_t snn_neurons(const Layer*, const snn::Neurons*, const float* z, int constant, int threads);

// Writes the weighted input, in weight steps, times `unit` to `out` [images, steps, n].
int64_t snn_weigh(const Layer*, const snn::Synapse*, int64_t n_synapses, float unit, float* out, int threads);

int64_t snn_neurons_backward(const Backward*, int threads);
int64_t snn_weight_gradient(const WeightGradient*, int threads);
int64_t snn_steady_gradient(const SteadyGradient*, int threads);

int64_t snn_fold(const Fold*, int threads);

// Adds to the `sums` of `SteadyGradient`, from the gradient of input neurons' spikes, [images, steps, inputs].
int64_t snn_input_gradient(const void* grad, const int32_t* currents, const float* pixels, const float* slopes,
                           int64_t images, int64_t steps, int64_t inputs, int in_half, double* sums, int threads);

// Writes the number of each pixel's current, counted from the lowest current of all pixels. `range` returns the lowest
// current, and the number of currents from the lowest to the highest.
int64_t snn_input_currents(const float* pixels, int64_t n, const InputScaling*, int32_t* out, int32_t* range,
                           int threads);

// Writes the rates and, unless null, the gradients of an activation at z [n].
int64_t snn_piecewise(const float* z, int64_t n, const Curve*, float* rates, float* gradients, int threads);

// Rounds weights to multiples of `step`, from `lowest` to `highest` steps.
int64_t snn_quantize_weight(const float* weight, int64_t n, float step, float lowest, float highest, float* out,
                            int threads);

// Looks up the columns `places` [n] in each row of a table [rows, width]; `out` is [rows, n].
int64_t snn_look_up(const int32_t* table, int64_t rows, int64_t width, const int32_t* places, int64_t n, int32_t* out,
                    int threads);

// Lays out weights [outputs, row], multiples of 1 / per_unit, as bytes: see `Synapse`. `source` has the index in a row
// of the weight at each place of the layout, -1 for 0.
int64_t snn_pack_weight(const float* weight, int64_t outputs, int64_t row, const int32_t* source, int64_t n_source,
                        float per_unit, int8_t* out, int threads);

// Writes trains [words, images, n] as bfloat16: n rows of [images, steps], `apart` numbers from row to row.
int64_t snn_unpack(const uint32_t* trains, int64_t images, int64_t steps, int64_t n, int64_t apart, uint16_t* out,
                   int threads);

// Counts the spikes of trains [words, n] over time; `out` is [n].
int64_t snn_count(const uint32_t* trains, int64_t words, int64_t n, float* out, int threads);
}
