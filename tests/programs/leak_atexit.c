/* What exit handlers free is no leak, what they lose is one. */
#include <stdio.h>
#include <stdlib.h>

static void *freed, *lost;

static void handler(void) {
    free(freed);
    freed = lost = NULL;
    void *volatile fresh = malloc(509);
    (void)fresh;
}

static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }
static __attribute__((destructor)) void destructor(void) {
    void *volatile fresh = malloc(510);
    (void)fresh;
    overwrite();
}

int main(void) {
    freed = malloc(511);
    lost = malloc(512);
    atexit(handler);
    puts("done");
    return 0;
}
