// Gradients of weights that multiply spikes, of the currents of input neurons, and of convolutions' inputs.
#include <algorithm>
#include <vector>

#include "library.h"
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
    int64_t failed = 0;
    for (int64_t first = 0; first < work->steps && !failed; first += WORD_STEPS) {
        const int64_t steps = std::min<int64_t>(WORD_STEPS, work->steps - first);
        const uint32_t* word = work->trains + first / WORD_STEPS * work->images * n;
        failed = for_each(work->images, threads, [&](int64_t image, int) {
            trains[image].take(word + image * n, work->pixels, work->channels);
        });
        failed = failed ? failed : for_each(blocks * parts, threads, [&](int64_t item, int worker) {
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
    return failed;
}

namespace snn {
namespace {

// The inputs of one image that are not background, as each place sees them.
struct Foreground {
    struct Input {
        int32_t weight;   // index of its row in `WeightBlock`
        int32_t current;  // index among the currents of the place
        float value;
    };
    std::vector<Input> inputs;      // place after place
    std::vector<int32_t> currents;  // different currents of each place, that of the background first
    std::vector<int32_t> input_starts, current_starts;  // [places + 1]
    std::vector<int32_t> index_of;  // index of each current among those of the present place

    void take(const SteadyGradient& work, int64_t image, int32_t of_background) {
        index_of.assign(work.n_currents, -1);
        for (int64_t place = 0; place < work.places; ++place) {
            start_place();
            currents.push_back(of_background);
            for (int64_t tap = 0; tap < work.taps; ++tap)
                if (const int64_t source = work.sources[place * work.taps + tap]; source >= 0)
                    take_pixel(work, (image * work.pixels + source) * work.channels, tap * work.channels);
            for (size_t i = current_starts.back(); i < currents.size(); ++i) index_of[currents[i]] = -1;
        }
        start_place();
    }

  private:
    void start_place() {
        input_starts.push_back(static_cast<int32_t>(inputs.size()));
        current_starts.push_back(static_cast<int32_t>(currents.size()));
    }

    void take_pixel(const SteadyGradient& work, int64_t at, int64_t weight) {
        for (int64_t c = 0; c < work.channels; ++c) {
            if (work.values[at + c] == work.background) continue;
            int32_t& index = index_of[work.currents[at + c]];
            if (index < 0) {
                index = static_cast<int32_t>(currents.size()) - current_starts.back();
                currents.push_back(work.currents[at + c]);
            }
            inputs.push_back({static_cast<int32_t>(weight + c), index, work.values[at + c]});
        }
    }
};

constexpr int MIXED = 4;  // currents that are mixed at once, as each sum waits for its last addition

// For each of n currents, sums the gradients of 16 outputs over time, each times the current's slope at the step.
// Writes up to a multiple of MIXED.
inline void mix(const floats* rows, const float* slopes, int64_t steps, const int32_t* currents, int32_t n, floats* out) {
    for (int32_t first = 0; first < n; first += MIXED) {
        const float* of[MIXED];
        floats sums[MIXED] = {};
        for (int k = 0; k < MIXED; ++k) of[k] = slopes + currents[std::min(first + k, n - 1)] * steps;
        for (int64_t t = 0; t < steps; ++t)
#pragma GCC unroll 8
            for (int k = 0; k < MIXED; ++k) sums[k] = mul_add(rows[t], everywhere(of[k][t]), sums[k]);
        std::copy_n(sums, MIXED, out + first);
    }
}

// Weights of 16 outputs, [taps, channels, 16], and their sums over the inputs that each place sees.
struct WeightBlock {
    std::vector<float> rows;
    std::vector<floats> wholes;

    void take(const SteadyGradient& work, int64_t output) {
        const int64_t inputs = work.taps * work.channels, some = std::min<int64_t>(LANES, work.outputs - output);
        rows.resize(inputs * LANES);
        wholes.assign(work.places, floats{});
        for (int j = 0; j < some; ++j)
            for (int64_t i = 0; i < inputs; ++i) rows[i * LANES + j] = work.weight[(output + j) * inputs + i];
        for (int64_t place = 0; place < work.places; ++place)
            for (int64_t tap = 0; tap < work.taps; ++tap)
                if (work.sources[place * work.taps + tap] >= 0)
                    for (int64_t c = 0; c < work.channels; ++c)
                        wholes[place] += load<floats>(&rows[(tap * work.channels + c) * LANES]);
    }
};

// Images that one item of work takes, and the least number of items, so that sums do not depend on the threads.
constexpr int64_t TOGETHER = 8, LEAST_ITEMS = 8;

// Adds the gradients of an image's currents through 16 outputs to `by_pixel` and `by_one`.
template <typename Gradient>
void add_image(const SteadyGradient& work, const Foreground& seen, int64_t image, int64_t output,
               const WeightBlock& weight, std::vector<floats>& rows, std::vector<floats>& mixed, floats& by_pixel,
               floats& by_one) {
    const int64_t steps = work.steps, n = work.places * work.outputs;
    const int some = static_cast<int>(std::min<int64_t>(LANES, work.outputs - output));
    const auto* grad = static_cast<const Gradient*>(work.grad) + image * steps * n + output;
    for (int64_t place = 0; place < work.places; ++place, grad += work.outputs) {
        for (int64_t t = 0; t < steps; ++t) rows[t] = load_floats(grad + t * n, some);
        const int32_t first = seen.current_starts[place], n_currents = seen.current_starts[place + 1] - first;
        mix(rows.data(), work.slopes, steps, &seen.currents[first], n_currents, mixed.data());
        floats background = weight.wholes[place], of_pixel = {}, of_one = {};
        for (int32_t i = seen.input_starts[place]; i < seen.input_starts[place + 1]; ++i) {
            const Foreground::Input& input = seen.inputs[i];
            const floats weights = load<floats>(&weight.rows[input.weight * int64_t(LANES)]);
            const floats brought = weights * mixed[input.current];
            background -= weights;
            of_one += brought;
            of_pixel = mul_add(brought, everywhere(input.value), of_pixel);
        }
        background *= mixed[0];
        by_one += of_one + background;
        by_pixel += mul_add(background, everywhere(work.background), of_pixel);
    }
}

}  // namespace
}  // namespace snn

int64_t snn_steady_gradient(const SteadyGradient* work, int threads) {
    const int64_t blocks = (work->outputs + LANES - 1) / LANES, parts = (work->images + TOGETHER - 1) / TOGETHER;
    const float* end = work->values + work->images * work->pixels * work->channels;
    const float* found = std::find(work->values, end, work->background);
    const int32_t of_background = found == end ? 0 : work->currents[found - work->values];
    std::vector<WeightBlock> weights(blocks);
    const int64_t shares = std::max<int64_t>(1, std::min(blocks, LEAST_ITEMS / parts));  // of the blocks
    std::vector<double> sums(2 * parts * shares);
    int64_t failed = for_each(blocks, threads, [&](int64_t block, int) { weights[block].take(*work, block * LANES); });
    failed = failed ? failed : for_each(parts * shares, threads, [&](int64_t item, int) {
        const int64_t first = item / shares * TOGETHER, share = item % shares, n = std::min(TOGETHER, work->images - first);
        std::vector<Foreground> images(n);
        for (int64_t i = 0; i < n; ++i) images[i].take(*work, first + i, of_background);
        std::vector<floats> rows(work->steps), mixed(work->n_currents + 1 + MIXED);
        for (int64_t block = blocks * share / shares; block < blocks * (share + 1) / shares; ++block) {
            floats by_pixel = {}, by_one = {};
            for (int64_t i = 0; i < n; ++i)
                (work->in_half ? add_image<bfloat16> : add_image<float>)(
                    *work, images[i], first + i, block * LANES, weights[block], rows, mixed, by_pixel, by_one);
            sums[2 * item] += sum(by_pixel);
            sums[2 * item + 1] += sum(by_one);
        }
    });
    for (size_t i = 0; i < sums.size(); ++i) work->sums[i % 2] += sums[i];
    return failed;
}

int64_t snn_fold(const Fold* fold, int threads) {
    const int64_t columns = fold->places * fold->taps * fold->channels, n = fold->pixels * fold->channels;
    return for_each(fold->images, threads, [=](int64_t image, int) {
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
}
