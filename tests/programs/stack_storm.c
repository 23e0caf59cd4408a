// A timer strikes a thousand times a second. Its handler maps memory, which asks for a stack inside of whatever was
// interrupted, and every other time jumps out of it, for good. The loop maps and unmaps at different depths, so that
// walks, hits and half-done walks follow each other. Prints "done" after 300 jumps.
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/time.h>

static sigjmp_buf out;
static volatile sig_atomic_t jumps, strikes;

static void map(void) {
    void *room = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room != MAP_FAILED) munmap(room, 4096);
}

static void handler(int signal) {
    (void)signal;
    map();
    if (++strikes % 2) {
        jumps++;
        siglongjmp(out, 1);
    }
}

static int deep(int depth) {
    volatile char room[64];
    room[0] = (char)depth;
    map();
    if (depth > 0) deep(depth - 1);
    return room[0];
}

int main(void) {
    struct sigaction action = {.sa_handler = handler};
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGPROF, &action, NULL);
    setitimer(ITIMER_PROF, &often, NULL);
    sigsetjmp(out, 1);
    for (unsigned i = 0; jumps < 300; i++) deep((int)(i * 7 % 40));
    setitimer(ITIMER_PROF, &never, NULL);
    deep(20);
    puts("done");
    return 0;
}
