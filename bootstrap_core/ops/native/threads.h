// Loops that run on torch's threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>

namespace snn {

// Sets the function that opens a parallel region: `GOMP_parallel` of torch's OpenMP library. Without it, the calling
// thread does all work.
void set_parallel_region(void* gomp_parallel);
void run_region(void (*body)(void*), void* data, int threads);

// Runs `body(item, worker)` for each item below n. A thread takes the next item when it has finished one, so that slow
// threads do not delay the others. Returns false if a thread ran out of memory.
template <typename Body>
bool for_each(int64_t n, int threads, const Body& body) {
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
    if (team > 1)
        run_region(work, &shared, team);
    else if (n > 0)
        work(&shared);
    return !shared.failed;
}

}  // namespace snn
