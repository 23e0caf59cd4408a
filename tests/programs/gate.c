/* Leaks what it is told to and ends as it is told to: each argument is one act, in order.
 *
 *   keep=N   keeps a block of N bytes reachable      lose=N   loses a block of N bytes
 *   map=N    maps N bytes and keeps them             fork     the rest is done by a child, the parent waits
 *   exec     the rest is done by this program anew   exit=N _exit=N   ends with status N
 *   kill=N   sends itself signal N
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void *kept[64];
static int count;

static __attribute__((noinline)) void lose(size_t size)
{
    volatile char *block = malloc(size);
    block[0] = 1;
    block = NULL;
}

/* Overwrites what the calls before left on the stack: an old pointer there hides a leak. */
static __attribute__((noinline)) void scrub(void)
{
    volatile char old[4096];
    memset((char *)old, 0, sizeof old);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        long number = value ? atol(value + 1) : 0;
        size_t name = value ? (size_t)(value - argv[i]) : strlen(argv[i]);
        if (!strncmp(argv[i], "keep", name)) {
            kept[count++] = malloc(number);
        } else if (!strncmp(argv[i], "lose", name)) {
            lose(number);
        } else if (!strncmp(argv[i], "map", name)) {
            kept[count++] = mmap(NULL, number, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        } else if (!strncmp(argv[i], "fork", name)) {
            pid_t child = fork();
            if (child) {
                waitpid(child, NULL, 0);
                break;
            }
        } else if (!strncmp(argv[i], "exec", name)) {
            argv[i] = argv[0];
            execv("/proc/self/exe", argv + i);
            return 99;
        } else if (!strncmp(argv[i], "exit", name)) {
            scrub();
            exit(number);
        } else if (!strncmp(argv[i], "_exit", name)) {
            scrub();
            _exit(number);
        } else if (!strncmp(argv[i], "kill", name)) {
            raise(number);
        } else {
            fprintf(stderr, "what is %s?\n", argv[i]);
            return 98;
        }
    }
    scrub();
    return 0;
}
