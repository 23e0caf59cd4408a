/* A huge root and a huge block of which hardly a page was touched. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

#define SIZE (1ul << 30)
static void **block;

int main(void) {
    void **mapping = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mapping[SIZE / 16] = malloc(514);
    block = calloc(1, SIZE / 4);
    block[SIZE / 64] = malloc(515);
    block[SIZE / 32 - 1] = malloc(516);
    return 0;
}
