/* Held only by a thread-local variable of the first thread. */
#include <stdlib.h>

static _Thread_local void *held;
static _Thread_local char *middle;

int main(void) {
    held = malloc(48);
    middle = (char *)malloc(49) + 9;
    return 0;
}
