/* exit called below a frame that holds the block: reachable. */
#include <stdlib.h>

static __attribute__((noinline)) void leave(void *volatile *held) {
    (void)held;
    exit(0);
}

int main(void) {
    void *volatile held[2] = {malloc(60), (char *)malloc(61) + 3};
    leave(held);
    return 1;
}
