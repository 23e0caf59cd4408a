/* Blocks with mappings of their own: lost, held, held by the middle, and holding others. */
#include <stdlib.h>

static void *held;
static char *middle;

static __attribute__((noinline)) void keep(void) {
    held = malloc(1 << 20);
    middle = (char *)malloc(2 << 20) + 1500000;
    void **lost = malloc(3 << 20);
    lost[300000] = malloc(200000);
    ((void **)held)[100000] = malloc(33);
}
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    keep();
    overwrite();
    return held == middle;
}
