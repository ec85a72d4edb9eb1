// What Python calls: plain functions over pointers and sizes. `bootstrap_core/ops/library.py` has the same records.
//
// Arrays are contiguous, images come first, and maps have their channels last. Functions return OUT_OF_MEMORY if a
// thread could not get memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "neurons.h"
#include "synapses.h"

constexpr int64_t OUT_OF_MEMORY = -1;

// What a layer gives. Pointers may be null, but for `trains`. n = height * width * channels neurons.
struct Layer {
    int64_t images, steps, height, width, channels;
    uint32_t* trains;  // [words, images, n]
    int32_t* voltage;  // [images, steps, n], before the reset, in state units
    int32_t* current;  // [images, steps, n]
    int32_t* totals;   // [images, n]: added up over time, what synapses weigh in steps of a weight
};

// Gradients of a layer's neurons, from those of their spikes.
struct Backward {
    int64_t images, parts, steps, places, channels;
    const int32_t *voltage, *current;  // as of `Layer`
    const void* grad;                  // of the spikes, [images, steps, n] by the two strides
    int64_t image_stride, step_stride;
    void* out;                // of the weighted input, [images, steps, n], or [images, n] if it is constant
    float *bias, *decays;     // of each part of the images, [parts, width] and [parts, 2, width], zeros; or null
    const float *keep_current, *keep_voltage;  // of each channel, zeros up to a multiple of 16
    float tau, height;        // of the surrogate gradient
    int32_t threshold, subtract, shift;
    int32_t constant;  // one weighted input for all steps
    int32_t grad_in_half, out_in_half;  // bfloat16
};

// The gradient of a weight behind spikes: for each step in which an input spiked, the gradient of the output.
// Places of the output see `taps` pixels each; dense synapses have one place that sees one pixel of all channels.
struct WeightGradient {
    int64_t images, steps, pixels, channels, places, taps, outputs;
    const uint32_t* trains;  // [words, images, pixels, channels]
    const void* grad;        // of the weighted input, [images, steps, places, outputs]
    const int32_t* sources;  // [places, taps], pixels; below 0 for padding
    float* out;              // [parts, outputs, taps, channels], zeros, to be added up
    int64_t parts;           // of the images
    int32_t in_half;         // `grad` is bfloat16
};

// What reaches the current of input neurons, the same for all steps, through the synapses behind them.
struct SteadyGradient {
    int64_t images, steps, pixels, channels, places, taps, outputs, n_currents;
    const int32_t* currents;  // [images, pixels, channels], rows of `slopes`
    const float* values;      // [images, pixels, channels], of the images
    float background;         // the value that most are
    const float* slopes;      // [n_currents, steps]: what the gradient of a spike is worth to the current
    const float* weight;      // [outputs, taps, channels]
    const int32_t* sources;   // as of `WeightGradient`
    const void* grad;         // of the weighted input, [images, steps, places, outputs]
    double* sums;             // of (gradient of a current) * value, and of the gradient; zeros
    int32_t in_half;          // `grad` is bfloat16
};

// Adds up what every place of a convolution has for the pixels that it sees.
struct Fold {
    int64_t images, pixels, channels, places, taps;
    const void* columns;     // [images, places, taps, channels]
    const int32_t* sources;  // as of `WeightGradient`
    void* out;               // [images, pixels, channels]
    int32_t in_half;         // both are bfloat16
};

// An input current is trunc((weight * (pixel - mean) / std + bias) * unit), kept within lowest to highest.
struct InputScaling {
    double mean, std, weight, bias, unit, lowest, highest;
};

// A fitted activation; see `functional/piecewise.py`.
struct Curve {
    const float *z, *a, *slopes;
    int32_t n;  // centres
    float steepness, floor;
};

extern "C" {

// The kind of CPU that a library is for: 0 any of its family, 1 AVX2, 2 AVX-512 with VNNI; and the best for this CPU.
int snn_kind();
int snn_best_kind();
void snn_set_parallel_region(void* gomp_parallel);

// Runs synapses and their neurons from rest. Returns the magnitudes that states reached, or-ed; less than 2^30, or the
// results are worthless.
int64_t snn_layer(const Layer*, const snn::Neurons*, const snn::Synapse*, int64_t n_synapses, int threads);

// Runs neurons on a weighted input `z` [images, steps, n], float units, or `constant` [images, n].
int64_t snn_neurons(const Layer*, const snn::Neurons*, const float* z, int constant, int threads);

// Writes `unit` times what synapses weigh to `out` [images, steps, n].
int64_t snn_weigh(const Layer*, const snn::Synapse*, int64_t n_synapses, float unit, float* out, int threads);

int64_t snn_neurons_backward(const Backward*, int threads);
int64_t snn_weight_gradient(const WeightGradient*, int threads);
int64_t snn_steady_gradient(const SteadyGradient*, int threads);

int64_t snn_fold(const Fold*, int threads);

// Sums as of `SteadyGradient`, from the gradient of input neurons' spikes [images, steps, inputs].
int64_t snn_input_gradient(const void* grad, const int32_t* currents, const float* pixels, const float* slopes,
                           int64_t images, int64_t steps, int64_t inputs, int in_half, double* sums, int threads);

// Numbers currents from the lowest of all pixels on. `range` is the lowest current, and how many there are up to the
// highest.
int64_t snn_input_currents(const float* pixels, int64_t n, const InputScaling*, int32_t* out, int32_t* range,
                           int threads);

// Rates and, unless null, gradients of an activation at z [n].
int64_t snn_piecewise(const float* z, int64_t n, const Curve*, float* rates, float* gradients, int threads);

// Rounds weights to multiples of a step, `lowest` to `highest` times it.
int64_t snn_quantize_weight(const float* weight, int64_t n, float step, float lowest, float highest, float* out,
                            int threads);

// Takes from each row of a table [rows, width] the numbers at `places` [n]: [rows, n].
int64_t snn_look_up(const int32_t* table, int64_t rows, int64_t width, const int32_t* places, int64_t n, int32_t* out,
                    int threads);

// Lays out weights [outputs, row], multiples of 1 / per_unit, for products of bytes: see `Synapse`. `source` names the
// number of a row that comes at each place, -1 for 0.
int64_t snn_pack_weight(const float* weight, int64_t outputs, int64_t row, const int32_t* source, int64_t n_source,
                        float per_unit, int8_t* out, int threads);

// Writes trains [words, images, n] as bfloat16, n rows of [images, steps], so many numbers apart.
int64_t snn_unpack(const uint32_t* trains, int64_t images, int64_t steps, int64_t n, int64_t apart, uint16_t* out,
                   int threads);

// Spikes of trains [words, n] over time, [n].
int64_t snn_count(const uint32_t* trains, int64_t words, int64_t n, float* out, int threads);
}
