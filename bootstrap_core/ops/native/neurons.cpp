// Layers of neurons: forward and backward passes.
#include "neurons.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "library.h"
#include "synapses.h"

namespace snn {

constexpr int WEIGHT_SHIFT = 7;  // a weight step is 2^7 state units
constexpr int TOO_LARGE = 1 << 30;  // magnitude from which 32 bits could wrap around

namespace {

// States of an image's neurons between words; see `Layer`. `held` is kept only where a later step needs it.
struct States {
    int32_t *voltage, *current, *held;
};

// Weighted input of a row of neurons: [steps, columns, padded(channels)].
struct RowInput {
    const int32_t* z;
    int64_t step_stride;  // 0 if all steps are the same
    int shift;            // left shift that converts to state units
};

// Runs G vectors of 16 neurons for the steps of one word. Two vectors run interleaved, since each step of a neuron
// waits for its last one. The neurons lie from `place` on in the states and from `at` on in the outputs. Without ALL,
// the vector has fewer than 16 neurons.
template <bool FORGETS, int G, bool ALL>
void run_lanes(const Neurons& neurons, const Layer& layer, int64_t image, int64_t word, int64_t steps,
               const RowInput& input, int64_t from, int64_t channel, int64_t place, int64_t at, const States& states,
               ints& reached) {
    const int64_t n = layer.height * layer.width * layer.channels;
    const int some = ALL ? LANES : static_cast<int>(layer.channels - channel);
    const auto write = [=](auto* to, auto values) {
        if constexpr (ALL)
            store(to, values);
        else
            store_some(to, values, some);
    };
    NeuronLanes lanes[G];
    NeuronState state[G];
    ints train[G] = {}, total[G] = {};
    for (int g = 0; g < G; ++g) {
        lanes[g] = NeuronLanes(neurons, (channel + g * LANES) % padded(layer.channels));
        state[g].voltage = load<ints>(&states.voltage[place + g * LANES]);
        if (!FORGETS) state[g].current = load<ints>(&states.current[place + g * LANES]);
    }
    const int64_t first = (image * layer.steps + word * WORD_STEPS) * n + at;
    int32_t* voltage = layer.voltage ? layer.voltage + first : nullptr;
    int32_t* current = layer.current ? layer.current + first : nullptr;
    const int32_t* z = input.z + from;
    ints flag = ints{} + 1;
    for (int64_t t = 0; t < steps; ++t, z += input.step_stride, flag <<= 1) {
#pragma GCC unroll 2
        for (int g = 0; g < G; ++g) {
            const ints arriving = load<ints>(z + g * LANES);
            total[g] += arriving;
            train[g] |= lanes[g].template step<FORGETS>(arriving << input.shift, state[g]) & flag;
            if (voltage) write(voltage + t * n + g * LANES, state[g].voltage_before_reset);
            if (current) write(current + t * n + g * LANES, state[g].current);
        }
    }
    for (int g = 0; g < G; ++g) {
        reached |= state[g].reached;
        store(&states.voltage[place + g * LANES], state[g].voltage);
        if (!FORGETS) store(&states.current[place + g * LANES], state[g].current);
        if (neurons.shift) {
            const ints before = load<ints>(&states.held[place + g * LANES]);
            store(&states.held[place + g * LANES], (words)train[g] >> static_cast<int>(steps - 1) & 1);
            train[g] = train[g] << 1 | before;
            if (steps < WORD_STEPS) train[g] &= (1 << steps) - 1;
        }
        write(layer.trains + (word * layer.images + image) * n + at + g * LANES, (words)train[g]);
        if (layer.totals)
            for (int j = 0; j < some; ++j) layer.totals[image * n + at + g * LANES + j] += total[g][j];
    }
}

// Runs the neurons of one image for the steps of one word, where spikes of a step also drive the next one.
void run_recurrent(const Neurons& neurons, const Layer& layer, int64_t image, int64_t word, int64_t steps,
                   const RowInput& input, const States& states, ints& reached) {
    const int64_t n = layer.channels, width = padded(n), first = image * layer.steps + word * WORD_STEPS;
    const int32_t inputs = static_cast<int32_t>(n);
    const Synapse own = {DENSE, 1, nullptr, neurons.own, nullptr, (inputs + 3) / 4, 1, 1, inputs, 1, 1, inputs};
    Arriving spikes(own, 1);
    std::vector<int32_t> sums(width);
    uint32_t* trains = layer.trains + (word * layer.images + image) * n;
    std::fill_n(trains, n, 0);
    for (int64_t t = 0; t < steps; ++t) {
        const int32_t* z = input.z + t * input.step_stride;
        std::fill(sums.begin(), sums.end(), 0);
        spikes.take(reinterpret_cast<const uint32_t*>(states.held), 1);
        spikes.add_row(0, 1, sums.data());
        for (int64_t c = 0; c < n; c += LANES) {
            const int some = static_cast<int>(std::min<int64_t>(LANES, n - c));
            const ints given = load<ints>(z + c), before = load<ints>(&states.held[c]);
            NeuronState state;
            state.current = load<ints>(&states.current[c]);
            state.voltage = load<ints>(&states.voltage[c]);
            const ints drive = (given << input.shift) + (load<ints>(&sums[c]) << WEIGHT_SHIFT);
            const ints fired = NeuronLanes(neurons, c).step<false>(drive, state) & 1;
            reached |= state.reached;
            store(&states.current[c], state.current);
            store(&states.voltage[c], state.voltage);
            store(&states.held[c], fired);
            const words leaving = (words)(neurons.shift ? before : fired) << static_cast<uint32_t>(t);
            store_some(trains + c, load_some<words>(trains + c, some) | leaving, some);
            const int64_t at = (first + t) * n + c;
            if (layer.voltage) store_some(layer.voltage + at, state.voltage_before_reset, some);
            if (layer.current) store_some(layer.current + at, state.current, some);
            if (layer.totals)
                for (int j = 0; j < some; ++j) layer.totals[image * n + c + j] += given[j];
        }
    }
}

// Runs the neurons of one row of an image for the steps of one word.
template <bool FORGETS>
void run_lanes_of_row(const Neurons& neurons, const Layer& layer, int64_t image, int64_t word, int64_t y,
                      int64_t steps,
                      const RowInput& input, const States& states, ints& reached) {
    const int64_t channels = layer.channels, width = padded(channels);
    const int64_t row = layer.width * width, place = y * row;
    for (int64_t i = 0; i < row;) {
        const int64_t x = i / width, c = i % width, at = (y * layer.width + x) * channels + c;
        const bool whole = width == channels, two = whole && i + 2 * LANES <= row;
        const auto run = two                               ? run_lanes<FORGETS, 2, true>
                         : whole || c + LANES <= channels ? run_lanes<FORGETS, 1, true>
                                                           : run_lanes<FORGETS, 1, false>;
        run(neurons, layer, image, word, steps, input, i, c, place + i, at, states, reached);
        i += two ? 2 * LANES : LANES;
    }
}

void run_row(const Neurons& neurons, const Layer& layer, int64_t image, int64_t word, int64_t y, int64_t steps,
             const RowInput& input, const States& states, ints& reached) {
    if (neurons.own) return run_recurrent(neurons, layer, image, word, steps, input, states, reached);
    const auto run = neurons.forgets ? run_lanes_of_row<true> : run_lanes_of_row<false>;
    run(neurons, layer, image, word, y, steps, input, states, reached);
}

int64_t largest(const std::vector<ints>& reached) {
    int64_t all = 0;
    for (const ints& lanes : reached)
        for (int j = 0; j < LANES; ++j) all |= static_cast<uint32_t>(lanes[j]);
    return all;
}

// Runs every row of every word of every image, with a worker and memory for states for each thread.
template <typename MakeWorker>
int64_t run_layer(const Neurons& neurons, const Layer& layer, int threads, const MakeWorker& make_worker) {
    const int64_t n = layer.height * layer.width * padded(layer.channels);
    std::vector<ints> reached(std::max(threads, 1));
    std::vector<decltype(make_worker())> workers(std::max(threads, 1));
    std::vector<std::vector<int32_t>> memory(std::max(threads, 1));
    const int64_t failed = for_each(layer.images, threads, [&](int64_t image, int worker) {
        if (!workers[worker]) {
            workers[worker] = make_worker();
            if (!layer.after) memory[worker].resize(3 * n);
        }
        int32_t* kept = layer.after ? layer.after + image * 3 * n : memory[worker].data();
        if (layer.before) {
            std::copy_n(layer.before + image * 3 * n, 3 * n, kept);
        } else {
            std::fill_n(kept, n, neurons.initial_voltage);
            std::fill_n(kept + n, 2 * n, 0);
        }
        const States states = {kept, kept + n, kept + 2 * n};
        for (int64_t first = 0; first < layer.steps; first += WORD_STEPS) {
            const int64_t steps = std::min<int64_t>(WORD_STEPS, layer.steps - first), word = first / WORD_STEPS;
            workers[worker]->take(image, word, steps);
            for (int64_t y = 0; y < layer.height; ++y)
                workers[worker]->run(states, image, word, y, steps, reached[worker]);
        }
    });
    return failed ? failed : largest(reached);
}

// Worker that computes the weighted input from all synapses of a layer, row by row.
class Weighing {
  public:
    Weighing(const Neurons& neurons, const Layer& layer, const Synapse* synapses, int64_t n_synapses)
        : neurons(neurons), layer(layer) {
        const int64_t steps = std::min<int64_t>(WORD_STEPS, layer.steps);
        for (int64_t i = 0; i < n_synapses; ++i) arriving.emplace_back(synapses[i], steps), given.push_back(synapses + i);
        z.resize((steps * layer.width + 1) * padded(layer.channels) + 4 * LANES);  // products also write behind the row
    }

    void take(int64_t image, int64_t word, int64_t steps) {
        for (size_t i = 0; i < arriving.size(); ++i)
            arriving[i].take(given[i]->trains + (word * layer.images + image) * given[i]->n_inputs(), steps);
    }

    void add_row(int64_t y, int64_t steps) {
        std::fill(z.begin(), z.end(), 0);
        for (Arriving& each : arriving) each.add_row(y, steps, z.data());
    }

    void run(const States& states, int64_t image, int64_t word, int64_t y, int64_t steps, ints& reached) {
        add_row(y, steps);
        run_row(neurons, layer, image, word, y, steps, {z.data(), layer.width * padded(layer.channels), WEIGHT_SHIFT},
                states, reached);
    }

    std::vector<int32_t> z;

  private:
    const Neurons& neurons;
    const Layer& layer;
    std::vector<Arriving> arriving;
    std::vector<const Synapse*> given;
};

// Worker that takes a given weighted input, [images, steps or 1, neurons], in float units.
class Given {
  public:
    Given(const Neurons& neurons, const Layer& layer, const float* z, bool constant)
        : neurons(neurons), layer(layer), given(z), constant(constant) {
        z_of_row.resize((constant ? 1 : std::min<int64_t>(WORD_STEPS, layer.steps)) * row_width());
    }

    void take(int64_t, int64_t, int64_t) {}

    void run(const States& states, int64_t image, int64_t word, int64_t y, int64_t steps, ints& reached) {
        const int64_t n = layer.height * layer.width * layer.channels, different = constant ? 1 : steps;
        for (int64_t t = 0; t < different; ++t)
            for (int64_t x = 0; x < layer.width; ++x) {
                const int64_t row = constant ? image : image * layer.steps + word * WORD_STEPS + t;
                const float* from = given + row * n + (y * layer.width + x) * layer.channels;
                int32_t* to = &z_of_row[t * row_width() + x * padded(layer.channels)];
                for (int64_t c = 0; c < layer.channels; c += LANES) {
                    const int some = static_cast<int>(std::min<int64_t>(LANES, layer.channels - c));
                    const floats units = load_floats(from + c, some) * STATE;
                    const ints fits = (units > -float(TOO_LARGE)) & (units < float(TOO_LARGE));
                    reached |= ~fits & TOO_LARGE;
                    store(to + c, __builtin_convertvector(fits ? units : floats{}, ints));
                }
            }
        run_row(neurons, layer, image, word, y, steps, {z_of_row.data(), constant ? 0 : row_width(), 0}, states,
                reached);
    }

  private:
    int64_t row_width() const { return layer.width * padded(layer.channels); }

    const Neurons& neurons;
    const Layer& layer;
    const float* given;
    bool constant;
    std::vector<int32_t> z_of_row;
};

// Runs the backward pass of one image's neurons, from the last step to the first.
template <typename In, typename Out>
void run_back(const Backward& back, int64_t image, float* bias, float* decays) {
    const int64_t steps = back.steps, channels = back.channels, n = back.places * channels;
    const int32_t* voltage = back.voltage + image * steps * n;
    const int32_t* current = back.current ? back.current + image * steps * n : nullptr;
    const auto* grad = static_cast<const In*>(back.grad) + image * back.image_stride;
    auto* out = static_cast<Out*>(back.out) + image * (back.constant ? n : steps * n);
    const float threshold = back.threshold / STATE, rate = -1.4426950408889634f / back.tau;
    for (int64_t place = 0; place < back.places; ++place)
        for (int64_t c = 0; c < channels; c += LANES) {
            const int some = static_cast<int>(std::min<int64_t>(LANES, channels - c));
            const int64_t at = place * channels + c;
            const floats keep_u = load_floats(back.keep_current + c), keep_v = load_floats(back.keep_voltage + c);
            floats gu = {}, gv = {}, total = {}, of_bias = {}, of_current_decay = {}, of_voltage_decay = {};
            for (int64_t t = steps - 1; t >= 0; --t) {
                const floats v = __builtin_convertvector(load_some<ints>(voltage + t * n + at, some), floats) / STATE;
                floats apart = v - threshold;
                apart = apart < 0 ? -apart : apart;
                const floats slope = exp2_of_negative(apart * rate) * back.height;
                const int64_t seen = t + back.shift;  // the step at which this spike leaves
                floats arriving = {};
                if (seen < steps) arriving = load_floats(grad + seen * back.step_stride + at, some);
                gv = mul_add(gv, keep_v, slope * arriving);
                gu = mul_add(gu, keep_u, gv);
                if (back.constant)
                    total += gu;
                else
                    store_floats(out + t * n + at, gu, some);
                of_bias += gv;
                if (decays && t > 0) {
                    const floats u = __builtin_convertvector(load_some<ints>(current + (t - 1) * n + at, some), floats);
                    ints before = load_some<ints>(voltage + (t - 1) * n + at, some);
                    const ints fired = before > back.threshold;
                    before = back.subtract ? before - (fired & back.threshold) : before & ~fired;
                    of_current_decay -= gu * u / STATE;
                    of_voltage_decay -= gv * __builtin_convertvector(before, floats) / STATE;
                }
            }
            of_voltage_decay -= gv * (back.initial_voltage / STATE);
            if (back.constant) store_floats(out + at, total, some);
            if (bias) store(bias + c, load<floats>(bias + c) + of_bias);
            if (decays) {
                float *of_u = decays + c, *of_v = decays + padded(channels) + c;
                store(of_u, load<floats>(of_u) + of_current_decay);
                store(of_v, load<floats>(of_v) + of_voltage_decay);
            }
        }
}

}  // namespace
}  // namespace snn

using namespace snn;

int64_t snn_layer(const Layer* layer, const Neurons* neurons, const Synapse* synapses, int64_t n_synapses, int threads) {
    return run_layer(*neurons, *layer, threads,
                     [&] { return std::make_unique<Weighing>(*neurons, *layer, synapses, n_synapses); });
}

int64_t snn_neurons(const Layer* layer, const Neurons* neurons, const float* z, int constant, int threads) {
    return run_layer(*neurons, *layer, threads,
                     [&] { return std::make_unique<Given>(*neurons, *layer, z, constant != 0); });
}

int64_t snn_weigh(const Layer* layer, const Synapse* synapses, int64_t n_synapses, float unit, float* out, int threads) {
    const Neurons none = {};
    std::vector<std::unique_ptr<Weighing>> workers(std::max(threads, 1));
    const int64_t channels = layer->channels, width = padded(channels), n = layer->height * layer->width * channels;
    return for_each(layer->images, threads, [&](int64_t image, int worker) {
        auto& weighing = workers[worker];
        if (!weighing) weighing = std::make_unique<Weighing>(none, *layer, synapses, n_synapses);
        for (int64_t first = 0; first < layer->steps; first += WORD_STEPS) {
            const int64_t steps = std::min<int64_t>(WORD_STEPS, layer->steps - first);
            weighing->take(image, first / WORD_STEPS, steps);
            for (int64_t y = 0; y < layer->height; ++y) {
                weighing->add_row(y, steps);
                for (int64_t t = 0; t < steps; ++t)
                    for (int64_t x = 0; x < layer->width; ++x) {
                        const int32_t* from = &weighing->z[(t * layer->width + x) * width];
                        float* to = out + (image * layer->steps + first + t) * n + (y * layer->width + x) * channels;
                        for (int64_t c = 0; c < channels; ++c) to[c] = from[c] * unit;
                    }
            }
        }
    });
}

int64_t snn_neurons_backward(const Backward* back, int threads) {
    return for_each(back->parts, threads, [&](int64_t part, int) {
        const int64_t width = padded(back->channels);
        float* bias = back->bias ? back->bias + part * width : nullptr;
        float* decays = back->decays ? back->decays + part * 2 * width : nullptr;
        const auto run = back->grad_in_half  ? back->out_in_half ? run_back<bfloat16, bfloat16> : run_back<bfloat16, float>
                         : back->out_in_half ? run_back<float, bfloat16>
                                             : run_back<float, float>;
        for (int64_t image = back->images * part / back->parts; image < back->images * (part + 1) / back->parts; ++image)
            run(*back, image, bias, decays);
    });
}
