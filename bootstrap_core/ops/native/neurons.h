// CUBA neurons, 16 at a time: the arithmetic of `functional/cuba.py` in whole numbers.
#pragma once

#include "vectors.h"

namespace snn {

constexpr int WORD_STEPS = 32;  // of a train: a word whose bit t is the spike of step t
constexpr int STATE_SHIFT = 12;  // a state is in units of 1/4096
constexpr float STATE = 1 << STATE_SHIFT;

// Constants of a layer's neurons; arrays have a number for each channel, and zeros up to a multiple of LANES.
struct Neurons {
    const int32_t* keep_current;  // 4096 - decay
    const int32_t* keep_voltage;
    const int32_t* bias;  // in state units
    int32_t threshold;    // in state units
    int32_t forgets;      // no neuron keeps any current
    int32_t subtract;     // a spike subtracts the threshold; else it sets the voltage to 0
    int32_t shift;        // spikes leave a step later
};

// `state * keep / 4096` toward zero, without leaving 32 bits.
inline ints leak(ints state, ints keep) {
    const ints below = state & ((1 << STATE_SHIFT) - 1);
    const ints upward = (state >> 31) & ((1 << STATE_SHIFT) - 1);  // negative numbers are rounded up
    return (state >> STATE_SHIFT) * keep + ((below * keep + upward) >> STATE_SHIFT);
}

// The bits of a state but its sign: 24 bits hold the states whose `magnitude` has at most 23.
inline ints magnitude(ints state) { return state ^ (state >> 31); }

// 16 neurons between steps.
struct NeuronState {
    ints current = {}, voltage = {};
    ints reached = {};  // all bits of all magnitudes so far
    ints voltage_before_reset = {};
};

struct NeuronLanes {
    ints keep_current, keep_voltage, bias, threshold;
    ints kept_by_spike;  // -1 where something of the voltage is left

    NeuronLanes() = default;
    NeuronLanes(const Neurons& neurons, int64_t channel)
        : keep_current(load<ints>(neurons.keep_current + channel)),
          keep_voltage(load<ints>(neurons.keep_voltage + channel)),
          bias(load<ints>(neurons.bias + channel)),
          threshold(ints{} + neurons.threshold),
          kept_by_spike(ints{} - (neurons.subtract ? 1 : 0)) {}

    // One step of weighted input, in state units. Returns the lanes that spike, as -1.
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
