/* quick_exit calls its handlers from the last to the first; what they free is no leak, what they lose is one. */
#include <stdlib.h>

static char *first;
static char *held;

static void gives_back(void) { free(first); }

static void loses(void) {
    held = malloc(40);
    held = malloc(50);
}

static void more(void) { at_quick_exit(loses); }

int main(void) {
    char *of_main = malloc(70);
    first = malloc(60);
    at_quick_exit(gives_back);
    at_quick_exit(more);
    malloc(80);
    of_main[0] = 1;
    quick_exit(3);
}
