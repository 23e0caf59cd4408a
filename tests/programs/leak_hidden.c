/* Encoded pointers are no references. */
#include <stdint.h>
#include <stdlib.h>

static uintptr_t inverted, shifted;

static __attribute__((noinline)) void keep(void) {
    inverted = ~(uintptr_t)malloc(90);
    shifted = (uintptr_t)malloc(91) << 8;
}
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    keep();
    overwrite();
    return inverted == shifted;
}
