/* Held only by memory that the program mapped itself. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

int main(void) {
    void **page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page[700] = malloc(70);
    void **readonly = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *readonly = malloc(71);
    mprotect(readonly, 4096, PROT_READ);
    page = readonly = NULL;
    return page == NULL ? 0 : 1;
}
