// Layers of neurons: forward and backward passes.
#include "neurons.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "library.h"
#include "synapses.h"
#include "threads.h"

namespace snn {

constexpr int WEIGHT_SHIFT = 7;  // a weight step is 2^7 state units
constexpr int TOO_LARGE = 1 << 30;  // magnitude from which 32 bits could wrap around

namespace {

// Memory of a thread that runs one image.
struct Scratch {
    std::vector<int32_t> z, current, voltage;
    std::vector<uint32_t> held;  // spikes of the last step, for neurons that spike a step later
};

// Weighted input of a row of neurons: [steps, columns, padded(channels)].
struct RowInput {
    const int32_t* z;
    int64_t step_stride;  // 0 if all steps are the same
    int shift;            // left shift that converts to state units
};

// Runs G vectors of 16 neurons for the steps of one word. Two vectors run interleaved, since each step of a neuron
// waits for its last one. The neurons lie from `place` on in the scratch and from `at` on in the outputs. Without ALL,
// the vector has fewer than 16 neurons.
template <bool FORGETS, int G, bool ALL>
void run_lanes(const Neurons& neurons, const Layer& layer, int64_t image, int64_t word, int64_t steps,
               const RowInput& input, int64_t from, int64_t channel, int64_t place, int64_t at, Scratch& scratch,
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
        state[g].voltage = load<ints>(&scratch.voltage[place + g * LANES]);
        if (!FORGETS) state[g].current = load<ints>(&scratch.current[place + g * LANES]);
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
        store(&scratch.voltage[place + g * LANES], state[g].voltage);
        if (!FORGETS) store(&scratch.current[place + g * LANES], state[g].current);
        if (neurons.shift) {
            const ints before = load<ints>(&scratch.held[place + g * LANES]);
            store(&scratch.held[place + g * LANES], (words)train[g] >> static_cast<int>(steps - 1) & 1);
            train[g] = train[g] << 1 | before;
            if (steps < WORD_STEPS) train[g] &= (1 << steps) - 1;
        }
        write(layer.trains + (word * layer.images + image) * n + at + g * LANES, (words)train[g]);
        if (layer.totals) {
            int32_t* sum = layer.totals + image * n + at + g * LANES;
            write(sum, load_some<ints>(sum, some) + total[g]);
        }
    }
}

// Runs the neurons of one row of an image for the steps of one word.
template <bool FORGETS>
void run_row(const Neurons& neurons, const Layer& layer, int64_t image, int64_t word, int64_t y, int64_t steps,
             const RowInput& input, Scratch& scratch, ints& reached) {
    const int64_t channels = layer.channels, width = padded(channels);
    const int64_t row = layer.width * width, place = y * row;
    for (int64_t i = 0; i < row;) {
        const int64_t x = i / width, c = i % width, at = (y * layer.width + x) * channels + c;
        const bool whole = width == channels, two = whole && i + 2 * LANES <= row;
        const auto run = two                               ? run_lanes<FORGETS, 2, true>
                         : whole || c + LANES <= channels ? run_lanes<FORGETS, 1, true>
                                                           : run_lanes<FORGETS, 1, false>;
        run(neurons, layer, image, word, steps, input, i, c, place + i, at, scratch, reached);
        i += two ? 2 * LANES : LANES;
    }
}

Scratch make_scratch(const Neurons& neurons, const Layer& layer) {
    const int64_t n = layer.height * layer.width * padded(layer.channels);
    Scratch scratch;
    scratch.voltage.resize(n);
    if (!neurons.forgets) scratch.current.resize(n);
    if (neurons.shift) scratch.held.resize(n);
    return scratch;
}

void rest(Scratch& scratch) {
    std::fill(scratch.voltage.begin(), scratch.voltage.end(), 0);
    std::fill(scratch.current.begin(), scratch.current.end(), 0);
    std::fill(scratch.held.begin(), scratch.held.end(), 0);
}

int64_t largest(const std::vector<ints>& reached) {
    int64_t all = 0;
    for (const ints& lanes : reached)
        for (int j = 0; j < LANES; ++j) all |= static_cast<uint32_t>(lanes[j]);
    return all;
}

// Runs every row of every word of every image, with a worker and a scratch for each thread.
template <typename MakeWorker>
int64_t run_layer(const Neurons& neurons, const Layer& layer, int threads, const MakeWorker& make_worker) {
    std::vector<ints> reached(std::max(threads, 1));
    std::vector<decltype(make_worker())> workers(std::max(threads, 1));
    std::vector<Scratch> scratches(std::max(threads, 1));
    const bool done = for_each(layer.images, threads, [&](int64_t image, int worker) {
        Scratch& scratch = scratches[worker];
        if (scratch.voltage.empty()) {
            scratch = make_scratch(neurons, layer);
            workers[worker] = make_worker();
        }
        rest(scratch);
        for (int64_t first = 0; first < layer.steps; first += WORD_STEPS) {
            const int64_t steps = std::min<int64_t>(WORD_STEPS, layer.steps - first), word = first / WORD_STEPS;
            workers[worker]->take(image, word, steps);
            for (int64_t y = 0; y < layer.height; ++y)
                workers[worker]->run(scratch, image, word, y, steps, reached[worker]);
        }
    });
    return done ? largest(reached) : OUT_OF_MEMORY;
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

    void run(Scratch& scratch, int64_t image, int64_t word, int64_t y, int64_t steps, ints& reached) {
        add_row(y, steps);
        const auto run_row = neurons.forgets ? snn::run_row<true> : snn::run_row<false>;
        run_row(neurons, layer, image, word, y, steps, {z.data(), layer.width * padded(layer.channels), WEIGHT_SHIFT},
                scratch, reached);
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

    void run(Scratch& scratch, int64_t image, int64_t word, int64_t y, int64_t steps, ints& reached) {
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
        const auto run_row = neurons.forgets ? snn::run_row<true> : snn::run_row<false>;
        run_row(neurons, layer, image, word, y, steps, {z_of_row.data(), constant ? 0 : row_width(), 0}, scratch,
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

// Runs one image of a layer whose spikes also drive it in the next step.
void run_recurrent(const Neurons& neurons, const Layer& layer, int64_t image, const float* z, const int32_t* own,
                   ints& reached) {
    const int64_t n = layer.channels, width = padded(n), first = image * layer.steps;
    std::vector<int32_t> sums(width), current(width), voltage(width);
    std::vector<int64_t> before, now;  // neurons that spiked in the last step, and in this one
    for (int64_t word = 0; word * WORD_STEPS < layer.steps; ++word)
        std::fill_n(layer.trains + (word * layer.images + image) * n, n, 0);
    for (int64_t t = 0; t < layer.steps; ++t, std::swap(before, now), now.clear()) {
        std::fill(sums.begin(), sums.end(), 0);
        for (const int64_t source : before)
            for (int64_t c = 0; c < width; c += LANES)
                store(&sums[c], load<ints>(&sums[c]) + load<ints>(own + source * width + c));
        for (int64_t c = 0; c < n; c += LANES) {
            const int some = static_cast<int>(std::min<int64_t>(LANES, n - c));
            const floats units = load_floats(z + (first + t) * n + c, some) * STATE;
            const ints fits = (units > -float(TOO_LARGE)) & (units < float(TOO_LARGE));
            reached |= ~fits & TOO_LARGE;
            const ints arriving = __builtin_convertvector(fits ? units : floats{}, ints);
            NeuronState state;
            state.current = load<ints>(&current[c]);
            state.voltage = load<ints>(&voltage[c]);
            const ints fired = NeuronLanes(neurons, c).step<false>(arriving + (load<ints>(&sums[c]) << WEIGHT_SHIFT), state);
            reached |= state.reached;
            store(&current[c], state.current);
            store(&voltage[c], state.voltage);
            const int64_t seen = t + (neurons.shift != 0);  // the step at which these spikes leave
            for (int i = 0; i < some; ++i)
                if (fired[i]) {
                    now.push_back(c + i);
                    if (seen < layer.steps)
                        layer.trains[(seen / WORD_STEPS * layer.images + image) * n + c + i] |= 1u << seen % WORD_STEPS;
                }
        }
    }
}

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

int64_t snn_recurrent(const Layer* layer, const Neurons* neurons, const float* z, const int32_t* own, int threads) {
    std::vector<ints> reached(std::max(threads, 1));
    const bool done = for_each(layer->images, threads, [&](int64_t image, int worker) {
        run_recurrent(*neurons, *layer, image, z, own, reached[worker]);
    });
    return done ? largest(reached) : OUT_OF_MEMORY;
}

int64_t snn_weigh(const Layer* layer, const Synapse* synapses, int64_t n_synapses, float unit, float* out, int threads) {
    const Neurons none = {};
    std::vector<std::unique_ptr<Weighing>> workers(std::max(threads, 1));
    const int64_t channels = layer->channels, width = padded(channels), n = layer->height * layer->width * channels;
    const bool done = for_each(layer->images, threads, [&](int64_t image, int worker) {
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
    return done ? 0 : OUT_OF_MEMORY;
}

int64_t snn_neurons_backward(const Backward* back, int threads) {
    const bool done = for_each(back->parts, threads, [&](int64_t part, int) {
        const int64_t width = padded(back->channels);
        float* bias = back->bias ? back->bias + part * width : nullptr;
        float* decays = back->decays ? back->decays + part * 2 * width : nullptr;
        const auto run = back->grad_in_half  ? back->out_in_half ? run_back<bfloat16, bfloat16> : run_back<bfloat16, float>
                         : back->out_in_half ? run_back<float, bfloat16>
                                             : run_back<float, float>;
        for (int64_t image = back->images * part / back->parts; image < back->images * (part + 1) / back->parts; ++image)
            run(*back, image, bias, decays);
    });
    return done ? 0 : OUT_OF_MEMORY;
}
