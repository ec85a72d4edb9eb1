/* Start of a program on a Cortex-M4 in qemu, with newlib's semihosting for printf. */
#include <stdint.h>

extern uint8_t __stack[];
void _start(void); /* of newlib: clears .bss, calls main */

void reset(void)
{
    _start();
}

static void fault(void)
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    __stack, reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault,
};
