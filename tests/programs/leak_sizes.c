/* No bytes, one byte, and every function that gives out a block. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>

static void *held[16];

int main(void) {
    int i = 0;
    held[i++] = malloc(0);
    held[i++] = malloc(1);
    held[i++] = calloc(7, 9);
    held[i++] = realloc(NULL, 21);
    held[i++] = realloc(malloc(10), 5000);
    held[i++] = reallocarray(NULL, 3, 15);
    held[i++] = memalign(64, 30);
    held[i++] = aligned_alloc(256, 512);
    if (posix_memalign(&held[i++], 1024, 123) != 0)
        return 1;
    held[i++] = valloc(777);
    held[i] = realloc(malloc(40), 0);
    return 0;
}
