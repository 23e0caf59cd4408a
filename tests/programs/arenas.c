// Four threads that live at the same time, each with blocks in a thread arena and a block of its own mapping.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_barrier_t all_here;

static void *run(void *unused) {
    char *small = malloc(40001), *large = malloc(400001);
    memset(small, 1, 40001);
    memset(large, 1, 400001);
    pthread_barrier_wait(&all_here);
    free(large);
    pthread_barrier_wait(&all_here);
    return small;
}

int main(void) {
    pthread_t threads[4];
    pthread_barrier_init(&all_here, NULL, 5);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, run, NULL);
    pthread_barrier_wait(&all_here);
    pthread_barrier_wait(&all_here);
    _Exit(0);
}
