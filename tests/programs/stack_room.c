// Blocks on stacks that hardly hold them: a thread of PTHREAD_STACK_MIN bytes (51001), a signal stack of the least size
// plus two pages (51002), and a recursion down to the guard page, a block at each of its last levels (51003). Behind
// each of these stacks lies a page that nobody may touch. Prints "done".
#define _GNU_SOURCE
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void *volatile kept;

static void grab(size_t size) {
    void *block = malloc(size);
    kept = block;
    free(block);
}

static void handler(int signal) {
    (void)signal;
    grab(51002);
}

static void *small(void *unused) {
    grab(51001);
    return unused;
}

static char *lowest;

static void descend(void) {
    volatile char room[256];
    room[0] = 1;
    grab(51003);
    if ((char *)&room[0] - lowest > 3072) descend();
    room[1] = 1;
}

static void *deep(void *low) {
    lowest = low;
    descend();
    return NULL;
}

static void *guarded(size_t size) {
    char *room = mmap(NULL, size + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(room + 4096, size, PROT_READ | PROT_WRITE);
    return room + 4096;
}

int main(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
    pthread_create(&thread, &attributes, small, NULL);
    pthread_join(thread, NULL);

    size_t size = ((size_t)sysconf(_SC_MINSIGSTKSZ) + 4095 & ~4095ul) + 8192;
    stack_t own = {.ss_sp = guarded(size), .ss_size = size};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaltstack(&own, NULL);
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);

    void *room = guarded(1 << 16);
    pthread_attr_setstack(&attributes, room, 1 << 16);
    pthread_create(&thread, &attributes, deep, room);
    pthread_join(thread, NULL);
    puts("done");
    return 0;
}
