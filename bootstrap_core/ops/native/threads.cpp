#include "threads.h"

namespace snn {

using Region = void (*)(void (*)(void*), void*, unsigned, unsigned);

static Region region = nullptr;

void set_parallel_region(void* gomp_parallel) { region = reinterpret_cast<Region>(gomp_parallel); }

void run_region(void (*body)(void*), void* data, int threads) {
    if (region)
        region(body, data, static_cast<unsigned>(threads), 0);
    else
        body(data);
}

}  // namespace snn
