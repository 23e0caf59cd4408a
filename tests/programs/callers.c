// Blocks of sizes 31001 to 31005, each asked for along another kind of way: plain calls, recursion, a callback out of
// libc, a function pointer, a thread. All are freed. The calls are not in tail position, so that no frame is replaced.
#include <pthread.h>
#include <stdlib.h>

static void *volatile kept;

static void *grab(size_t size) {
    void *block = malloc(size);
    kept = block;
    return block;
}

static int plain(void) {
    free(grab(31001));
    return 1;
}

static int deep(int levels) {
    if (levels == 0) {
        free(grab(31002));
        return 0;
    }
    return 1 + deep(levels - 1);
}

static int compare(const void *left, const void *right) {
    static int called;
    if (!called++) free(grab(31003));
    return *(const int *)left - *(const int *)right;
}

static int pointed(void) {
    free(grab(31004));
    return 4;
}

static void *thread(void *unused) {
    free(grab(31005));
    return unused;
}

int main(void) {
    int numbers[] = {3, 1, 2};
    int (*volatile function)(void) = pointed;
    pthread_t other;
    int sum = plain() + deep(20) + function();
    qsort(numbers, 3, sizeof *numbers, compare);
    pthread_create(&other, NULL, thread, NULL);
    pthread_join(other, NULL);
    return sum == 25 ? 0 : 1;
}
