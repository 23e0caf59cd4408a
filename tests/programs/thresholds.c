// Walks malloc through its kernel calls, each for another reason. Sizes are recognisable.
#include <stdlib.h>
#include <string.h>

static volatile char *keep;

static void *used(void *block, size_t size) {
    keep = memset(block, 1, size);
    return block;
}

int main(void) {
    keep = malloc(1);                                 // the first heap segment: 33 pages
    void *small = used(malloc(100001), 100001);       // from the rest at the top
    void *more = used(malloc(60001), 60001);          // the top is too small: the break moves
    void *mapped = used(calloc(1, 200001), 200001);   // reaches the threshold: a mapping
    mapped = used(realloc(mapped, 900001), 900001);   // grows by mremap
    free(mapped);                                     // given back; the threshold rises
    void *heap = used(malloc(200001), 200001);        // below the new threshold: from the heap
    void *aligned = used(aligned_alloc(4096, 2000000 / 4096 * 4096), 1998848); // a mapping again
    free(aligned);
    free(heap);
    void *huge = used(malloc(3000001), 3000001);
    huge = realloc(huge, 1001);                       // shrinks its mapping, by mremap too
    free(huge);
    void *top[64];
    for (int i = 0; i < 64; i++)
        top[i] = used(malloc(100003), 100003);        // 6.4 MB at the top,
    for (int i = 63; i >= 0; i--)
        free(top[i]);                                 // which a free trims
    free(more);
    free(small);
    return 0;
}
