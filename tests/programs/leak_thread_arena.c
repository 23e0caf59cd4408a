/* Many blocks in a thread's own arena, more than one heap of it, some lost. */
#include <pthread.h>
#include <stdlib.h>

#define COUNT 3000
static void *held[COUNT];

/* The thread's stack stays mapped after its end, and Valgrind takes what is left in it for references. */
static void wash_stack(void) {
    volatile char frames[16384];
    for (unsigned i = 0; i < sizeof frames; i++)
        frames[i] = 0;
}

static void *work(void *unused) {
    for (int i = 0; i < COUNT; i++) {
        void *block = malloc(30000 + i % 7 * 16);
        held[i] = i % 5 == 0 ? NULL : block;
        free(malloc(100 + i));
    }
    wash_stack();
    return unused;
}

int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    pthread_join(thread, NULL);
    return 0;
}
