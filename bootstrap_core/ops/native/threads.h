// Loops that run on torch's threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>

namespace snn {

constexpr int64_t OUT_OF_MEMORY = -1;

// `GOMP_parallel` of torch's OpenMP library, which opens a parallel region. Without it, the calling thread does all work.
inline void (*open_region)(void (*)(void*), void*, unsigned, unsigned) = nullptr;

// Runs `body(item, worker)` for each item below n. A thread takes the next item when it has finished one, so that slow
// threads do not delay the others. Returns 0, or OUT_OF_MEMORY if a thread got no memory.
template <typename Body>
int64_t for_each(int64_t n, int threads, const Body& body) {
    struct Shared {
        const Body* body;
        int64_t n;
        std::atomic<int64_t> next{0};
        std::atomic<int> workers{0};
        std::atomic<bool> failed{false};
    } shared{&body, n};
    auto work = [](void* data) {
        auto& shared = *static_cast<Shared*>(data);
        const int worker = shared.workers++;
        try {
            for (int64_t item; (item = shared.next++) < shared.n;) (*shared.body)(item, worker);
        } catch (const std::bad_alloc&) {
            shared.failed = true;
        }
    };
    const int team = static_cast<int>(threads < n ? threads : n);
    if (team > 1 && open_region)
        open_region(work, &shared, static_cast<unsigned>(team), 0);
    else if (n > 0)
        work(&shared);
    return shared.failed ? OUT_OF_MEMORY : 0;
}

}  // namespace snn
