// Two versions of one program: built with -DNEWER, it asks for more here, for less there, and at other addresses.
#include <stdlib.h>
#include <sys/mman.h>

#ifdef NEWER
enum { ROWS = 30, CELLS = 5, PAGES = 10 };
#else
enum { ROWS = 20, CELLS = 8, PAGES = 3 };
#endif

static void *volatile kept;

#ifdef NEWER
__attribute__((noinline)) static void added(void) {
    kept = malloc(700);
}
#else
__attribute__((noinline)) static void removed(void) {
    free(kept = malloc(900));
}
#endif

__attribute__((noinline)) static void rows(void) {
    for (int i = 0; i < ROWS; i++)
        kept = malloc(1000);
}

__attribute__((noinline)) static void cells(void) {
    for (int i = 0; i < CELLS; i++)
        free(kept = malloc(100));
}

__attribute__((noinline)) static void same(void) {
    free(kept = malloc(5000));
}

__attribute__((noinline)) static void pages(void) {
    for (int i = 0; i < PAGES; i++)
        kept = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int main(void) {
    rows();
    pages();
#ifdef NEWER
    added();
#else
    removed();
#endif
    cells();
    same();
    return 0;
}
