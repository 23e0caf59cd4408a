/* A list whose head is lost: the head is definite, the rest indirect. */
#include <stdlib.h>

struct node { struct node *next; long payload; };

static __attribute__((noinline)) void lose(void) {
    struct node *head = NULL;
    for (int i = 0; i < 10; i++) {
        struct node *node = malloc(sizeof *node);
        node->next = head;
        head = node;
    }
}

static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    lose();
    overwrite();
    return 0;
}
