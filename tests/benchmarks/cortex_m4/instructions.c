/* Instructions of a network on a Cortex-M4: its self-test, and then counts for its first picture or recording. MODEL
 * names its source.
 * With qemu's -icount shift=0 an instruction takes 1 ns, and the timer counts every 40 ns. */
#define SNN_SELFTEST
#define main selftest
#include MODEL
#undef main

#define TIMER ((volatile uint32_t *)0xE000E010)
#define NS_PER_COUNT 40

static uint32_t now(void)
{
    return 0xFFFFFF - TIMER[2];
}

#ifdef SNN_MOST_STEPS /* a network of events or frames */
static void show(void)
{
    snn_init(&state);
}

static void step(int t)
{
    snn_step(&state, recordings[0] + t * SNN_INPUTS);
}
#else
enum { STEPS = SNN_TIME_STEPS };

static void show(void)
{
    snn_show(&state, pictures[0]);
}

static void step(int t)
{
    (void)t;
    snn_step(&state);
}
#endif

int main(void)
{
    uint32_t begin, shown, done;
    if (selftest() != 0) {
        return 1;
    }
    TIMER[1] = 0xFFFFFF;
    TIMER[2] = 0;
    TIMER[0] = 5; /* count the processor's clock */
    begin = now();
    show();
    shown = now();
    for (int t = 0; t < STEPS; ++t) {
        step(t);
    }
    done = now();
    printf("%lu instructions to show, %lu for each of %d steps\n", (unsigned long)((shown - begin) & 0xFFFFFF) * NS_PER_COUNT,
           (unsigned long)((done - shown) & 0xFFFFFF) * NS_PER_COUNT / STEPS, STEPS);
    return 0;
}
