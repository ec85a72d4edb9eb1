// Gradients of weights that multiply spikes, of the currents of input neurons, and of convolutions' inputs.
#include <algorithm>
#include <vector>

#include "library.h"
#include "threads.h"
#include "vectors.h"

namespace snn {
namespace {

constexpr int ROWS_OF_TABLE = 4, ENTRIES = 1 << ROWS_OF_TABLE, MOST_TABLES = WORD_STEPS / ROWS_OF_TABLE;
constexpr int FEW_TRAINS = 12;  // for up to this many trains, adding step by step is faster than making tables

// The trains of one image that have spikes, pixel after pixel.
struct Trains {
    std::vector<int32_t> starts;  // index of each pixel's first train, [pixels + 1]
    std::vector<int32_t> channels;
    std::vector<uint32_t> words;

    void take(const uint32_t* given, int64_t pixels, int64_t n_channels) {
        starts.resize(pixels + 1);
        channels.resize(pixels * n_channels + 1);
        words.resize(pixels * n_channels + 1);
        int32_t n = 0;
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
            starts[pixel] = n;
            for (int64_t c = 0; c < n_channels; ++c) {
                const uint32_t word = given[pixel * n_channels + c];
                channels[n] = static_cast<int32_t>(c);
                words[n] = word;
                n += word != 0;
            }
        }
        starts[pixels] = n;
    }
};

// For every four steps of a word, the sums of all 16 subsets of their rows.
struct Tables {
    floats entries[MOST_TABLES][ENTRIES];

    void make(const floats* rows, int n_tables) {
        for (int k = 0; k < n_tables; ++k) {
            entries[k][0] = floats{};
            for (int row = 0; row < ROWS_OF_TABLE; ++row)
                for (int entry = 0; entry < 1 << row; ++entry)
                    entries[k][entry | 1 << row] = entries[k][entry] + rows[k * ROWS_OF_TABLE + row];
        }
    }

    template <int N>
    floats sum_of(uint32_t word) const {
        constexpr int ENTRY = 6;  // log2 of an entry's bytes: one shift turns bits of the word into an address
        static_assert(sizeof(floats) == 1 << ENTRY);
        floats sums[N];
#pragma GCC unroll 8
        for (int k = 0; k < N; ++k) {
            const int shift = ROWS_OF_TABLE * k - ENTRY;
            const uint32_t bytes = (shift < 0 ? word << -shift : word >> shift) & ((ENTRIES - 1) << ENTRY);
            sums[k] = load<floats>(reinterpret_cast<const char*>(entries[k]) + bytes);
        }
        for (int n = N; n > 1; n /= 2)
            for (int k = 0; k < n / 2; ++k) sums[k] = sums[k] + sums[n - 1 - k];
        return sums[0];
    }
};

template <int N>
void add_sums(const Tables& tables, const Trains& trains, int32_t begin, int32_t end, float* totals) {
    for (int32_t i = begin; i < end; ++i) {
        float* to = totals + trains.channels[i] * int64_t(LANES);
        store(to, load<floats>(to) + tables.sum_of<N>(trains.words[i]));
    }
}

void add_steps(const floats* rows, const Trains& trains, int32_t begin, int32_t end, float* totals) {
    for (int32_t i = begin; i < end; ++i) {
        float* to = totals + trains.channels[i] * int64_t(LANES);
        floats total = load<floats>(to);
        for (uint32_t word = trains.words[i]; word; word &= word - 1) total += rows[__builtin_ctz(word)];
        store(to, total);
    }
}

// Loads the gradients of 16 outputs at one place for the steps of a word, then zeros.
template <typename Gradient>
void take_rows(const Gradient* grad, int64_t apart, int64_t steps, int some, floats* rows) {
    for (int64_t t = 0; t < steps; ++t) rows[t] = load_floats(grad + t * apart, some);
    for (int64_t t = steps; t < WORD_STEPS; ++t) rows[t] = floats{};
}

template <typename Gradient>
void add_trains(const WeightGradient& work, const Trains& trains, int64_t image, int64_t first_step, int64_t steps,
               int64_t output, float* totals) {
    const int64_t n = work.places * work.outputs;
    const int some = static_cast<int>(std::min<int64_t>(LANES, work.outputs - output));
    const auto* grad = static_cast<const Gradient*>(work.grad) + (image * work.steps + first_step) * n + output;
    floats rows[WORD_STEPS];
    Tables tables;
    for (int64_t place = 0; place < work.places; ++place) {
        const int32_t* sources = work.sources + place * work.taps;
        int32_t arriving = 0;
        for (int64_t tap = 0; tap < work.taps; ++tap)
            if (sources[tap] >= 0) arriving += trains.starts[sources[tap] + 1] - trains.starts[sources[tap]];
        if (arriving == 0) continue;
        take_rows(grad + place * work.outputs, n, steps, some, rows);
        auto add = steps > 16 ? add_sums<8> : steps > 8 ? add_sums<4> : steps > 4 ? add_sums<2> : add_sums<1>;
        if (arriving > FEW_TRAINS) tables.make(rows, steps > 16 ? 8 : steps > 8 ? 4 : steps > 4 ? 2 : 1);
        for (int64_t tap = 0; tap < work.taps; ++tap) {
            if (sources[tap] < 0) continue;
            const int32_t begin = trains.starts[sources[tap]], end = trains.starts[sources[tap] + 1];
            float* of_tap = totals + tap * work.channels * LANES;
            if (arriving > FEW_TRAINS)
                add(tables, trains, begin, end, of_tap);
            else
                add_steps(rows, trains, begin, end, of_tap);
        }
    }
}

// Adds totals [inputs, 16] to `some` rows of a gradient [outputs, inputs].
void write_rows(const float* totals, int64_t inputs, int some, float* out) {
    for (int j = 0; j < some; ++j)
        for (int64_t i = 0; i < inputs; ++i) out[j * inputs + i] += totals[i * LANES + j];
}

}  // namespace
}  // namespace snn

using namespace snn;

int64_t snn_weight_gradient(const WeightGradient* work, int threads) {
    const int64_t blocks = (work->outputs + LANES - 1) / LANES, inputs = work->taps * work->channels;
    const int64_t parts = work->parts, n = work->pixels * work->channels;
    std::vector<Trains> trains(work->images);
    std::vector<std::vector<float>> scratches(std::max(threads, 1));
    bool done = true;
    for (int64_t first = 0; first < work->steps && done; first += WORD_STEPS) {
        const int64_t steps = std::min<int64_t>(WORD_STEPS, work->steps - first);
        const uint32_t* word = work->trains + first / WORD_STEPS * work->images * n;
        done = for_each(work->images, threads, [&](int64_t image, int) {
            trains[image].take(word + image * n, work->pixels, work->channels);
        });
        done = done && for_each(blocks * parts, threads, [&](int64_t item, int worker) {
            const int64_t output = item % blocks * LANES, part = item / blocks;
            auto& totals = scratches[worker];
            totals.assign(inputs * LANES, 0.0f);
            for (int64_t image = work->images * part / parts; image < work->images * (part + 1) / parts; ++image)
                if (work->in_half)
                    add_trains<bfloat16>(*work, trains[image], image, first, steps, output, totals.data());
                else
                    add_trains<float>(*work, trains[image], image, first, steps, output, totals.data());
            const int some = static_cast<int>(std::min<int64_t>(LANES, work->outputs - output));
            write_rows(totals.data(), inputs, some, work->out + (part * work->outputs + output) * inputs);
        });
    }
    return done ? 0 : OUT_OF_MEMORY;
}

namespace snn {
namespace {

// The values of one image that are not background, pixel after pixel.
struct Foreground {
    std::vector<int32_t> starts;  // index of each pixel's first value, [pixels + 1]
    std::vector<int32_t> channels, currents;
    std::vector<float> values;
    int32_t of_background = -1;  // current of the background; -1 if no value has it

    void take(const SteadyGradient& work, int64_t image) {
        const int64_t n = work.pixels * work.channels;
        const float* values_of_image = work.values + image * n;
        const int32_t* currents_of_image = work.currents + image * n;
        starts.assign(1, 0);
        for (int64_t i = 0; i < n; ++i) {
            if (values_of_image[i] == work.background) {
                of_background = currents_of_image[i];
            } else {
                channels.push_back(static_cast<int32_t>(i % work.channels));
                currents.push_back(currents_of_image[i]);
                values.push_back(values_of_image[i]);
            }
            if ((i + 1) % work.channels == 0) starts.push_back(static_cast<int32_t>(values.size()));
        }
    }
};

// Sums the gradients of 16 outputs over time, each times a current's slope at the step.
inline floats mix(const floats* rows, const float* slopes, int64_t steps) {
    floats even = {}, odd = {};
    int64_t t = 0;
    for (; t + 1 < steps; t += 2) {
        even = mul_add(rows[t], everywhere(slopes[t]), even);
        odd = mul_add(rows[t + 1], everywhere(slopes[t + 1]), odd);
    }
    return t < steps ? mul_add(rows[t], everywhere(slopes[t]), even) + odd : even + odd;
}

// Weights of 16 outputs, [taps, channels, 16], and their sums over the inputs that each place sees.
struct WeightBlock {
    std::vector<float> rows;
    std::vector<floats> wholes;

    WeightBlock(const SteadyGradient& work, int64_t output, int some) : wholes(work.places) {
        const int64_t inputs = work.taps * work.channels;
        rows.resize(inputs * LANES);
        for (int j = 0; j < some; ++j)
            for (int64_t i = 0; i < inputs; ++i) rows[i * LANES + j] = work.weight[(output + j) * inputs + i];
        for (int64_t place = 0; place < work.places; ++place)
            for (int64_t tap = 0; tap < work.taps; ++tap)
                if (work.sources[place * work.taps + tap] >= 0)
                    for (int64_t c = 0; c < work.channels; ++c)
                        wholes[place] += load<floats>(&rows[(tap * work.channels + c) * LANES]);
    }
};

constexpr int64_t LEAST_ITEMS = 8;  // parts of the work, independent of the number of threads, so that sums are too

// State of a block of 16 outputs while it goes through the images.
struct Mixing {
    std::vector<floats> rows, mixed;  // gradients at each step; their `mix` for each current
    std::vector<int64_t> mixed_at;    // place, counted over all images, for which `mixed` was computed
    int64_t place = 0;
    floats by_pixel = {}, by_one = {};

    explicit Mixing(const SteadyGradient& work)
        : rows(work.steps), mixed(work.n_currents), mixed_at(work.n_currents, -1) {}
};

// Adds the contribution of the background for all inputs, then corrects it for inputs that are not background.
template <typename Gradient>
void add_image(const SteadyGradient& work, const Foreground& image, int64_t index, int64_t output,
               const WeightBlock& weight, Mixing& mixing) {
    const int64_t steps = work.steps, n = work.places * work.outputs;
    const int some = static_cast<int>(std::min<int64_t>(LANES, work.outputs - output));
    const auto* grad = static_cast<const Gradient*>(work.grad) + index * steps * n + output;
    for (int64_t place = 0; place < work.places; ++place, ++mixing.place) {
        for (int64_t t = 0; t < steps; ++t)
            mixing.rows[t] = load_floats(grad + t * n + place * work.outputs, some);
        floats common = {};
        if (image.of_background >= 0) common = mix(mixing.rows.data(), work.slopes + image.of_background * steps, steps);
        floats by_one = weight.wholes[place] * common, by_pixel = by_one * work.background;
        for (int64_t tap = 0; tap < work.taps; ++tap) {
            const int32_t source = work.sources[place * work.taps + tap];
            if (source < 0) continue;
            const float* of_tap = &weight.rows[tap * work.channels * LANES];
            for (int32_t i = image.starts[source]; i < image.starts[source + 1]; ++i) {
                const int32_t current = image.currents[i];
                floats& mixed = mixing.mixed[current];
                if (mixing.mixed_at[current] != mixing.place) {
                    mixing.mixed_at[current] = mixing.place;
                    mixed = mix(mixing.rows.data(), work.slopes + current * steps, steps) - common;
                }
                const floats weights = load<floats>(of_tap + image.channels[i] * int64_t(LANES));
                const floats brought = weights * mixed;
                by_one += brought;
                by_pixel = mul_add(brought, everywhere(image.values[i]), by_pixel);
                by_pixel = mul_add(weights * common, everywhere(image.values[i] - work.background), by_pixel);
            }
        }
        mixing.by_one += by_one;
        mixing.by_pixel += by_pixel;
    }
}

}  // namespace
}  // namespace snn

int64_t snn_steady_gradient(const SteadyGradient* work, int threads) {
    const int64_t blocks = (work->outputs + LANES - 1) / LANES;
    const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(work->images, LEAST_ITEMS / blocks));
    std::vector<Foreground> images(work->images);
    bool done = for_each(work->images, threads, [&](int64_t image, int) { images[image].take(*work, image); });
    std::vector<double> sums(2 * blocks * parts);
    done = done && for_each(blocks * parts, threads, [&](int64_t item, int) {
        const int64_t output = item / parts * LANES, part = item % parts;
        const WeightBlock weight(*work, output, static_cast<int>(std::min<int64_t>(LANES, work->outputs - output)));
        Mixing mixing(*work);
        for (int64_t image = work->images * part / parts; image < work->images * (part + 1) / parts; ++image)
            if (work->in_half)
                add_image<bfloat16>(*work, images[image], image, output, weight, mixing);
            else
                add_image<float>(*work, images[image], image, output, weight, mixing);
        sums[2 * item] = sum(mixing.by_pixel);
        sums[2 * item + 1] = sum(mixing.by_one);
    });
    for (size_t i = 0; i < sums.size(); ++i) work->sums[i % 2] += sums[i];
    return done ? 0 : OUT_OF_MEMORY;
}

int64_t snn_fold(const Fold* fold, int threads) {
    const int64_t columns = fold->places * fold->taps * fold->channels, n = fold->pixels * fold->channels;
    const bool done = for_each(fold->images, threads, [=](int64_t image, int) {
        const auto add = [=](const auto* given, auto* out) {
            std::vector<float> total(n);
            for (int64_t at = 0; at < fold->places * fold->taps; ++at) {
                if (fold->sources[at] < 0) continue;
                const auto* from = given + image * columns + at * fold->channels;
                float* to = &total[fold->sources[at] * fold->channels];
                for (int64_t c = 0; c < fold->channels; ++c) to[c] += widen(from[c]);
            }
            for (int64_t i = 0; i < n; i += LANES) {
                const int some = static_cast<int>(std::min<int64_t>(LANES, n - i));
                store_floats(out + image * n + i, load_floats(&total[i], some), some);
            }
        };
        if (fold->in_half)
            add(static_cast<const bfloat16*>(fold->columns), static_cast<bfloat16*>(fold->out));
        else
            add(static_cast<const float*>(fold->columns), static_cast<float*>(fold->out));
    });
    return done ? 0 : OUT_OF_MEMORY;
}
