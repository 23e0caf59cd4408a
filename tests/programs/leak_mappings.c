/* Mappings made, moved, cut, overlaid and unmapped; prints how many bytes of its own are left, as the kernel has it. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

/* Each own page holds this word at its start. */
static const char MARK[] = "own page";

static char *map(char *at, int pages, int flags) {
    char *made = mmap(at, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    for (int i = 0; i < pages; i++)
        memcpy(made + i * PAGE, MARK, sizeof MARK);
    return made;
}

static unsigned long own_bytes(void) {
    unsigned long from, to, sum = 0;
    char flag[8], line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s", &from, &to, flag) == 3 && strncmp(flag, "rw", 2) == 0 && !strstr(line, "["))
            for (; from < to; from += PAGE)
                if (memcmp((char *)from, MARK, sizeof MARK) == 0)
                    sum += PAGE;
    fclose(maps);
    return sum;
}

int main(void) {
    char *kept = map(NULL, 5, 0);
    munmap(map(NULL, 7, 0), 7 * PAGE);
    char *cut = map(NULL, 20, 0);
    munmap(cut + 3 * PAGE, 4 * PAGE);
    munmap(cut, PAGE);
    map(cut + 10 * PAGE, 2, MAP_FIXED);
    munmap(kept + 4 * PAGE, PAGE);
    char *moved = mremap(map(NULL, 2, 0), 2 * PAGE, 400 * PAGE, MREMAP_MAYMOVE);
    for (int i = 0; i < 400; i++)
        memcpy(moved + i * PAGE, MARK, sizeof MARK);
    moved = mremap(moved, 400 * PAGE, 100 * PAGE, 0);
    printf("%lu\n", own_bytes());
    return 0;
}
