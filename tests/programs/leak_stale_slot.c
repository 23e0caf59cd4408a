/* The last reference lies in a frame that is gone, below the stack pointer. */
#include <stdlib.h>

static __attribute__((noinline)) void deep(int levels) {
    void *volatile slot[16];
    for (int i = 0; i < 16; i++)
        slot[i] = malloc(80);
    for (int i = 1; i < 16; i++)
        free(slot[i]);
    if (levels > 1)
        deep(levels - 1);
}

int main(void) {
    deep(30);
    return 0;
}
