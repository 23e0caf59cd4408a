/* Threads alive at exit: their stacks, registers and thread-local variables are roots, their dead frames are none. */
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

static sem_t ready;
static _Thread_local void *local;

static __attribute__((noinline)) void lose(void) {
    void *volatile slots[64];
    for (int i = 0; i < 64; i++)
        slots[i] = NULL;
    slots[40] = malloc(501);
}

static void *work(void *unused) {
    (void)unused;
    lose();
    void *volatile held = malloc(502);
    local = malloc(503);
    sem_post(&ready);
    for (;;)
        pause();
    return held;
}

int main(void) {
    sem_init(&ready, 0, 0);
    for (int i = 0; i < 5; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, NULL);
        sem_wait(&ready);
    }
    return 0;
}
