/* Threads that have ended: what only their stacks held is lost, glibc keeps the stacks. */
#include <pthread.h>
#include <stdlib.h>

static void *held[4];

static void *work(void *number) {
    void *volatile slots[8];
    for (int i = 0; i < 8; i++)
        slots[i] = calloc(1, 500);
    for (int i = 1; i < 8; i++)
        free(slots[i]);
    held[(long)number] = malloc(25);
    return NULL;
}

int main(void) {
    pthread_t threads[4];
    for (long i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
