/* A pointer at an address that is no multiple of 8 is not seen. */
#include <stdlib.h>
#include <string.h>

static char place[64];

static __attribute__((noinline)) void keep(void) {
    void *block = malloc(77);
    memcpy(place + 3, &block, sizeof block);
}
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    keep();
    overwrite();
    return place[0];
}
