// Operations on numbers one by one: input currents, fitted activations, rounded and packed weights, spike counts.
#include <algorithm>
#include <cmath>

#include "library.h"
#include "vectors.h"

namespace {

constexpr int64_t PART = 1 << 15;  // numbers that a thread processes at a time

template <typename Body>
int64_t in_parts(int64_t n, int threads, const Body& body) {
    return snn::for_each((n + PART - 1) / PART, threads, [&](int64_t part, int) {
        body(part * PART, std::min(n, (part + 1) * PART));
    });
}

}  // namespace

int64_t snn_input_currents(const float* pixels, int64_t n, const InputScaling* scaling, int32_t* out, int32_t* range,
                           int threads) {
    const InputScaling s = *scaling;
    std::vector<int32_t> lows(threads + 1, INT32_MAX), highs(threads + 1, INT32_MIN);
    const int64_t failed = snn::for_each((n + PART - 1) / PART, threads, [&](int64_t part, int worker) {
        int32_t low = lows[worker], high = highs[worker];
        for (int64_t i = part * PART; i < std::min(n, (part + 1) * PART); ++i) {
            double current = (s.weight * ((static_cast<double>(pixels[i]) - s.mean) / s.std) + s.bias) * s.unit;
            current = current > s.lowest ? current : s.lowest;  // also if it is NaN
            current = current < s.highest ? current : s.highest;
            out[i] = static_cast<int32_t>(current);
            low = std::min(low, out[i]);
            high = std::max(high, out[i]);
        }
        lows[worker] = low;
        highs[worker] = high;
    });
    if (failed) return failed;
    const int32_t low = *std::min_element(lows.begin(), lows.end());
    range[0] = low;
    range[1] = *std::max_element(highs.begin(), highs.end()) + 1 - low;
    return in_parts(n, threads, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) out[i] -= low;
    });
}

int64_t snn_piecewise(const float* z, int64_t n, const Curve* curve, float* rates, float* gradients, int threads) {
    using namespace snn;
    const Curve c = *curve;
    return in_parts(n, threads, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i += LANES) {
            const int some = static_cast<int>(std::min<int64_t>(LANES, end - i));
            const floats x = load_floats(z + i, some);
            floats rate = {}, slope = {};
            for (int k = 0; k < c.n; ++k) {  // each segment overrides those before it
                const bool last = k == c.n - 1;  // constant from the last centre on, also for infinity
                const ints above = x > c.z[k];
                rate = above ? last ? everywhere(c.a[k]) : c.slopes[k] * (x - c.z[k]) + c.a[k] : rate;
                slope = above ? everywhere(last ? 0.0f : c.slopes[k]) : slope;
            }
            store_floats(rates + i, rate, some);
            if (gradients) store_floats(gradients + i, slope * c.steepness + c.floor, some);
        }
    });
}

int64_t snn_quantize_weight(const float* weight, int64_t n, float step, float lowest, float highest, float* out,
                            int threads) {
    const float per_step = 1 / step;
    return in_parts(n, threads, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            float steps = std::nearbyintf(weight[i] * per_step);  // half to even
            steps = steps < lowest ? lowest : steps;
            out[i] = (steps > highest ? highest : steps) * step;
        }
    });
}

int64_t snn_pack_weight(const float* weight, int64_t outputs, int64_t row, const int32_t* source, int64_t n_source,
                        float per_unit, int8_t* out, int threads) {
    using snn::LANES;
    constexpr int FOUR = 4;
    typedef float Floats __attribute__((vector_size(FOUR * 4)));
    typedef int32_t Ints __attribute__((vector_size(FOUR * 4)));
    typedef int8_t Bytes __attribute__((vector_size(FOUR)));
    const int64_t vectors = (outputs + LANES - 1) / LANES;
    return snn::for_each(vectors, threads, [=](int64_t vector, int) {
        int8_t* of_vector = out + vector * n_source * LANES;
        const int n = static_cast<int>(std::min<int64_t>(LANES, outputs - vector * LANES));
        for (int64_t k = 0; k < n_source; k += FOUR) {
            int8_t* four = of_vector + k * LANES;
            std::memset(four, 0, FOUR * LANES);
            bool in_row = source[k] >= 0;
            for (int b = 1; b < FOUR; ++b) in_row &= source[k + b] == source[k] + b;
            if (in_row) {
                for (int j = 0; j < n; ++j) {
                    const auto given = snn::load<Floats>(weight + (vector * LANES + j) * row + source[k]) * per_unit;
                    snn::store(four + j * FOUR, __builtin_convertvector(__builtin_convertvector(given, Ints), Bytes));
                }
                continue;
            }
            for (int b = 0; b < FOUR; ++b)
                for (int j = 0; j < n && source[k + b] >= 0; ++j)
                    four[j * FOUR + b] =
                        static_cast<int8_t>(weight[(vector * LANES + j) * row + source[k + b]] * per_unit);
        }
    });
}

int64_t snn_look_up(const int32_t* table, int64_t rows, int64_t width, const int32_t* places, int64_t n, int32_t* out,
                    int threads) {
    return in_parts(n, threads, [=](int64_t begin, int64_t end) {
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t i = begin; i < end; ++i) out[row * n + i] = table[row * width + places[i]];
    });
}

int64_t snn_count(const uint32_t* trains, int64_t words, int64_t n, float* out, int threads) {
    return in_parts(n, threads, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            int count = 0;
            for (int64_t word = 0; word < words; ++word) count += __builtin_popcount(trains[word * n + i]);
            out[i] = static_cast<float>(count);
        }
    });
}

int64_t snn_unpack(const uint32_t* trains, int64_t images, int64_t steps, int64_t n, int64_t apart, uint16_t* out,
                   int threads) {
    using namespace snn;
    constexpr uint32_t ONE = 0x3F80;  // in bfloat16
    constexpr int64_t TOGETHER = 8;   // images that are written together, so that their steps fill whole cache lines
    words step_of_lane;
    for (int j = 0; j < LANES; ++j) step_of_lane[j] = j;
    return for_each((images + TOGETHER - 1) / TOGETHER, threads, [=](int64_t part, int) {
        for (int64_t i = 0; i < n; ++i)
            for (int64_t image = part * TOGETHER; image < std::min(images, (part + 1) * TOGETHER); ++image)
                for (int64_t t = 0; t < steps; t += LANES) {
                    const uint32_t word = trains[(t / WORD_STEPS * images + image) * n + i];
                    const words bits = (words{} + (word >> t % WORD_STEPS)) >> step_of_lane & 1;
                    store_some(out + i * apart + image * steps + t, __builtin_convertvector(bits * ONE, halves),
                               static_cast<int>(std::min<int64_t>(LANES, steps - t)));
                }
    });
}

namespace {

// Adds the sums over an image of (gradient of a current) * pixel, and of the gradient.
template <typename Gradient>
void add_input_gradient(const Gradient* grad, const int32_t* currents, const float* pixels, const float* slopes,
                        int64_t steps, int64_t inputs, double* sums) {
    for (int64_t t = 0; t < steps; ++t) {
        float of_pixel = 0, of_one = 0;
#pragma omp simd reduction(+ : of_pixel, of_one)
        for (int64_t i = 0; i < inputs; ++i) {
            const float brought = snn::widen(grad[t * inputs + i]) * slopes[currents[i] * int32_t(steps) + int32_t(t)];
            of_pixel += brought * pixels[i];
            of_one += brought;
        }
        sums[0] += of_pixel, sums[1] += of_one;
    }
}

}  // namespace

int64_t snn_input_gradient(const void* grad, const int32_t* currents, const float* pixels, const float* slopes,
                           int64_t images, int64_t steps, int64_t inputs, int in_half, double* sums, int threads) {
    std::vector<double> of_images(2 * images);
    const int64_t failed = snn::for_each(images, threads, [&](int64_t image, int) {
        const int64_t first = image * steps * inputs, at = image * inputs;
        double* own = &of_images[2 * image];
        if (in_half)
            add_input_gradient(static_cast<const snn::bfloat16*>(grad) + first, currents + at, pixels + at, slopes,
                               steps, inputs, own);
        else
            add_input_gradient(static_cast<const float*>(grad) + first, currents + at, pixels + at, slopes, steps,
                               inputs, own);
    });
    for (size_t i = 0; i < of_images.size(); ++i) sums[i % 2] += of_images[i];  // the same for any number of threads
    return failed;
}
