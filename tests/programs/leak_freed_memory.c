/* Freed memory holds no references, small or large. */
#include <stdlib.h>

static void **keep_address;

static __attribute__((noinline)) void lose(void) {
    void **small = malloc(400), **large = malloc(300000);
    for (int i = 10; i < 40; i++)
        small[i] = NULL;
    small[20] = malloc(74);
    large[1000] = malloc(75);
    keep_address = small;
    free(small);
    free(large);
}
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    lose();
    overwrite();
    return 0;
}
