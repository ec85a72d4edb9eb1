// Weighted input of spikes: exact sums of integers.
#pragma once

#include <cstdint>
#include <vector>

#include "vectors.h"

namespace snn {

enum SynapseKind : int32_t { DENSE = 0, CONVOLUTION = 1, DEPTHWISE = 2 };

// Synapses from one population to another. All maps have their channels last; a flat population is a map of one pixel.
struct Synapse {
    int32_t kind;
    int32_t groups;
    const uint32_t* trains;  // [words, images, height, width, channels]
    // DENSE and CONVOLUTION: [groups, vectors, taps, 16 outputs, 4 inputs]; DEPTHWISE: [kernel places, channels]
    const int8_t* weight;
    const int32_t* taps;  // offset of each four inputs from the corner of the window: [groups, taps], in bytes
    int32_t n_taps;
    int32_t height, width, channels;
    int32_t out_height, out_width, out_channels;
    int32_t kernel[2], stride[2];
    int32_t padding[4];  // top, left, bottom, right
    int32_t dilation[2];

    int64_t n_inputs() const { return int64_t(height) * width * channels; }
};

inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// Spikes of one image for the steps of one word, laid out for a synapse.
class Arriving {
  public:
    explicit Arriving(const Synapse& synapse, int64_t steps);

    void take(const uint32_t* trains, int64_t steps);

    // Adds the weighted input of output row `y` to `z` [steps, out_width, padded(out_channels)], in weight steps.
    void add_row(int64_t y, int64_t steps, int32_t* z);

  private:
    void take_fours(const uint32_t* trains, int64_t steps);
    void take_maps(const uint32_t* trains, int64_t steps);
    void multiply(int64_t first, const int32_t* read, int64_t n_read, const int8_t* weight, int64_t outputs, int64_t to,
                  int32_t* z);
    void add_depthwise(int64_t y, int64_t steps, int32_t* z);
    void place_rows(int64_t steps);

    const Synapse& synapse;
    const uint32_t* of_image = nullptr;
    int64_t line, map;                 // bytes of a row of a padded map, and of the map
    std::vector<uint8_t> spikes;       // DENSE: [inputs / 4, steps, 4]; CONVOLUTION: [steps, map]
    std::vector<int32_t> which;        // index in the weight of each four that is read; DENSE: of those with spikes
    std::vector<int32_t> taps;         // DENSE: offset in `spikes` of each such four
    int64_t n_taps = 0;                // DENSE: number of such fours
    std::vector<int64_t> reads, writes;  // offset in `spikes` and in z, for each step and column
    int64_t rows_for = -1;
};

}  // namespace snn
