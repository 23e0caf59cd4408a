/* Loses a block and ends in the way that its argument names. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static __attribute__((noinline)) void lose(void) { *(char *)malloc(1234) = 1; }
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(int argc, char **argv) {
    const char *way = argv[argc - 1];
    lose();
    overwrite();
    if (strcmp(way, "exit") == 0)
        exit(4);
    if (strcmp(way, "_exit") == 0)
        _exit(5);
    if (strcmp(way, "_Exit") == 0)
        _Exit(6);
    if (strcmp(way, "quick_exit") == 0)
        quick_exit(7);
    if (strcmp(way, "abort") == 0)
        abort();
    if (strcmp(way, "kill") == 0)
        raise(SIGKILL);
    if (strcmp(way, "term") == 0)
        raise(SIGTERM);
    return 3;
}
