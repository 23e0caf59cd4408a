// Maps, protects, moves and unmaps memory and moves the break at random, and after each `every` steps tries an exec
// that fails: memspy takes a snapshot before each exec. Prints its own /proc/self/maps at the end.
// Arguments: steps, seed, every.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 64 };

static unsigned long state;

static unsigned next(unsigned below) {
    state = state * 6364136223846793005ul + 1442695040888963407ul;
    return (unsigned)(state >> 33) % below;
}

int main(int argc, char **argv) {
    int steps = argc > 1 ? atoi(argv[1]) : 1000;
    state = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    int every = argc > 3 ? atoi(argv[3]) : 97;
    unsigned grown = 0;
    FILE *file = tmpfile();
    if (!file || ftruncate(fileno(file), PAGES * PAGE))
        return 1;
    // All that follows happens in here, so that nothing of libc's is hit.
    char *base = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static const int prots[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    for (int i = 0; i < steps; i++) {
        unsigned from = next(PAGES), len = 1 + next(PAGES - from);
        char *at = base + from * PAGE;
        int prot = prots[next(3)];
        switch (next(7)) {
        case 0:
            mmap(at, len * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            break;
        case 1:
            mmap(at, len * PAGE, prot, MAP_SHARED | MAP_FIXED, fileno(file), (long)next(8) * PAGE);
            break;
        case 2:
            munmap(at, len * PAGE - next(PAGE));
            break;
        case 3:
            mprotect(at, len * PAGE, prot);
            break;
        case 4:
            mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, base + next(PAGES) * PAGE);
            break;
        case 5:
            if (grown && next(2)) {
                unsigned bytes = 1 + next(grown);
                if (sbrk(-(long)bytes) != (void *)-1)
                    grown -= bytes;
            } else {
                unsigned bytes = 1 + next(PAGES * PAGE);
                if (sbrk(bytes) != (void *)-1)
                    grown += bytes;
            }
            break;
        default: {
            char *own = mmap(NULL, len * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            char *moved = mremap(own, len * PAGE, (1 + next(PAGES)) * PAGE, MREMAP_MAYMOVE);
            if (moved != MAP_FAILED && next(2))
                munmap(moved, PAGE);
        }
        }
        if (i % every == every - 1)
            execl("/nonexistent", "nonexistent", NULL);
    }
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    while (maps && fgets(line, sizeof line, maps))
        fputs(line, stdout);
    fflush(stdout);
    _exit(0);
}
