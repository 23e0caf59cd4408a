/* A lost block with a higher address holds one with a lower: the lower one was first its own group, then indirect. */
#include <stdlib.h>

static __attribute__((noinline)) void lose(void) {
    void **low = calloc(1, 56), **middle = calloc(1, 72), **high = calloc(1, 88);
    *high = middle;
    *middle = low;
}
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    lose();
    overwrite();
    return 0;
}
