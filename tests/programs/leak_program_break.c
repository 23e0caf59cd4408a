/* Memory that the program takes from the break itself is its own, although the heap lies around it. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

int main(void) {
    void *first = malloc(1000);
    void **own = sbrk(4096);
    own[5] = malloc(150);
    for (int i = 0; i < 300; i++)
        free(malloc(i * 1000));
    return first == NULL;
}
