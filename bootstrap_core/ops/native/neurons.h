// CUBA neurons, 16 at a time: the arithmetic of `functional/cuba.py` in integers.
#pragma once

#include "vectors.h"

namespace snn {

constexpr int WORD_STEPS = 32;  // steps in a word of a train: bit t is the spike of step t
constexpr int STATE_SHIFT = 12;  // states are in units of 1/4096
constexpr float STATE = 1 << STATE_SHIFT;

// Constants of a layer's neurons; arrays have one number for each channel, then zeros up to a multiple of LANES.
struct Neurons {
    const int32_t* keep_current;  // 4096 - decay
    const int32_t* keep_voltage;
    const int32_t* bias;  // in state units
    const int8_t* own;    // weights from the neurons of a flat layer to themselves, as of a DENSE `Synapse`; or null
    int32_t threshold;    // in state units
    int32_t forgets;      // the current of all neurons is lost at each step
    int32_t subtract;     // a spike subtracts the threshold; otherwise it sets the voltage to 0
    int32_t shift;        // spikes leave a step later
    int32_t initial_voltage;  // before the first step, in state units
};

// Returns `state * keep / 4096`, rounded toward zero; intermediate results fit in 32 bits.
inline ints leak(ints state, ints keep) {
    const ints below = state & ((1 << STATE_SHIFT) - 1);
    const ints upward = (state >> 31) & ((1 << STATE_SHIFT) - 1);  // rounds negative numbers up
    return (state >> STATE_SHIFT) * keep + ((below * keep + upward) >> STATE_SHIFT);
}

// Returns a state without its sign. A state fits in the chip's 24 bits if its magnitude fits in 23: -2^23 does not.
inline ints magnitude(ints state) { return state < 0 ? -state : state; }

// State of 16 neurons between steps.
struct NeuronState {
    ints current = {}, voltage = {};
    ints reached = {};  // bitwise or of all magnitudes so far
    ints voltage_before_reset = {};
};

struct NeuronLanes {
    ints keep_current, keep_voltage, bias, threshold;
    ints kept_by_spike;  // -1 if a spike leaves a part of the voltage, else 0

    NeuronLanes() = default;
    NeuronLanes(const Neurons& neurons, int64_t channel)
        : keep_current(load<ints>(neurons.keep_current + channel)),
          keep_voltage(load<ints>(neurons.keep_voltage + channel)),
          bias(load<ints>(neurons.bias + channel)),
          threshold(ints{} + neurons.threshold),
          kept_by_spike(ints{} - (neurons.subtract ? 1 : 0)) {}

    // Runs one step on a weighted input in state units. Returns -1 in the lanes that spike.
    template <bool FORGETS>
    inline ints step(ints arriving, NeuronState& state) const {
        state.current = FORGETS ? arriving : leak(state.current, keep_current) + arriving;
        const ints voltage = leak(state.voltage, keep_voltage) + state.current + bias;
        state.reached |= magnitude(state.current) | magnitude(voltage);
        state.voltage_before_reset = voltage;
        const ints fired = voltage > threshold;
        state.voltage = fired ? (voltage - threshold) & kept_by_spike : voltage;
        return fired;
    }
};

}  // namespace snn
