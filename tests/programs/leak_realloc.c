/* Blocks that grow, shrink, move, and fail to. */
#include <stdint.h>
#include <stdlib.h>

static char *held;

static __attribute__((noinline)) void lose(void) {
    char *block = malloc(10);
    for (size_t size = 20; size < 600000; size = size * 3 / 2)
        block = realloc(block, size);
    held = realloc(block, 77);
    size_t volatile huge = PTRDIFF_MAX;
    if (realloc(held, huge) != NULL)
        abort();
    char *lost = realloc(malloc(4000), 3000);
    lost[0] = 1;
}
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    lose();
    overwrite();
    return 0;
}
