// Every way to get a heap block, in sizes that are easy to find; some blocks are given back, some are not.
#include <malloc.h>
#include <stdlib.h>

int main(void)
{
    void *volatile blocks[7];
    blocks[0] = malloc(20001);
    blocks[1] = calloc(3, 20002);
    blocks[2] = realloc(malloc(20003), 200004);
    void *aligned = NULL;
    if (posix_memalign(&aligned, 64, 20005) != 0) return 1;
    blocks[3] = aligned;
    blocks[4] = aligned_alloc(128, 20096);
    blocks[5] = memalign(256, 20006);
    blocks[6] = malloc(300007);
    for (int i = 0; i < 7; i += 2) free(blocks[i]);
    free(NULL);
    return 0;
}
