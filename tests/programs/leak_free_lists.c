/* Free chunks of all sizes beside live blocks: the allocator's lists point to the ends of the blocks before. */
#include <stdlib.h>

#define COUNT 200

static __attribute__((noinline)) void lose(void) {
    void *blocks[COUNT];
    for (int i = 0; i < COUNT; i++)
        blocks[i] = malloc(24 + i * 40);
    for (int i = 1; i < COUNT; i += 2)
        free(blocks[i]);
    free(malloc(100000));
}
static __attribute__((noinline)) void overwrite(void) { volatile char frame[8192]; for (int i = 0; i < 8192; i++) frame[i] = 0; }

int main(void) {
    lose();
    overwrite();
    return 0;
}
