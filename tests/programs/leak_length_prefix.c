/* A pointer behind a word that holds the length of the rest stands for the start (sqlite does so). */
#include <stdint.h>
#include <stdlib.h>

static uint64_t *good, *bad;

static uint64_t *prefixed(size_t size, uint64_t claimed) {
    uint64_t *block = malloc(size + 8);
    *block = claimed;
    return block + 1;
}

int main(void) {
    good = prefixed(112, 112);
    bad = prefixed(120, 77);
    return 0;
}
