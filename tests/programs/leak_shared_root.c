/* Held only by shared memory, with a file and without one, the file shorter than its mapping. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void) {
    void **anonymous = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *anonymous = malloc(72);
    int fd = memfd_create("file", 0);
    if (ftruncate(fd, 4096) != 0)
        return 1;
    void **file = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    *file = malloc(73);
    return 0;
}
