/* Only pointers into the middle are left: possible, and so is what the blocks hold. One past the end is no reference. */
#include <stdlib.h>

static char *middle, *end, *chain;

static __attribute__((noinline)) void keep(void) {
    middle = (char *)malloc(100) + 37;
    end = (char *)malloc(64) + 64;
    char **holder = calloc(1, 48);
    *holder = malloc(200);
    chain = (char *)holder + 17;
}
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    keep();
    overwrite();
    return middle == end || chain == end;
}
