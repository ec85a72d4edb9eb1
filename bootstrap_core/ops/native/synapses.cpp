#include "synapses.h"

#include <algorithm>

#include "neurons.h"

namespace snn {

constexpr int FOUR = 4, BYTES_OF_TAP = LANES * FOUR;

Arriving::Arriving(const Synapse& synapse, int64_t steps) : synapse(synapse), line(0), map(0) {
    if (synapse.kind == DENSE) {
        const int64_t fours = (synapse.n_inputs() + FOUR - 1) / FOUR;
        spikes.resize(fours * steps * FOUR);
        which.resize(fours);
        taps.resize(fours);
    } else if (synapse.kind == CONVOLUTION) {
        line = int64_t(synapse.padding[1] + synapse.width + synapse.padding[3]) * synapse.channels;
        map = (synapse.padding[0] + synapse.height + synapse.padding[2]) * line;
        spikes.assign(steps * map + FOUR, 0);  // the last four inputs may reach beyond the map, where weights are 0
        for (int32_t k = 0; k < synapse.n_taps; ++k) which.push_back(k);
    }
}

void Arriving::take(const uint32_t* trains, int64_t steps) {
    of_image = trains;
    if (synapse.kind == DENSE) take_fours(trains, steps);
    if (synapse.kind == CONVOLUTION) take_maps(trains, steps);
    if (synapse.kind != DEPTHWISE && rows_for != steps) place_rows(steps);
}

// Packs four neighbouring inputs into one number for each step; leaves out fours without spikes.
void Arriving::take_fours(const uint32_t* trains, int64_t steps) {
    const int64_t inputs = synapse.n_inputs(), fours = (inputs + FOUR - 1) / FOUR;
    words step_of_lane;
    for (int j = 0; j < LANES; ++j) step_of_lane[j] = j;
    int64_t n = 0;
    for (int64_t four = 0; four < fours; ++four) {
        uint32_t of_four[FOUR] = {};
        std::memcpy(of_four, trains + four * FOUR, std::min<int64_t>(FOUR, inputs - four * FOUR) * sizeof(uint32_t));
        if (!(of_four[0] | of_four[1] | of_four[2] | of_four[3])) continue;
        uint8_t* out = spikes.data() + n * steps * FOUR;
        for (int k = 0; steps == 1 && k < FOUR; ++k) out[k] = of_four[k] & 1;
        for (int64_t t = 0; steps > 1 && t < steps; t += LANES) {
            const words at = step_of_lane + static_cast<uint32_t>(t);
            words bytes = ((words{} + of_four[0]) >> at) & 1;
            for (int k = 1; k < FOUR; ++k) bytes |= (((words{} + of_four[k]) >> at) & 1) << (8 * k);
            store_some(reinterpret_cast<uint32_t*>(out) + t, bytes, static_cast<int>(std::min<int64_t>(LANES, steps - t)));
        }
        which[n] = static_cast<int32_t>(four);
        taps[n] = static_cast<int32_t>(n * steps * FOUR);
        ++n;
    }
    n_taps = n;
}

void Arriving::take_maps(const uint32_t* trains, int64_t steps) {
    const int64_t row = int64_t(synapse.width) * synapse.channels;
    for (int64_t y = 0; y < synapse.height; ++y) {
        const uint32_t* of_row = trains + y * row;
        const int64_t at = (y + synapse.padding[0]) * line + int64_t(synapse.padding[1]) * synapse.channels;
        for (int64_t t = 0; t < steps; ++t) {
            uint8_t* out = spikes.data() + t * map + at;
            for (int64_t i = 0; i < row; ++i) out[i] = static_cast<uint8_t>(of_row[i] >> t & 1);
        }
    }
}

// Makes a row of the product for each step and column of outputs. More than one are filled up to a multiple of ROWS:
// the extra rows read from place 0 and write behind the outputs.
void Arriving::place_rows(int64_t steps) {
    const int64_t columns = synapse.out_width, width = padded(synapse.out_channels);
    reads.clear();
    writes.clear();
    for (int64_t t = 0; t < steps; ++t)
        for (int64_t x = 0; x < columns; ++x) {
            reads.push_back(synapse.kind == DENSE ? t * FOUR : t * map + x * synapse.stride[1] * synapse.channels);
            writes.push_back((t * columns + x) * width);
        }
    while (reads.size() > 1 && reads.size() % ROWS) {
        reads.push_back(0);
        writes.push_back(steps * columns * width);
    }
    rows_for = steps;
}

template <int R, int N>
static void add_products(const uint8_t* spikes, const int64_t* reads, const int64_t* writes, const int32_t* taps,
                         const int32_t* which, int64_t n_taps, const int8_t* weight, int64_t apart, int32_t* z) {
    const uint8_t* read[R];
    for (int r = 0; r < R; ++r) read[r] = spikes + reads[r];
    for (int64_t begin = 0; begin < n_taps; begin += MOST_TAPS) {
        const int64_t end = std::min<int64_t>(n_taps, begin + MOST_TAPS);
        ByteSums sums[R][N];
        for (int64_t k = begin; k < end; ++k) {
            const int8_t* of_tap = weight + int64_t(which[k]) * BYTES_OF_TAP;
            const int32_t tap = taps[k];
#pragma GCC unroll 3
            for (int j = 0; j < N; ++j) {
                const ByteSums::Weights weights(of_tap + j * apart);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) sums[r][j].add(load<uint32_t>(read[r] + tap), weights);
            }
        }
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < N; ++j) {
                int32_t* to = z + writes[r] + j * LANES;
                store(to, load<ints>(to) + sums[r][j].total());
            }
    }
}

template <int N>
static auto adder(size_t rows) {
    return rows == 1 ? add_products<1, N> : add_products<ROWS, N>;
}

// Multiplies all rows by the weights of the outputs of one group.
void Arriving::multiply(int64_t first, const int32_t* read, int64_t n_read, const int8_t* weight, int64_t outputs,
                        int64_t to, int32_t* z) {
    const int64_t vectors = padded(outputs) / LANES, apart = int64_t(synapse.n_taps) * BYTES_OF_TAP;
    for (int64_t v = 0; v < vectors; v += COLUMNS) {
        const int64_t n = std::min<int64_t>(COLUMNS, vectors - v);
        const int8_t* of_block = weight + v * apart;
        int32_t* out = z + to + v * LANES;
        for (size_t row = 0; row < reads.size(); row += ROWS) {
            const auto add = n == 1 ? adder<1>(reads.size()) : n == 2 ? adder<2>(reads.size()) : adder<3>(reads.size());
            add(spikes.data() + first, &reads[row], &writes[row], read, which.data(), n_read, of_block, apart, out);
        }
    }
}

// Adds synapses with one input channel for each output channel: pools, and skips to the neuron at the same place.
void Arriving::add_depthwise(int64_t y, int64_t steps, int32_t* z) {
    const int64_t channels = synapse.channels, width = padded(channels);
    for (int64_t a = 0; a < synapse.kernel[0]; ++a) {
        const int64_t row = y * synapse.stride[0] - synapse.padding[0] + a * synapse.dilation[0];
        if (row < 0 || row >= synapse.height) continue;
        for (int64_t x = 0; x < synapse.out_width; ++x)
            for (int64_t b = 0; b < synapse.kernel[1]; ++b) {
                const int64_t column = x * synapse.stride[1] - synapse.padding[1] + b * synapse.dilation[1];
                if (column < 0 || column >= synapse.width) continue;
                const uint32_t* trains = of_image + (row * synapse.width + column) * channels;
                const int8_t* weight = synapse.weight + (a * synapse.kernel[1] + b) * channels;
                for (int64_t c = 0; c < channels; c += LANES) {
                    const int n = static_cast<int>(std::min<int64_t>(LANES, channels - c));
                    ints train = load_some<ints>(trains + c, n), factors = {};
                    for (int j = 0; j < n; ++j) factors[j] = weight[c + j];
                    for (int64_t t = 0; t < steps; ++t) {
                        int32_t* to = z + (t * synapse.out_width + x) * width + c;
                        store(to, load<ints>(to) + (-(train >> static_cast<int>(t) & 1) & factors));
                    }
                }
            }
    }
}

void Arriving::add_row(int64_t y, int64_t steps, int32_t* z) {
    if (synapse.kind == DEPTHWISE) return add_depthwise(y, steps, z);
    if (synapse.kind == DENSE)
        return multiply(0, taps.data(), n_taps, synapse.weight, synapse.out_channels, 0, z);
    const int64_t outputs = synapse.out_channels / synapse.groups;
    const int64_t of_group = padded(outputs) / LANES * synapse.n_taps * BYTES_OF_TAP;
    for (int64_t group = 0; group < synapse.groups; ++group)
        multiply(y * synapse.stride[0] * line, synapse.taps + group * synapse.n_taps, synapse.n_taps,
                 synapse.weight + group * of_group, outputs, group * outputs, z);
}

}  // namespace snn
