// Vectors of 16 numbers, with one source for all instruction sets.
//
// The types are the compiler's vector extensions: gcc and clang turn 64 bytes into one register of AVX-512, two of AVX2
// or four of NEON. Intrinsics are used where plain code does not exist: for products of bytes and for multiply-add.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace snn {

constexpr int LANES = 16;

typedef int32_t ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t words __attribute__((vector_size(LANES * 4)));
typedef float floats __attribute__((vector_size(LANES * 4)));
typedef uint16_t halves __attribute__((vector_size(LANES * 2)));

using bfloat16 = uint16_t;  // the upper half of a float32

template <typename V>
inline V load(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof(V));
    return v;
}

template <typename V>
inline void store(void* to, V v) {
    std::memcpy(to, &v, sizeof(V));
}

// Loads the first n numbers; the other lanes are 0.
template <typename V, typename T>
inline V load_some(const T* from, int n) {
    if (n >= LANES) return load<V>(from);
    V v = {};
    std::memcpy(&v, from, n * sizeof(T));
    return v;
}

template <typename V, typename T>
inline void store_some(T* to, V v, int n) {
    if (n >= LANES) return store(to, v);
    std::memcpy(to, &v, n * sizeof(T));
}

// Returns x in all lanes. Written as a difference, since compilers may simplify x - 0 to x, but not 0 + x (x = -0).
inline floats everywhere(float x) { return x - floats{}; }

inline float widen(float x) { return x; }

inline float widen(bfloat16 x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    return load<float>(&bits);
}

inline floats load_floats(const float* from, int n = LANES) { return load_some<floats>(from, n); }

inline floats load_floats(const bfloat16* from, int n = LANES) {
    words bits = __builtin_convertvector(load_some<halves>(from, n), words) << 16;
    return (floats)bits;
}

inline void store_floats(float* to, floats v, int n = LANES) { store_some(to, v, n); }

// Rounds to the nearest bfloat16, half to even, and stores.
inline void store_floats(bfloat16* to, floats v, int n = LANES) {
    words bits = (words)v;
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    store_some(to, __builtin_convertvector(bits, halves), n);
}

// Returns a * b + c, rounded once if the CPU can. The build forbids compilers to fuse plain expressions in this way.
inline floats mul_add(floats a, floats b, floats c) {
#if defined(__AVX512F__)
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    __m256 x[2], y[2], z[2];
    std::memcpy(x, &a, sizeof(a)), std::memcpy(y, &b, sizeof(b)), std::memcpy(z, &c, sizeof(c));
    for (int j = 0; j < 2; ++j) z[j] = _mm256_fmadd_ps(x[j], y[j], z[j]);
    std::memcpy(&c, z, sizeof(c));
    return c;
#elif defined(__ARM_NEON)
    float32x4_t x[4], y[4], z[4];
    std::memcpy(x, &a, sizeof(a)), std::memcpy(y, &b, sizeof(b)), std::memcpy(z, &c, sizeof(c));
    for (int j = 0; j < 4; ++j) z[j] = vfmaq_f32(z[j], x[j], y[j]);
    std::memcpy(&c, z, sizeof(c));
    return c;
#else
    return a * b + c;
#endif
}

inline float sum(floats v) {
    float total = 0;
    for (int j = 0; j < LANES; ++j) total += v[j];
    return total;
}

// Returns 2**x for x <= 0, with a relative error below 2e-7.
inline floats exp2_of_negative(floats x) {
    x = x > -125.0f ? x : everywhere(-125.0f);
    const floats to_whole = everywhere(1.5f * (1 << 23));  // adding it rounds to the nearest integer
    floats shifted = x + to_whole;
    floats rest = x - (shifted - to_whole);
    // Chebyshev fit of 2**x on [-0.5, 0.5]
    floats power = everywhere(0.00134004f);
    for (float factor : {0.00967604f, 0.05550327f, 0.24022107f, 0.69314721f, 1.00000008f})
        power = mul_add(power, rest, everywhere(factor));
    return (floats)((ints)power + ((ints)shifted << 23));
}

// Sums of products of bytes for 16 outputs. `add` adds four spikes times four weights to each output; the 64 bytes of
// weights lie output by output. ROWS x COLUMNS sums are held in registers at once.
#if defined(__AVX512VNNI__)

constexpr int ROWS = 8, COLUMNS = 3, MOST_TAPS = 1 << 30;

struct ByteSums {
    __m512i sums = _mm512_setzero_si512();
    struct Weights {
        __m512i bytes;
        explicit Weights(const int8_t* from) : bytes(_mm512_loadu_si512(from)) {}
    };
    void add(uint32_t spikes, const Weights& weights) {
        // as assembly, since gcc 12 copies the sums around the intrinsic, which doubles the time
        __m512i total = sums, four = _mm512_set1_epi32(static_cast<int>(spikes));
        asm("vpdpbusd %2, %1, %0" : "+v"(total) : "v"(four), "v"(weights.bytes));
        sums = total;
    }
    ints total() const { return (ints)sums; }
};

#elif defined(__AVX2__)

// Pairs of products are summed in 16 bits, which hold the sum of 120 pairs.
constexpr int ROWS = 4, COLUMNS = 1, MOST_TAPS = 120;

struct ByteSums {
    __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
    struct Weights {
        __m256i low, high;
        explicit Weights(const int8_t* from)
            : low(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))),
              high(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32))) {}
    };
    void add(uint32_t spikes, const Weights& weights) {
        __m256i four = _mm256_set1_epi32(static_cast<int>(spikes));
        low = _mm256_add_epi16(low, _mm256_maddubs_epi16(four, weights.low));
        high = _mm256_add_epi16(high, _mm256_maddubs_epi16(four, weights.high));
    }
    ints total() const {
        const __m256i one = _mm256_set1_epi16(1);
        ints all;
        __m256i halves[2] = {_mm256_madd_epi16(low, one), _mm256_madd_epi16(high, one)};
        std::memcpy(&all, halves, sizeof(all));
        return all;
    }
};

#elif defined(__ARM_FEATURE_DOTPROD)

constexpr int ROWS = 4, COLUMNS = 1, MOST_TAPS = 1 << 30;

struct ByteSums {
    int32x4_t sums[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    struct Weights {
        int8x16_t bytes[4];
        explicit Weights(const int8_t* from) {
            for (int j = 0; j < 4; ++j) bytes[j] = vld1q_s8(from + 16 * j);
        }
    };
    void add(uint32_t spikes, const Weights& weights) {
        int8x16_t four = vreinterpretq_s8_u32(vdupq_n_u32(spikes));
        for (int j = 0; j < 4; ++j) sums[j] = vdotq_s32(sums[j], weights.bytes[j], four);
    }
    ints total() const {
        ints all;
        std::memcpy(&all, sums, sizeof(all));
        return all;
    }
};

#else

constexpr int ROWS = 2, COLUMNS = 1, MOST_TAPS = 1 << 30;

struct ByteSums {
    ints sums = {};
    struct Weights {
        ints bytes;
        explicit Weights(const int8_t* from) : bytes(load<ints>(from)) {}
    };
    void add(uint32_t spikes, const Weights& weights) {
        // a spike keeps its byte of the weights; shifting left and right brings each byte with its sign
        ints kept = weights.bytes & (static_cast<int32_t>(spikes * 255u));
        sums += (kept << 24 >> 24) + (kept << 16 >> 24) + (kept << 8 >> 24) + (kept >> 24);
    }
    ints total() const { return sums; }
};

#endif

}  // namespace snn
