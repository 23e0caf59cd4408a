/* Parts of blocks that can't be read, as guard pages are made. */
#include <stdlib.h>
#include <sys/mman.h>

static void **block;

int main(void) {
    block = aligned_alloc(4096, 5 * 4096);
    for (int i = 0; i < 5 * 512; i++)
        block[i] = NULL;
    block[0] = malloc(517);
    block[4 * 512] = malloc(518);
    mprotect(block + 2 * 512, 4096, PROT_NONE);
    return 0;
}
