/* A context on a stack from malloc: its frames are in a block that a global holds. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <ucontext.h>

static ucontext_t first, second;
static char *stack;

static void other(void) {
    void *volatile held = malloc(519);
    (void)held;
    swapcontext(&second, &first);
}

int main(void) {
    stack = calloc(1, 65536);
    getcontext(&second);
    second.uc_stack.ss_sp = stack;
    second.uc_stack.ss_size = 65536;
    second.uc_link = &first;
    makecontext(&second, other, 0);
    swapcontext(&first, &second);
    return 0;
}
