/* The process ends in a thread that is not the first, which waits with blocks of its own. */
#include <pthread.h>
#include <stdlib.h>

static void *work(void *unused) {
    (void)unused;
    void *volatile held = malloc(504);
    (void)held;
    exit(0);
}

int main(void) {
    void *volatile held = malloc(505);
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    pthread_join(thread, NULL);
    return held == NULL;
}
