/* A thread on a stack that the program gave it, in the middle of memory that holds other references. */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE (256 << 10)
static sem_t ready;

static void *work(void *unused) {
    void *volatile held = malloc(506);
    sem_post(&ready);
    for (;;)
        pause();
    return held == unused ? NULL : unused;
}

int main(void) {
    char *memory = mmap(NULL, 3 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *(void **)memory = malloc(507);
    *(void **)(memory + 2 * SIZE + 64) = malloc(508);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, memory + SIZE, SIZE);
    sem_init(&ready, 0, 0);
    pthread_t thread;
    pthread_create(&thread, &attributes, work, NULL);
    sem_wait(&ready);
    return 0;
}
