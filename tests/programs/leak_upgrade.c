/* A block is first found by its middle, then by its start: reachable, with all that follows. */
#include <stdlib.h>

static char *first_middle, *then_start;

static __attribute__((noinline)) void keep(void) {
    char **block = calloc(1, 80);
    block[0] = malloc(120);
    block[1] = (char *)malloc(130) + 5;
    first_middle = (char *)block + 41;
    then_start = (char *)block;
}
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    keep();
    overwrite();
    return first_middle == then_start;
}
