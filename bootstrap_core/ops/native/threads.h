// Work shared by the threads that torch already has.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>

namespace snn {

// Sets what opens a parallel region: `GOMP_parallel` of the OpenMP library that torch runs on. Without it, all work is
// done by the thread that calls.
void set_parallel_region(void* gomp_parallel);
void run_region(void (*body)(void*), void* data, int threads);

// Runs `body(item, worker)` for each item below n. Threads take the next item when they are done with one, so that a
// thread that has to share its core holds nobody up. Returns false if a thread ran out of memory.
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
