/* Cycles that nobody holds: one member is definite. And one that leads into another. */
#include <stdlib.h>

struct node { struct node *next, *other; };

static struct node *ring(int length) {
    struct node *first = calloc(1, sizeof *first), *last = first;
    for (int i = 1; i < length; i++) {
        last->next = calloc(1, sizeof *last);
        last = last->next;
    }
    last->next = first;
    return first;
}

static __attribute__((noinline)) void lose(void) {
    ring(5);
    struct node *late = ring(3), *early = ring(4);
    late->other = early;
    struct node *itself = calloc(1, sizeof *itself);
    itself->next = itself;
}
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    lose();
    overwrite();
    return 0;
}
